// An engine with one context, fed from samples without copies.
#pragma once

#include <string>
#include <vector>

#include "failure.h"
#include "json.h"
#include "reference.h"

namespace bench {

struct Layer {
    std::string name, op, kernel;
    std::vector<double> runs_ns;
};

class Session {
public:
    Session() = default;
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    ~Session();

    Failure open(const char* engine, const ew_options& options);
    // Another context of the same engine, with the same samples.
    Failure share(const Session& other, const ew_options& options);
    // Matches samples with the engine's inputs and outputs by name. They must stay.
    Failure feed(const std::vector<Sample>* samples);
    // The next sample.
    Failure run();
    // Every sample once; `sums` gets one entry per output that the samples have.
    Failure check(std::vector<Sums>* sums);
    // Every sample runs in turn, so many times in all, with the engine's own clock per operator.
    Failure time_layers(int runs, std::vector<Layer>* layers);
    Failure describe(Json* json);

private:
    Failure bind(const Sample& sample);
    Failure bind_input(int32_t index, const Sample& sample);
    Failure bind_outputs();

    ew_engine* engine_ = nullptr;
    ew_context* context_ = nullptr;
    bool owner_ = true;
    const std::vector<Sample>* samples_ = nullptr;
    size_t next_ = 0;
    bool bound_ = false;
    std::vector<std::string> inputs_, outputs_;
    std::vector<Buffer> made_;
};

}  // namespace bench
