// Work split over the threads of a context.
#pragma once

#include <cstdint>

namespace ew {

class ThreadPool {
public:
    virtual ~ThreadPool() = default;
    virtual int32_t threads() const = 0;

    using Body = void (*)(void* context, int64_t begin, int64_t end, int32_t thread);
    // Calls body on pieces that cover [0, count), each of a multiple of `grain` items but the last; thread < threads().
    // Returns when all is done. With one thread it is a plain call.
    virtual void split(int64_t count, int64_t grain, Body body, void* context) = 0;

    template <typename F>
    void parallel(int64_t count, int64_t grain, F&& f) {
        split(count, grain, [](void* context, int64_t begin, int64_t end, int32_t thread) {
            (*static_cast<F*>(context))(begin, end, thread);
        }, &f);
    }
};

}  // namespace ew
