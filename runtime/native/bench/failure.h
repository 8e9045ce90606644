// What stops the agent: an ew_status, and a sentence. Its own statuses follow those of edgewise.h.
#pragma once

#include <string>

#include "edgewise.h"

namespace bench {

constexpr int kUsage = 64;
constexpr int kBadReference = 65;

struct Failure {
    int status = EW_OK;
    std::string what, found;
    explicit operator bool() const { return status != EW_OK; }
};

// Of the library's last call on this thread.
inline Failure failed(ew_status status, const char* what) {
    return status == EW_OK ? Failure{} : Failure{status, what, ew_last_error()};
}

inline Failure bad_reference(const std::string& found) { return {kBadReference, "cannot read the reference data", found}; }

}  // namespace bench
