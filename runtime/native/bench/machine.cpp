#include "machine.h"

#include <dirent.h>
#include <sched.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>

namespace bench {
namespace {

const char kCpus[] = "/sys/devices/system/cpu";

// The text after "KEY" and a colon, on the first line that begins so.
std::string field(const std::string& text, const char* key) {
    size_t at = 0;
    const size_t length = std::strlen(key);
    while (at < text.size()) {
        const size_t end = std::min(text.find('\n', at), text.size());
        if (text.compare(at, length, key) == 0) {
            const size_t colon = text.find_first_of(":=", at);
            if (colon != std::string::npos && colon < end) {
                const size_t from = text.find_first_not_of(" \t\"", colon + 1);
                const size_t to = text.find_last_not_of(" \t\"", end - 1);
                return from > to || from >= end ? "" : text.substr(from, to - from + 1);
            }
        }
        at = end + 1;
    }
    return "";
}

double kilobytes(const std::string& text, const char* key) {
    const std::string value = field(text, key);
    return value.empty() ? NAN : std::atof(value.c_str()) * 1024;
}

std::vector<std::string> cpu_files(const char* name) {
    std::vector<std::string> found;
    for (const std::string& entry : list_folder(kCpus)) {
        if (entry.compare(0, 3, "cpu") != 0 || entry.size() < 4 || entry[3] < '0' || entry[3] > '9') continue;
        const std::string file = std::string(kCpus) + "/" + entry + "/" + name;
        if (access(file.c_str(), R_OK) == 0) found.push_back(file);
    }
    return found;
}

std::vector<double> cpu_numbers(const char* name) {
    std::vector<double> values;
    for (const std::string& file : cpu_files(name)) {
        const double value = read_number(file);
        if (!std::isnan(value)) values.push_back(value);
    }
    return values;
}

double mean(const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value;
    return values.empty() ? NAN : sum / static_cast<double>(values.size());
}

double clock_mhz() {
    const std::vector<double> clocks = cpu_numbers("cpufreq/scaling_cur_freq");
    if (!clocks.empty()) return mean(clocks) / 1000;
    std::vector<double> told;
    const std::string text = read_text("/proc/cpuinfo");
    for (size_t at = text.find("cpu MHz"); at != std::string::npos; at = text.find("cpu MHz", at + 1)) {
        const size_t colon = text.find(':', at);
        if (colon != std::string::npos) told.push_back(std::atof(text.c_str() + colon + 1));
    }
    return mean(told);
}

// The hottest zone.
double temperature_c() {
    double hottest = NAN;
    for (const std::string& entry : list_folder("/sys/class/thermal")) {
        if (entry.compare(0, 12, "thermal_zone") != 0) continue;
        const double value = read_number("/sys/class/thermal/" + entry + "/temp") / 1000;
        if (!std::isnan(value) && !(hottest >= value)) hottest = value;
    }
    return hottest;
}

// user nice system idle iowait irq softirq steal; what follows is counted in user already.
void busy(Glance* glance) {
    const std::string text = read_text("/proc/stat");
    unsigned long long ticks[8] = {};
    glance->busy_s = glance->total_s = NAN;
    if (text.compare(0, 4, "cpu ") != 0) return;
    const char* at = text.c_str() + 4;
    for (auto& tick : ticks) {
        char* end;
        tick = std::strtoull(at, &end, 10);
        if (end == at) return;
        at = end;
    }
    double total = 0;
    for (const auto tick : ticks) total += static_cast<double>(tick);
    const double per_second = static_cast<double>(sysconf(_SC_CLK_TCK));
    glance->total_s = total / per_second;
    glance->busy_s = (total - static_cast<double>(ticks[3] + ticks[4])) / per_second;
}

// What a fixed piece of work takes just now: the shortest of three. Its parts wait for nothing, so that a thread of somebody else's in the
// same core takes from them what it takes from a network.
double pace_us() {
    double least_s = INFINITY;
    for (int i = 0; i < 3; ++i) {
        const double start = now_s();
        unsigned parts[32] = {};
        for (unsigned step = 0; step < 10000; ++step) {
            for (unsigned& part : parts) part = (part ^ step) + 0x9e3779b9u;
        }
        volatile unsigned kept = 0;
        for (const unsigned part : parts) kept = kept + part;
        least_s = std::min(least_s, now_s() - start);
    }
    return least_s * 1e6;
}

std::string cpu_model(const char* machine) {
    const std::string text = read_text("/proc/cpuinfo");
    for (const char* key : {"model name", "Hardware", "Processor", "uarch"}) {
        const std::string value = field(text, key);
        if (!value.empty()) return value;
    }
    const std::string part = field(text, "CPU part");
    return part.empty() ? machine : std::string(machine) + ", part " + part;
}

double available_cores() {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    return static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN));
}

