#include "concurrent.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "machine.h"

namespace bench {
namespace {

constexpr size_t kLeastRuns = 3;

struct Worker {
    Session session;
    Failure failure;
    std::vector<double> runs_ms;
    double ended_s = 0;
};

struct Start {
    std::atomic<int64_t> ready{0};
    std::atomic<bool> go{false};
    double begin_s = 0;
};

void loop(Worker* worker, Start* start, double seconds) {
    worker->failure = worker->session.run();
    start->ready.fetch_add(1);
    while (!start->go.load(std::memory_order_acquire)) std::this_thread::yield();
    double now = now_s();
    while (!worker->failure && (now < start->begin_s + seconds || worker->runs_ms.size() < kLeastRuns)) {
        worker->failure = worker->session.run();
        const double end = now_s();
        worker->runs_ms.push_back((end - now) * 1e3);
        now = end;
    }
    worker->ended_s = now;
}

double quantile(const std::vector<double>& sorted, double q) {
    const double at = q * static_cast<double>(sorted.size() - 1);
    const auto low = static_cast<size_t>(at);
    const size_t high = std::min(low + 1, sorted.size() - 1);
    return sorted[low] + (at - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

void run_threads(std::vector<std::unique_ptr<Worker>>* workers, Start* start, double seconds) {
    std::vector<std::thread> threads;
    for (const auto& worker : *workers) threads.emplace_back(loop, worker.get(), start, seconds);
    while (start->ready.load() < static_cast<int64_t>(workers->size())) std::this_thread::yield();
    start->begin_s = now_s();
    start->go.store(true, std::memory_order_release);
    for (std::thread& thread : threads) thread.join();
}

}  // namespace

Failure run_at_once(const Session& first, const ew_options& options, int64_t contexts, double seconds, Level* level) {
    std::vector<std::unique_ptr<Worker>> workers;
    for (int64_t i = 0; i < contexts; ++i) {
        workers.push_back(std::make_unique<Worker>());
        if (Failure failure = workers.back()->session.share(first, options)) return failure;
    }
    Start start;
    run_threads(&workers, &start, seconds);
    level->contexts = contexts;
    for (const auto& worker : workers) {
        if (worker->failure) return worker->failure;
        level->runs += static_cast<int64_t>(worker->runs_ms.size());
        level->seconds = std::max(level->seconds, worker->ended_s - start.begin_s);
        level->runs_ms.insert(level->runs_ms.end(), worker->runs_ms.begin(), worker->runs_ms.end());
    }
    std::sort(level->runs_ms.begin(), level->runs_ms.end());
    level->peak_memory_bytes = peak_memory_bytes();
    return {};
}

void write(Json* json, const std::vector<Level>& levels) {
    json->open_list("concurrency");
    for (const Level& level : levels) {
        json->open().integer("contexts", level.contexts).integer("runs", level.runs);
        json->number("throughput_per_s", static_cast<double>(level.runs) / level.seconds);
        json->number("median_ms", quantile(level.runs_ms, 0.5)).number("p90_ms", quantile(level.runs_ms, 0.9));
        json->number("p99_ms", quantile(level.runs_ms, 0.99)).number("peak_memory_bytes", level.peak_memory_bytes).close();
    }
    json->close_list();
}

}  // namespace bench
