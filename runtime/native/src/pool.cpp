#include "pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace ew {
namespace {

constexpr int kSpins = 4000;  // about 20 to 50 microseconds: as long as the gap between two operators

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

std::vector<int> allowed_cores() {
    std::vector<int> cores;
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        for (int core = 0; core < CPU_SETSIZE; ++core) {
            if (CPU_ISSET(core, &set)) cores.push_back(core);
        }
    }
#endif
    if (cores.empty()) cores.resize(std::max(1u, std::thread::hardware_concurrency()), -1);
    return cores;
}

void pin_to(std::thread& thread, int core) {
#if defined(__linux__)
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    pthread_setaffinity_np(thread.native_handle(), sizeof set, &set);  // a refusal costs speed, not correctness
#else
    (void)thread, (void)core;
#endif
}

class Single final : public ThreadPool {
public:
    int32_t threads() const override { return 1; }
    void split(int64_t count, int64_t, Body body, void* context) override {
        if (count > 0) body(context, 0, count, 0);
    }
};

class Many final : public ThreadPool {
public:
    explicit Many(int32_t threads) : count_(threads) {}

    // False when the system refuses a thread; the destructor ends those that were started.
    bool start(bool pin) {
        const std::vector<int> cores = allowed_cores();
        for (int32_t i = 1; i < count_; ++i) {
            try {
                workers_.emplace_back([this, i] { work(i); });
            } catch (const std::system_error&) {
                return false;
            }
            if (pin && cores[0] >= 0) pin_to(workers_.back(), cores[static_cast<size_t>(i) % cores.size()]);
        }
        return true;
    }

    ~Many() override {
        stop_.store(true);
        announce();
        for (std::thread& worker : workers_) worker.join();
    }

    int32_t threads() const override { return count_; }

    void split(int64_t count, int64_t grain, Body body, void* context) override {
        if (count <= grain) {
            if (count > 0) body(context, 0, count, 0);
            return;
        }
        body_ = body, context_ = context, items_ = count;
        // Four pieces a thread, so that one that is slowed down does not hold up the others.
        const int64_t pieces = std::min<int64_t>((count + grain - 1) / grain, int64_t{4} * count_);
        piece_ = ((count + pieces - 1) / pieces + grain - 1) / grain * grain;
        next_.store(0, std::memory_order_relaxed);
        running_.store(count_ - 1, std::memory_order_relaxed);
        announce();
        take_pieces(0);
        while (running_.load(std::memory_order_acquire) != 0) pause();
    }

private:
    void announce() {
        round_.fetch_add(1, std::memory_order_seq_cst);
        if (asleep_.load(std::memory_order_seq_cst) != 0) {
            std::lock_guard<std::mutex> lock(mutex_);
            wake_.notify_all();
        }
    }

    void take_pieces(int32_t thread) {
        for (;;) {
            const int64_t begin = next_.fetch_add(piece_, std::memory_order_relaxed);
            if (begin >= items_) return;
            body_(context_, begin, std::min(begin + piece_, items_), thread);
        }
    }

    void work(int32_t thread) {
        uint32_t seen = 0;
        for (;;) {
            wait_for_news(seen);
            ++seen;
            if (stop_.load()) return;
            take_pieces(thread);
            running_.fetch_sub(1, std::memory_order_release);
        }
    }

    void wait_for_news(uint32_t seen) {
        for (int i = 0; i < kSpins; ++i) {
            if (round_.load(std::memory_order_acquire) != seen) return;
            pause();
        }
        std::unique_lock<std::mutex> lock(mutex_);
        asleep_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, [&] { return round_.load(std::memory_order_seq_cst) != seen; });
        asleep_.fetch_sub(1, std::memory_order_seq_cst);
    }

    const int32_t count_;
    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<int32_t> asleep_{0};
    std::atomic<uint32_t> round_{0};
    std::atomic<bool> stop_{false};
    std::atomic<int32_t> running_{0};
    std::atomic<int64_t> next_{0};
    int64_t items_ = 0, piece_ = 1;
    Body body_ = nullptr;
    void* context_ = nullptr;
};

}  // namespace

std::unique_ptr<ThreadPool> make_pool(int32_t threads, bool pin) {
    if (threads <= 0) threads = static_cast<int32_t>(allowed_cores().size());
    if (threads == 1) return std::make_unique<Single>();
    auto pool = std::make_unique<Many>(threads);
    return pool->start(pin) ? std::move(pool) : nullptr;
}

}  // namespace ew
