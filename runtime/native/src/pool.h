// Threads that spin for a moment after each piece of work, then sleep.
#pragma once

#include <memory>

#include "parallel.h"

namespace ew {

// threads 0: one per core that this process may use. One thread: no other is started and nothing is synchronised.
// Null when the system refuses a thread. `pin`: each thread that is started stays on a core of its own; the caller's is left alone.
std::unique_ptr<ThreadPool> make_pool(int32_t threads, bool pin);

}  // namespace ew
