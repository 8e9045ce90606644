// What can be read about the machine: as edgewise.runtime.profile.machine does, for machines without Python.
#pragma once

#include <string>
#include <vector>

#include "json.h"

namespace bench {

// The machine at one moment; NaN where it cannot be read.
struct Glance {
    double clock_mhz, throttles, busy_s, total_s, temperature_c, pace_us;
};

Glance glance();
double peak_memory_bytes();
double now_s();
double own_cpu_s();

// The whole content, empty where it cannot be read; and as a number, NaN then.
std::string read_text(const std::string& path);
double read_number(const std::string& path);
std::vector<std::string> list_folder(const std::string& path);

// "machine", "os", "governor", "clocks".
void describe(Json* json);
void write(Json* json, const std::vector<Glance>& glances);

}  // namespace bench