void text_or_null(Json* json, const char* name, const std::string& value) {
    value.empty() ? json->null(name) : json->text(name, value);
}

std::string governors() {
    std::set<std::string> found;
    for (const std::string& file : cpu_files("cpufreq/scaling_governor")) found.insert(read_text(file));
    std::string all;
    for (const std::string& name : found) all += (all.empty() ? "" : ", ") + name;
    return all;
}

}  // namespace

std::string read_text(const std::string& path) {
    FILE* file = std::fopen(path.c_str(), "rb");
    if (!file) return "";
    std::string text;
    char buffer[4096];
    while (const size_t got = std::fread(buffer, 1, sizeof buffer, file)) text.append(buffer, got);
    std::fclose(file);
    while (!text.empty() && std::strchr("\n \0", text.back())) text.pop_back();
    return text;
}

double read_number(const std::string& path) {
    const std::string text = read_text(path);
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    return end == text.c_str() ? NAN : value;
}

std::vector<std::string> list_folder(const std::string& path) {
    std::vector<std::string> names;
    DIR* folder = opendir(path.c_str());
    if (!folder) return names;
    while (const dirent* entry = readdir(folder)) names.emplace_back(entry->d_name);
    closedir(folder);
    std::sort(names.begin(), names.end());
    return names;
}

Glance glance() {
    Glance now{};
    const std::vector<double> counts = cpu_numbers("thermal_throttle/core_throttle_count");
    now.throttles = counts.empty() ? NAN : 0;
    for (const double count : counts) now.throttles += count;
    now.clock_mhz = clock_mhz();
    now.temperature_c = temperature_c();
    busy(&now);
    now.pace_us = pace_us();
    return now;
}

double peak_memory_bytes() { return kilobytes(read_text("/proc/self/status"), "VmHWM"); }

double now_s() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double own_cpu_s() {
    timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void describe(Json* json) {
    utsname system{};
    uname(&system);
    json->open("machine");
    json->text("cpu", cpu_model(system.machine)).text("machine", system.machine);
    text_or_null(json, "board", read_text("/proc/device-tree/model"));
    json->integer("cores", sysconf(_SC_NPROCESSORS_CONF)).number("cores_available", available_cores());
    json->number("memory_bytes", kilobytes(read_text("/proc/meminfo"), "MemTotal")).close();
    const std::string release = field(read_text("/etc/os-release"), "PRETTY_NAME");
    json->text("os", release + (release.empty() ? "" : ", ") + system.sysname + " " + system.release);
    text_or_null(json, "governor", governors());
    const std::vector<double> lows = cpu_numbers("cpufreq/cpuinfo_min_freq"), highs = cpu_numbers("cpufreq/cpuinfo_max_freq");
    json->open("clocks");
    json->number("min_mhz", lows.empty() ? NAN : *std::min_element(lows.begin(), lows.end()) / 1000);
    json->number("max_mhz", highs.empty() ? NAN : *std::max_element(highs.begin(), highs.end()) / 1000).close();
}

void write(Json* json, const std::vector<Glance>& glances) {
    json->open_list("glances");
    for (const Glance& moment : glances) {
        json->open().number("clock_mhz", moment.clock_mhz).number("throttles", moment.throttles);
        json->number("busy_s", moment.busy_s).number("total_s", moment.total_s);
        json->number("temperature_c", moment.temperature_c).number("pace_us", moment.pace_us).close();
    }
    json->close_list();
}

}  // namespace bench
