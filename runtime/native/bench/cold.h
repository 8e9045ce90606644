// A cold start: the engine's file leaves the page cache first.
#pragma once

#include <string>

namespace bench {

// Asks the system to forget a file, which needs no rights over others' files; says whether it did, as edgewise.runtime.profile.cold does.
std::string drop_page_cache(const char* path);

}  // namespace bench
