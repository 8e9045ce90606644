// Several contexts of one engine at once, each on a thread of its own: they share the weights.
#pragma once

#include <vector>

#include "session.h"

namespace bench {

struct Level {
    int64_t contexts = 0, runs = 0;
    double seconds = 0;
    std::vector<double> runs_ms;  // of all contexts
    double peak_memory_bytes = 0;
};

// Runs `contexts` of them, with `options.threads` threads each, for `seconds` after each has run once.
Failure run_at_once(const Session& first, const ew_options& options, int64_t contexts, double seconds, Level* level);
void write(Json* json, const std::vector<Level>& levels);

}  // namespace bench
