// edgewise-bench: checks an engine file against reference outputs on the device that it runs on, and measures it. One static program
// without anything beneath it; `edgewise profile --device …` sends it there. Lines of JSON on stdout: {"progress": [task, done, total]},
// and at last {"result": …} or {"error": {"status", "what", "found"}}. Exit status 0, or 1 with an error.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "cold.h"
#include "concurrent.h"
#include "machine.h"
#include "measure.h"
#include "peak.h"
#include "serve.h"
#include "session.h"
#include "watch.h"

namespace bench {
namespace {

constexpr int kMostLayerRuns = 50;
constexpr int64_t kMostContexts = 256;
constexpr double kMostLevelS = 1, kMostThreads = 1024, kLeastPeakBytes = 1 << 16, kMostPeakBytes = 1 << 30;

const char kUsageText[] =
    "edgewise-bench ENGINE REFERENCE [--threads N] [--runs N] [--warmup N] [--min-time S] [--duration S] [--per-layer] [--check-only]"
    " [--cold] [--concurrency N,N,...]; or: --machine; --peak THREADS BYTES; --watch ...";

struct Order {
    const char *engine = nullptr, *reference = nullptr;
    ew_options options{};
    Plan plan;
    bool per_layer = false, check_only = false, cold = false;
    std::vector<int64_t> concurrency;
};

Failure usage(const std::string& found) { return {kUsage, kUsageText, found}; }

bool number(const char* text, double least, double most, double* value) {
    char* end = nullptr;
    *value = std::strtod(text, &end);
    return end != text && *end == '\0' && *value >= least && *value <= most;
}

// Numbers of contexts, with commas between.
Failure set_concurrency(Order* order, const char* text) {
    const std::string all = text ? text : "";
    for (size_t from = 0, to = 0; to != std::string::npos; from = to + 1) {
        to = all.find(',', from);
        double value = 0;
        if (!number(all.substr(from, to - from).c_str(), 1, kMostContexts, &value) || value != std::floor(value)) {
            return usage("--concurrency " + all);
        }
        order->concurrency.push_back(static_cast<int64_t>(value));
    }
    return {};
}

Failure set_option(Order* order, const std::string& name, const char* text) {
    double value = 0;
    if (name == "--concurrency") return set_concurrency(order, text);
    const bool whole = name != "--min-time" && name != "--duration";
    if (!text || !number(text, name == "--runs" ? 1 : 0, 1e9, &value) || (whole && value != std::floor(value))) {
        return usage(name + (text ? std::string(" ") + text : " without a value"));
    }
    if (name == "--threads") order->options.threads = static_cast<int32_t>(value);
    if (name == "--runs") order->plan.runs = static_cast<int64_t>(value);
    if (name == "--warmup") order->plan.warmup = static_cast<int64_t>(value);
    if (name == "--min-time") order->plan.min_time_s = value;
    if (name == "--duration") order->plan.duration_s = value;
    return {};
}

bool takes_value(const std::string& name) {
    for (const char* one : {"--threads", "--runs", "--warmup", "--min-time", "--duration", "--concurrency"}) {
        if (name == one) return true;
    }
    return false;
}

Failure parse(int count, char** arguments, Order* order) {
    for (int i = 1; i < count; ++i) {
        const std::string name = arguments[i];
        if (name == "--per-layer") {
            order->per_layer = true;
        } else if (name == "--check-only") {
            order->check_only = true;
        } else if (name == "--cold") {
            order->cold = true;
        } else if (takes_value(name)) {
            if (Failure failure = set_option(order, name, i + 1 < count ? arguments[i + 1] : nullptr)) return failure;
            ++i;
        } else if (name.compare(0, 1, "-") == 0 || order->reference) {
            return usage(name);
        } else {
            (order->engine ? order->reference : order->engine) = arguments[i];
        }
    }
    return order->reference ? Failure{} : usage("no engine and reference");
}

void write(Json* json, const std::vector<Sums>& all) {
    json->open_list("sums");
    for (const Sums& sums : all) {
        json->open().text("name", sums.name).number("signal", sums.signal).number("noise", sums.noise);
        json->number("energy", sums.energy).number("dot", sums.dot).number("largest", sums.largest);
        json->integer("rows", sums.rows).integer("agreeing", sums.agreeing).boolean("broken", sums.broken).close();
    }
    json->close_list();
}

// A second time, with the engine's own clock, which slows it down.
Failure write_layers(const Order& order, const std::vector<Sample>& samples, Json* json) {
    if (!order.per_layer) {
        json->null("layers");
        return {};
    }
    Session session;
    ew_options options = order.options;
    options.profile = 1;
    std::vector<Layer> layers;
    const int64_t asked = order.plan.runs > 0 ? order.plan.runs : kMostLayerRuns;
    if (Failure failure = session.open(order.engine, options)) return failure;
    if (Failure failure = session.feed(&samples)) return failure;
    if (Failure failure = session.time_layers(static_cast<int>(std::min<int64_t>(asked, kMostLayerRuns)), &layers)) return failure;
    json->open_list("layers");
    for (const Layer& layer : layers) {
        json->open().text("name", layer.name).text("op", layer.op).text("unit", "cpu").number("median_ms", median(layer.runs_ns) * 1e-6);
        json->text("kernel", layer.kernel).integer("runs", static_cast<int64_t>(layer.runs_ns.size())).close();
    }
    json->close_list();
    return {};
}

// Starts with the engine's file out of the page cache, and no more.
Failure start_cold(const Order& order, const std::vector<Sample>& samples, Json* json) {
    const std::string page_cache = drop_page_cache(order.engine);
    Session session;
    const double start = now_s();
    if (Failure failure = session.open(order.engine, order.options)) return failure;
    const double loaded = now_s();
    if (Failure failure = session.feed(&samples)) return failure;
    const double first = now_s();
    if (Failure failure = session.run()) return failure;
    json->number("first_run_ms", (now_s() - first) * 1e3).number("load_ms", (loaded - start) * 1e3);
    json->text("page_cache", page_cache);
    return {};
}

// Several contexts at once, each on one thread unless so many were asked for.
Failure write_concurrency(const Order& order, const Session& session, Json* json) {
    ew_options options = order.options;
    if (options.threads == 0) options.threads = 1;
    std::vector<Level> levels;
    for (const int64_t contexts : order.concurrency) {
        levels.emplace_back();
        const double seconds = std::min(order.plan.min_time_s, kMostLevelS);
        if (Failure failure = run_at_once(session, options, contexts, seconds, &levels.back())) return failure;
    }
    write(json, levels);
    return {};
}

Failure work(const Order& order, Json* json) {
    std::vector<Sample> samples;
    if (Failure failure = read_reference(order.reference, &samples)) return failure;
    if (order.cold) return start_cold(order, samples, json);
    const double before_bytes = peak_memory_bytes();
    Session session;
    Timings timings;
    const double start = now_s();
    if (Failure failure = session.open(order.engine, order.options)) return failure;
    const double loaded = now_s();
    if (Failure failure = session.feed(&samples)) return failure;
    const Run run = [&] { return session.run(); };
    const double first = now_s();
    if (Failure failure = run()) return failure;
    timings.first_ms = (now_s() - first) * 1e3;
    std::vector<Sums> sums;
    if (Failure failure = session.check(&sums)) return failure;
    if (!order.check_only) {
        if (Failure failure = warm_up(run, order.plan, &timings)) return failure;
        if (Failure failure = measure(run, order.plan, &timings)) return failure;
    }
    json->number("load_ms", (loaded - start) * 1e3).integer("samples", static_cast<int64_t>(samples.size()));
    write(json, sums);
    write(json, timings);
    json->number("memory_before_load_bytes", before_bytes).number("peak_memory_bytes", peak_memory_bytes());
    if (Failure failure = session.describe(json)) return failure;
    describe(json);
    if (Failure failure = write_concurrency(order, session, json)) return failure;
    return write_layers(order, samples, json);
}

Failure guarded(const Order& order, Json* json) {
    try {
        return work(order, json);
    } catch (const std::bad_alloc&) {
        return {EW_OUT_OF_MEMORY, "the engine cannot run", "out of memory"};
    }
}

int answer(int count, char** arguments) {
    Order order;
    Failure failure = parse(count, arguments, &order);
    Json json;
    json.open().open("result");
    if (!failure) failure = guarded(order, &json);
    if (failure) {
        json = Json();
        json.open().open("error").integer("status", failure.status).text("what", failure.what).text("found", failure.found);
    }
    json.close().close();
    std::printf("%s\n", json.str().c_str());
    return std::fflush(stdout) == 0 && !failure ? 0 : 1;
}

// What needs no engine: the machine and a glance at it; with threads, its peaks.
int tell(int threads, size_t bytes) {
    Json json;
    json.open().open("result");
    describe(&json);
    threads == 0 ? write(&json, {glance()}) : write_peaks(&json, threads, bytes);
    json.close().close();
    std::printf("%s\n", json.str().c_str());
    return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace
}  // namespace bench

int main(int count, char** arguments) {
    if (count == 2 && std::strcmp(arguments[1], "--version") == 0) {
        std::printf("edgewise-bench %s: %s\n", ew_version(), ew_isas());
        return 0;
    }
    if (count == 2 && std::strcmp(arguments[1], "--serve") == 0) return bench::serve();
    if (count == 2 && std::strcmp(arguments[1], "--machine") == 0) return bench::tell(0, 0);
    if (count > 1 && std::strcmp(arguments[1], "--watch") == 0) return bench::watch(count - 2, arguments + 2);
    double threads = 0, bytes = 0;
    if (count == 4 && std::strcmp(arguments[1], "--peak") == 0 && bench::number(arguments[2], 1, bench::kMostThreads, &threads) &&
        bench::number(arguments[3], bench::kLeastPeakBytes, bench::kMostPeakBytes, &bytes)) {
        return bench::tell(static_cast<int>(threads), static_cast<size_t>(bytes));
    }
    return bench::answer(count, arguments);
}
