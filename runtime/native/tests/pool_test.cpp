// The thread pool and the placement of memory, against what they promise.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "../src/arena.h"
#include "../src/pool.h"
#include "testing.h"

namespace {

// Each item once, pieces of whole grains, threads in range.
void covers_everything(int32_t threads) {
    const auto pool = ew::make_pool(threads, false);
    CHECK(pool && (threads == 0 || pool->threads() == threads));
    for (const int64_t count : {0, 1, 2, 7, 8, 9, 63, 64, 65, 1000, 12345}) {
        for (const int64_t grain : {1, 3, 8, 64}) {
            std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
            pool->parallel(count, grain, [&](int64_t begin, int64_t end, int32_t thread) {
                CHECK(begin < end && begin % grain == 0 && (end % grain == 0 || end == count));
                CHECK(thread >= 0 && thread < pool->threads());
                for (int64_t i = begin; i < end; ++i) seen[static_cast<size_t>(i)]++;
            });
            for (const auto& times : seen) CHECK(times == 1);
        }
    }
}

// split() returns when the slowest thread that took a piece is through with it.
void waits_for_slow_threads() {
    const auto pool = ew::make_pool(3, false);
    std::atomic<int> others{0};
    for (int round = 0; round < 20 || (others == 0 && round < 500); ++round) {
        int64_t done[4] = {};
        pool->parallel(12, 3, [&](int64_t begin, int64_t end, int32_t thread) {
            std::this_thread::sleep_for(std::chrono::milliseconds(thread == 0 ? 1 : 5));
            if (thread != 0) others++;
            done[begin / 3] = end - begin;
        });
        for (const int64_t items : done) CHECK(items == 3);
    }
    CHECK(others > 0);
}

// What one round writes, plainly, the next reads in other threads; with pauses in which threads fall asleep.
void rounds_follow_each_other(int32_t threads) {
    const auto pool = ew::make_pool(threads, true);
    std::vector<int> values(4096);
    for (int round = 0; round < 3000; ++round) {
        pool->parallel(4096, 64, [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) {
                CHECK(values[static_cast<size_t>(4095 - i)] >= 0);
                (void)i;
            }
        });
        pool->parallel(4096, 64, [&](int64_t begin, int64_t end, int32_t) {
            for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)]++;
        });
        if (round % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    for (const int value : values) CHECK(value == 3000);
}

void several_pools_at_once() {
    std::vector<std::thread> users;
    for (int user = 0; user < 3; ++user) {
        users.emplace_back([] {
            for (int again = 0; again < 5; ++again) {
                const auto pool = ew::make_pool(4, false);
                std::atomic<int64_t> sum{0};
                for (int round = 0; round < 100; ++round) {
                    pool->parallel(1000, 10, [&](int64_t begin, int64_t end, int32_t) { sum += end - begin; });
                }
                CHECK(sum == 100000);
            }
        });
    }
    for (std::thread& user : users) user.join();
}

// A child has none of the threads, and must not wait for them.
[[maybe_unused]] void a_forked_child_works_alone() {
    const auto pool = ew::make_pool(3, false);
    const pid_t child = fork();
    if (child == 0) {
        alarm(600);
        {
            const auto own = ew::make_pool(2, false);
            int64_t sum = 0;
            pool->parallel(1000, 1, [&](int64_t begin, int64_t end, int32_t) { sum += end - begin; });
            std::atomic<int64_t> other{0};
            own->parallel(1000, 1, [&](int64_t begin, int64_t end, int32_t) { other += end - begin; });
            if (sum != 1000 || other != 1000) _exit(1);
        }
        const_cast<std::unique_ptr<ew::ThreadPool>&>(pool).reset();
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

void storages_alive_together_do_not_overlap() {
    std::mt19937 random(1);
    for (int trial = 0; trial < 300; ++trial) {
        const int steps = static_cast<int>(random() % 40);
        std::vector<ew::Lifetime> lives(random() % 60);
        uint64_t whole = 0;
        for (ew::Lifetime& life : lives) {
            life.bytes = random() % 5 == 0 ? 0 : random() % 5000;
            life.first = static_cast<int>(random() % static_cast<unsigned>(steps + 2)) - 1;
            life.last = life.first + static_cast<int>(random() % static_cast<unsigned>(steps - life.first + 1));
            whole += (life.bytes + 63) / 64 * 64;
        }
        std::vector<uint64_t> offsets;
        const uint64_t total = ew::place(lives, steps, &offsets);
        uint64_t least = 0;
        for (int step = -1; step <= steps; ++step) {
            uint64_t alive = 0;
            for (const ew::Lifetime& life : lives) alive += life.first <= step && step <= life.last ? (life.bytes + 63) / 64 * 64 : 0;
            least = std::max(least, alive);
        }
        CHECK(total >= least && total <= whole);
        for (size_t i = 0; i < lives.size(); ++i) {
            CHECK(offsets[i] % 64 == 0 && (lives[i].bytes == 0 || offsets[i] + lives[i].bytes <= total));
            for (size_t j = 0; j < i; ++j) {
                if (lives[i].last < lives[j].first || lives[j].last < lives[i].first) continue;
                CHECK(!lives[i].bytes || !lives[j].bytes || offsets[i] + lives[i].bytes <= offsets[j] || offsets[j] + lives[j].bytes <= offsets[i]);
            }
        }
    }
}

// A chain of 50,000 operators takes no more than its two largest neighbours; 20,000 that all live at once are still placed soon.
void many_storages() {
    std::vector<ew::Lifetime> chain, crowd;
    for (int i = 0; i < 50000; ++i) chain.push_back({64, i, i + 1});
    for (int i = 0; i < 20000; ++i) crowd.push_back({64, -1, 20000});
    std::vector<uint64_t> offsets;
    CHECK(ew::place(chain, 50000, &offsets) == 128);
    CHECK(ew::place(crowd, 20000, &offsets) == 64 * 20000);
    CHECK(ew::place(std::vector<ew::Lifetime>(300000, {uint64_t{1} << 46, 0, 0}), 1, &offsets) > uint64_t{1} << 46);
}

}  // namespace

int main() {
    for (const int32_t threads : {0, 1, 2, 3, 9}) covers_everything(threads);
    waits_for_slow_threads();
    for (const int32_t threads : {2, 4}) rounds_follow_each_other(threads);
    several_pools_at_once();
#if !defined(__SANITIZE_THREAD__)  // which does not follow a fork
    a_forked_child_works_alone();
#endif
    storages_alive_together_do_not_overlap();
    many_storages();
    std::puts("pool: all well");
}
