#include "pool.h"

#if !defined(__wasi__)
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>
#endif

namespace ew {
namespace {

class Single final : public ThreadPool {
public:
    int32_t threads() const override { return 1; }
    void split(int64_t count, int64_t, Body body, void* context) override {
        if (count > 0) body(context, 0, count, 0);
    }
};

#if !defined(__wasi__)  // which has no threads

using Clock = std::chrono::steady_clock;

constexpr auto kSpin = std::chrono::microseconds(50);  // about the longest gap between two parallel operators
constexpr size_t kCacheLine = 64;
constexpr int64_t kPieces = 16;      // a thread, so that one that is slowed down does not hold up the others
constexpr int64_t kLeastGrains = 4;  // of a piece, but of a share's last ones

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// False when `done` has not come true in kSpin. Where there are more threads than cores, the one that is waited for may need this
// very core: so it is offered again and again.
template <typename F>
bool spin_until(F&& done) {
    const auto end = Clock::now() + kSpin;
    for (int round = 0;; ++round) {
        for (int i = 0; i < 32; ++i) {
            if (done()) return true;
            pause();
        }
        if (round > 0) std::this_thread::yield();
        if (Clock::now() >= end) return false;
    }
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

int current_core() {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

// Moves this thread to another core that it may use. The scheduler may wake a thread on the core of the one that wakes it, and leave
// both there for seconds while another core is idle.
void leave_core(int core) {
#if defined(__linux__)
    cpu_set_t allowed, others;
    if (core < 0 || sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2) return;
    others = allowed;
    CPU_CLR(core, &others);
    if (sched_setaffinity(0, sizeof others, &others) == 0) sched_setaffinity(0, sizeof allowed, &allowed);
#else
    (void)core;
#endif
}

// How often this process came out of a fork: its parent's threads are not in it.
std::atomic<uint32_t> forks{0};

void count_forks() {
    static const int registered = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
    (void)registered;
}

// The threads beside the caller's. A round is one split(): it is opened, threads that are awake join it, the caller closes it
// when no piece is left and waits for those that joined. One that wakes too late finds it closed and is waited for by nobody.
class Crew {
public:
    explicit Crew(int32_t threads) : count_(threads), shares_(static_cast<size_t>(threads)) {
        workers_.reserve(static_cast<size_t>(threads));
    }

    // False when the system refuses a thread; end() ends those that were started.
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

    void end() {
        stop_.store(true, std::memory_order_seq_cst);
        wake();
        for (std::thread& worker : workers_) worker.join();
    }

    void run(int64_t count, int64_t grain, ThreadPool::Body body, void* context) {
        body_ = body, context_ = context, core_ = current_core();
        const int64_t grains = count / grain + (count % grain > 0);
        grain_ = grain;
        piece_ = std::max(kLeastGrains, grains / (kPieces * count_)) * grain;
        for (int32_t i = 0; i < count_; ++i) {
            Share& share = shares_[static_cast<size_t>(i)];
            share.next.store(grains * i / count_ * grain, std::memory_order_relaxed);
            share.end = std::min(grains * (i + 1) / count_ * grain, count);
            share.begun.store(false, std::memory_order_relaxed);
        }
        state_.store((state_.load(std::memory_order_relaxed) | kOpen) + kRound, std::memory_order_seq_cst);
        if (asleep_.load(std::memory_order_seq_cst) != 0) wake();
        take_pieces(0);
        state_.fetch_and(~kOpen, std::memory_order_acq_rel);
        const auto all_left = [this] { return (state_.load(std::memory_order_acquire) & kInside) == 0; };
        while (!spin_until(all_left)) {
        }
    }

private:
    // The items of one thread, which others may take from.
    struct alignas(kCacheLine) Share {
        std::atomic<int64_t> next{0};
        int64_t end = 0;
        std::atomic<bool> begun{false};  // by its own thread, which is inside and will take all that is left
    };
    struct Piece {
        int64_t begin, end;
    };

    // state_: the round, whether it is open, how many threads are inside.
    static constexpr uint64_t kInside = (uint64_t{1} << 31) - 1, kOpen = uint64_t{1} << 31, kRound = uint64_t{1} << 32;

    void wake() {
        std::lock_guard<std::mutex> lock(mutex_);
        wake_.notify_all();
    }

    // Of a share; empty when none is left. The last pieces are smaller, so that threads end together. Others leave the
    // last grain to a share's own thread, which is as soon through with it.
    Piece take_piece(Share& share, bool own) {
        int64_t begin = share.next.load(std::memory_order_relaxed);
        for (;;) {
            const int64_t left = share.end - begin;
            if (left <= 0 || (!own && left <= grain_ && share.begun.load(std::memory_order_acquire))) return {0, 0};
            const int64_t end = std::min(begin + std::clamp(left / 2 / grain_ * grain_, grain_, piece_), share.end);
            if (share.next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) return {begin, end};
        }
    }

    // A thread's own pieces follow each other, so that it finds in its cache what neighbouring items share; then those that others
    // have not begun.
    void take_pieces(int32_t thread) {
        shares_[static_cast<size_t>(thread)].begun.store(true, std::memory_order_release);
        for (int32_t i = 0; i < count_; ++i) {
            Share& share = shares_[static_cast<size_t>((thread + i) % count_)];
            for (Piece piece = take_piece(share, i == 0); piece.begin < piece.end; piece = take_piece(share, i == 0)) {
                body_(context_, piece.begin, piece.end, thread);
            }
        }
    }

    void work(int32_t thread) {
        uint64_t seen = 0;
        while (wait_for_round(seen)) {
            uint64_t state = state_.load(std::memory_order_relaxed);
            while ((state & kOpen) != 0) {
                if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire, std::memory_order_relaxed)) continue;
                if (current_core() == core_) leave_core(core_);
                take_pieces(thread);
                state_.fetch_sub(1, std::memory_order_release);
                break;
            }
            seen = state / kRound;
        }
    }

    bool news(uint64_t seen) const {
        const uint64_t state = state_.load(std::memory_order_seq_cst);
        return ((state & kOpen) != 0 && state / kRound != seen) || stop_.load(std::memory_order_seq_cst);
    }

    // False when it is time to end.
    bool wait_for_round(uint64_t seen) {
        if (!spin_until([&] { return news(seen); })) {
            std::unique_lock<std::mutex> lock(mutex_);
            asleep_.fetch_add(1, std::memory_order_seq_cst);
            wake_.wait(lock, [&] { return news(seen); });
            asleep_.fetch_sub(1, std::memory_order_seq_cst);
        }
        return !stop_.load(std::memory_order_relaxed);
    }

    const int32_t count_;
    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<int32_t> asleep_{0};
    std::atomic<bool> stop_{false};
    alignas(kCacheLine) std::atomic<uint64_t> state_{0};
    // Written between rounds, when nobody is inside.
    std::vector<Share> shares_;
    alignas(kCacheLine) int64_t grain_ = 1, piece_ = 1;
    int core_ = -1;  // of the caller
    ThreadPool::Body body_ = nullptr;
    void* context_ = nullptr;
};

class Many final : public ThreadPool {
public:
    explicit Many(int32_t threads) : threads_(threads), born_(forks.load()), crew_(std::make_unique<Crew>(threads)) {}
    ~Many() override {
        if (forked()) {
            (void)crew_.release();  // its threads are the parent's; nobody could join them
        } else {
            crew_->end();
        }
    }
    bool start(bool pin) { return crew_->start(pin); }
    int32_t threads() const override { return threads_; }
    void split(int64_t count, int64_t grain, Body body, void* context) override {
        if (count <= grain || forked()) {
            if (count > 0) body(context, 0, count, 0);
            return;
        }
        crew_->run(count, grain, body, context);
    }

private:
    bool forked() const { return forks.load(std::memory_order_relaxed) != born_; }

    const int32_t threads_;
    const uint32_t born_;
    std::unique_ptr<Crew> crew_;
};

#endif

}  // namespace

std::unique_ptr<ThreadPool> make_pool(int32_t threads, bool pin) {
#if defined(__wasi__)
    (void)threads, (void)pin;
    return std::make_unique<Single>();
#else
    if (threads <= 0) threads = static_cast<int32_t>(allowed_cores().size());
    if (threads == 1) return std::make_unique<Single>();
    count_forks();
    auto pool = std::make_unique<Many>(threads);
    return pool->start(pin) ? std::move(pool) : nullptr;
#endif
}

}  // namespace ew
