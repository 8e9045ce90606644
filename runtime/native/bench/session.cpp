#include "session.h"

#include <algorithm>
#include <set>

namespace bench {
namespace {

const Array* find(const std::vector<Array>& arrays, const std::string& name) {
    for (const Array& array : arrays) {
        if (array.name == name) return &array;
    }
    return nullptr;
}

template <typename Info>
Failure names_of(const ew_engine* engine, int32_t count, Info&& info_of, std::vector<std::string>* names) {
    for (int32_t i = 0; i < count; ++i) {
        ew_tensor_info info;
        if (Failure failure = failed(info_of(engine, i, &info), "cannot read the engine's interface")) return failure;
        names->push_back(info.name);
    }
    return {};
}

}  // namespace

Session::~Session() {
    ew_context_close(context_);
    if (owner_) ew_close(engine_);
}

Failure Session::open(const char* engine, const ew_options& options) {
    if (Failure failure = failed(ew_open(engine, &engine_), "cannot open the engine file")) return failure;
    if (Failure failure = names_of(engine_, ew_input_count(engine_), ew_input_info, &inputs_)) return failure;
    if (Failure failure = names_of(engine_, ew_output_count(engine_), ew_output_info, &outputs_)) return failure;
    return failed(ew_context_create(engine_, &options, &context_), "cannot get the engine ready");
}

Failure Session::share(const Session& other, const ew_options& options) {
    owner_ = false;
    engine_ = other.engine_;
    inputs_ = other.inputs_;
    outputs_ = other.outputs_;
    if (Failure failure = failed(ew_context_create(engine_, &options, &context_), "cannot get the engine ready")) return failure;
    return feed(other.samples_);
}

Failure Session::feed(const std::vector<Sample>* samples) {
    samples_ = samples;
    for (const Sample& sample : *samples) {
        for (const std::string& name : inputs_) {
            if (!find(sample.inputs, name)) return bad_reference("no input " + name + ", which the engine has");
        }
        for (const Array& output : sample.outputs) {
            if (std::find(outputs_.begin(), outputs_.end(), output.name) == outputs_.end()) {
                return bad_reference("an output " + output.name + ", which the engine lacks");
            }
        }
    }
    return {};
}

Failure Session::bind_input(int32_t index, const Sample& sample) {
    const Array& array = *find(sample.inputs, inputs_[static_cast<size_t>(index)]);
    ew_tensor_info info;
    if (Failure failure = failed(ew_input_info(engine_, index, &info), "cannot read the engine's interface")) return failure;
    if (info.dtype != array.dtype) return bad_reference("input " + array.name + " of another dtype than the engine's");
    const auto rank = static_cast<int32_t>(array.dims.size());
    if (Failure failure = failed(ew_set_input_shape(context_, index, array.dims.data(), rank), "the input does not fit")) return failure;
    return failed(ew_bind_input(context_, index, array.data.data(), array.data.bytes()), "the input does not fit");
}

Failure Session::bind_outputs() {
    std::vector<Buffer> made;
    for (int32_t i = 0; i < static_cast<int32_t>(outputs_.size()); ++i) {
        ew_tensor_info info;
        int64_t dims[EW_MAX_RANK];
        int32_t rank = 0;
        if (Failure failure = failed(ew_output_info(engine_, i, &info), "cannot read the engine's interface")) return failure;
        if (Failure failure = failed(ew_output_shape(context_, i, dims, &rank), "the inputs do not fit")) return failure;
        size_t bytes = size_of(info.dtype);
        for (int32_t k = 0; k < rank; ++k) bytes *= static_cast<size_t>(dims[k]);
        made.emplace_back(bytes);
        if (Failure failure = failed(ew_bind_output(context_, i, made.back().data(), bytes), "cannot take the output")) return failure;
    }
    made_ = std::move(made);
    return {};
}

Failure Session::bind(const Sample& sample) {
    for (int32_t i = 0; i < static_cast<int32_t>(inputs_.size()); ++i) {
        if (Failure failure = bind_input(i, sample)) return failure;
    }
    return bind_outputs();
}

Failure Session::run() {
    // With one sample everything stays bound, as in an app that reuses its buffers.
    if (!bound_ || samples_->size() > 1) {
        if (Failure failure = bind((*samples_)[next_])) return failure;
        next_ = (next_ + 1) % samples_->size();
        bound_ = true;
    }
    return failed(ew_run(context_), "the engine cannot run");
}

Failure Session::check(std::vector<Sums>* sums) {
    for (const Array& output : samples_->front().outputs) {
        sums->emplace_back();
        sums->back().name = output.name;
    }
    next_ = 0;
    bound_ = false;
    for (const Sample& sample : *samples_) {
        if (sample.outputs.size() != sums->size()) return bad_reference("samples with different outputs");
        if (Failure failure = run()) return failure;
        for (Sums& sum : *sums) {
            const Array* want = find(sample.outputs, sum.name);
            if (!want) return bad_reference("samples with different outputs");
            const auto index = static_cast<size_t>(std::find(outputs_.begin(), outputs_.end(), sum.name) - outputs_.begin());
            ew_tensor_info info;
            if (Failure failure = failed(ew_output_info(engine_, static_cast<int32_t>(index), &info), "output")) return failure;
            if (info.dtype != want->dtype || made_[index].bytes() != want->data.bytes()) {
                return bad_reference("output " + sum.name + " of another dtype or size than the engine's");
            }
            compare(*want, made_[index].data(), &sum);
        }
    }
    return {};
}

Failure Session::time_layers(int runs, std::vector<Layer>* layers) {
    std::vector<uint64_t> before;
    for (int i = 0; i <= runs; ++i) {
        if (Failure failure = run()) return failure;
        const int32_t count = ew_profile_count(context_);
        before.resize(static_cast<size_t>(count));
        layers->resize(static_cast<size_t>(count));
        for (int32_t k = 0; k < count; ++k) {
            ew_profile_entry entry;
            if (Failure failure = failed(ew_profile_get(context_, k, &entry), "cannot read the layers' times")) return failure;
            const auto at = static_cast<size_t>(k);
            Layer& layer = (*layers)[at];
            if (i == 0) layer = {entry.name, entry.op, entry.kernel ? entry.kernel : "", {}};
            if (i > 0) layer.runs_ns.push_back(static_cast<double>(entry.total_ns - before[at]));
            before[at] = entry.total_ns;
        }
    }
    return {};
}

Failure Session::describe(Json* json) {
    std::set<std::string> kernels;
    for (int32_t i = 0; i < ew_profile_count(context_); ++i) {
        ew_profile_entry entry;
        if (ew_profile_get(context_, i, &entry) == EW_OK && entry.kernel && *entry.kernel) kernels.insert(entry.kernel);
    }
    std::string list;
    for (const std::string& kernel : kernels) list += (list.empty() ? "" : " ") + kernel;
    json->open("engine").text("library", "libedgewise").text("version", ew_version()).text("unit", "cpu");
    json->text("isas", ew_isas()).text("kernels", list).close();
    ew_memory memory;
    if (Failure failure = failed(ew_memory_use(context_, &memory), "cannot read the memory's use")) return failure;
    json->integer("weights_bytes", static_cast<int64_t>(memory.weights_bytes));
    json->integer("arena_bytes", static_cast<int64_t>(memory.arena_bytes));
    json->open("input_shapes");
    for (const Array& array : samples_->front().inputs) {
        json->open_list(array.name.c_str());
        for (const int64_t dim : array.dims) json->integer(nullptr, dim);
        json->close_list();
    }
    json->close();
    return {};
}

}  // namespace bench
