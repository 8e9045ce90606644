#include "measure.h"

#include <time.h>

#include <algorithm>

namespace bench {
namespace {

constexpr size_t kWindow = 5;
constexpr double kStableWithin = 0.05, kMostWarmupS = 3, kMostS = 60;
constexpr int64_t kLeastRuns = 20, kMostRuns = 10000;
constexpr int kMostGlances = 20, kMostPoints = 600;

Failure time(const Run& run, double* ms) {
    const double start = now_s();
    Failure failure = run();
    *ms = (now_s() - start) * 1e3;
    return failure;
}

double median_of(const std::vector<double>& values, size_t from, size_t to) {
    return median({values.begin() + static_cast<ptrdiff_t>(from), values.begin() + static_cast<ptrdiff_t>(to)});
}

bool settled(const std::vector<double>& runs) {
    const size_t n = runs.size();
    if (n < 2 * kWindow) return false;
    const double before = median_of(runs, n - 2 * kWindow, n - kWindow), after = median_of(runs, n - kWindow, n);
    return std::fabs(after - before) <= kStableWithin * before;
}

// How much of the measurement is done; 1 and more ends it.
double part_done(const Plan& plan, int64_t done, double passed_s) {
    if (plan.duration_s > 0) return passed_s / plan.duration_s;
    if (plan.runs > 0) return static_cast<double>(done) / static_cast<double>(plan.runs);
    if (done >= kMostRuns || passed_s >= kMostS) return 1;
    return std::min(static_cast<double>(done) / kLeastRuns, passed_s / std::min(plan.min_time_s, kMostS));
}

void tell(int64_t done, const Plan& plan) {
    if (plan.runs > 0) {
        std::printf("{\"progress\":[\"measure\",%lld,%lld]}\n", static_cast<long long>(done), static_cast<long long>(plan.runs));
    } else {
        std::printf("{\"progress\":[\"measure\",%lld,null]}\n", static_cast<long long>(done));
    }
    std::fflush(stdout);
}

// The runs of one stretch of a sustained measurement.
class Stretch {
public:
    Stretch(const Plan& plan, double start_s) : length_s_(std::max(1.0, plan.duration_s / kMostPoints)), start_s_(start_s), from_s_(start_s) {}

    void add(double ms, double now, std::vector<Point>* series) {
        runs_ms_.push_back(ms);
        if (now - from_s_ < length_s_) return;
        const Glance look = glance();
        series->push_back({now - start_s_, median(runs_ms_), look.clock_mhz, look.temperature_c});
        runs_ms_.clear();
        from_s_ = now;
    }

private:
    double length_s_, start_s_, from_s_;
    std::vector<double> runs_ms_;
};

}  // namespace

double median(std::vector<double> values) {
    if (values.empty()) return NAN;
    const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    if (values.size() % 2) return *middle;
    return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

Failure warm_up(const Run& run, const Plan& plan, Timings* timings) {
    const double end = now_s() + kMostWarmupS;
    timings->stable = plan.warmup >= 0;
    const auto more = [&] {
        if (plan.warmup >= 0) return static_cast<int64_t>(timings->warmup_ms.size()) < plan.warmup;
        return !(timings->stable = settled(timings->warmup_ms)) && now_s() < end;
    };
    while (more()) {
        timings->warmup_ms.push_back(0);
        if (Failure failure = time(run, &timings->warmup_ms.back())) return failure;
    }
    return {};
}

Failure measure(const Run& run, const Plan& plan, Timings* timings) {
    timings->runs_ms.reserve(static_cast<size_t>(plan.runs > 0 ? std::min<int64_t>(plan.runs, 1 << 20) : kMostRuns));
    const double start = now_s(), cpu = own_cpu_s();
    Stretch stretch(plan, start);
    for (int glances = 0;;) {
        const double part = part_done(plan, timings->count, now_s() - start);
        if (glances <= part * kMostGlances) {
            glances = static_cast<int>(part * kMostGlances) + 1;
            timings->glances.push_back(glance());
            tell(timings->count, plan);
        }
        if (part >= 1) break;
        double ms;
        if (Failure failure = time(run, &ms)) return failure;
        timings->count += 1;
        if (plan.duration_s <= 0 || timings->count <= kMostRuns) timings->runs_ms.push_back(ms);
        if (plan.duration_s > 0) stretch.add(ms, now_s(), &timings->series);
    }
    timings->own_cpu_s = own_cpu_s() - cpu;
    timings->began_s = start;
    timings->wall_s = now_s() - start;
    return {};
}

void write(Json* json, const Timings& timings) {
    timespec step{};
    clock_getres(CLOCK_MONOTONIC, &step);
    json->number("first_run_ms", timings.first_ms).numbers("warmup_ms", timings.warmup_ms).numbers("runs_ms", timings.runs_ms);
    json->boolean("stable", timings.stable).integer("count", timings.count);
    json->open_list("window").number(nullptr, timings.began_s).number(nullptr, timings.began_s + timings.wall_s).close_list();
    json->number("own_cpu_s", timings.own_cpu_s).number("wall_s", timings.wall_s);
    json->number("resolution_ms", static_cast<double>(step.tv_sec) * 1e3 + static_cast<double>(step.tv_nsec) * 1e-6);
    write(json, timings.glances);
    json->open_list("series");
    for (const Point& point : timings.series) {
        json->open().number("at_s", point.at_s).number("median_ms", point.median_ms).number("clock_mhz", point.clock_mhz);
        json->number("temperature_c", point.temperature_c).close();
    }
    json->close_list();
}

}  // namespace bench
