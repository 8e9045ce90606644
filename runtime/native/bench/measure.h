// A first run, a warm-up until the latency has settled, warm runs: as edgewise.runtime.profile.timing does.
#pragma once

#include <functional>
#include <vector>

#include "failure.h"
#include "machine.h"

namespace bench {

struct Plan {
    int64_t runs = 0;     // 0: at least 20, for min_time_s
    int64_t warmup = -1;  // below 0: until the median of five runs is within 5 % of the five before
    double min_time_s = 2;
    double duration_s = 0;  // above 0: sustained, and a point of the series about every second
};

// One stretch of a sustained measurement.
struct Point {
    double at_s, median_ms, clock_mhz, temperature_c;
};

struct Timings {
    double first_ms = 0;
    std::vector<double> warmup_ms, runs_ms;
    bool stable = true;
    std::vector<Glance> glances;
    std::vector<Point> series;
    double began_s = 0;  // of the warm runs, by now_s()
    double own_cpu_s = 0, wall_s = 0;
    int64_t count = 0;  // of warm runs; runs_ms holds at most the first 10,000 of a sustained measurement
};

using Run = std::function<Failure()>;

Failure warm_up(const Run& run, const Plan& plan, Timings* timings);
Failure measure(const Run& run, const Plan& plan, Timings* timings);
void write(Json* json, const Timings& timings);
double median(std::vector<double> values);

}  // namespace bench
