#include "serve.h"

#include <cstdio>
#include <memory>
#include <new>
#include <set>

#include "reference.h"

namespace bench {
namespace {

constexpr uint64_t kMostBytes = uint64_t{1} << 31;

struct Request {
    std::string path;
    int32_t threads = 1;
    std::vector<Array> inputs;
};

bool get(void* to, size_t bytes) { return std::fread(to, 1, bytes, stdin) == bytes; }

template <typename T>
bool get(T* number) {
    return get(number, sizeof *number);
}

template <typename T>
void put(T number) {
    std::fwrite(&number, sizeof number, 1, stdout);
}

void put(const std::string& text) {
    put(static_cast<uint32_t>(text.size()));
    std::fwrite(text.data(), 1, text.size(), stdout);
}

bool get(Array* array) {
    uint32_t dtype = 0, rank = 0;
    uint64_t bytes = 0;
    if (!get(&dtype) || !get(&rank) || rank > EW_MAX_RANK) return false;
    array->dtype = static_cast<ew_dtype>(dtype);
    array->dims.resize(rank);
    if (!get(array->dims.data(), rank * sizeof(int64_t)) || !get(&bytes) || bytes > kMostBytes) return false;
    array->data = Buffer(bytes);
    return get(array->data.data(), bytes);
}

void put(const Array& array) {
    put(static_cast<uint32_t>(array.dtype));
    put(static_cast<uint32_t>(array.dims.size()));
    for (const int64_t dim : array.dims) put(dim);
    put(static_cast<uint64_t>(array.data.bytes()));
    std::fwrite(array.data.data(), 1, array.data.bytes(), stdout);
}

bool get(Request* request) {
    uint32_t bytes = 0, threads = 0, inputs = 0;
    if (!get(&bytes) || bytes > kMostBytes) return false;
    request->path.resize(bytes);
    if (!get(&request->path[0], bytes) || !get(&threads) || !get(&inputs) || inputs > kMostBytes) return false;
    request->threads = static_cast<int32_t>(threads);
    for (uint32_t i = 0; i < inputs; ++i) {
        request->inputs.emplace_back();
        if (!get(&request->inputs.back())) return false;
    }
    return true;
}

ew_status read_output(const ew_engine* engine, ew_context* context, int32_t index, std::vector<Array>* outputs) {
    ew_tensor_info info;
    int64_t dims[EW_MAX_RANK];
    int32_t rank = 0;
    if (const ew_status status = ew_output_info(engine, index, &info)) return status;
    if (const ew_status status = ew_output_shape(context, index, dims, &rank)) return status;
    Array made;
    made.dtype = info.dtype;
    made.dims.assign(dims, dims + rank);
    size_t bytes = size_of(info.dtype);
    for (const int64_t dim : made.dims) bytes *= static_cast<size_t>(dim);
    made.data = Buffer(bytes);
    outputs->push_back(std::move(made));
    return ew_read_output(context, index, outputs->back().data.data(), bytes);
}

std::string kernels_of(const ew_context* context) {
    std::set<std::string> names;
    for (int32_t i = 0; i < ew_profile_count(context); ++i) {
        ew_profile_entry entry;
        if (ew_profile_get(context, i, &entry) == EW_OK && entry.kernel) names.insert(entry.kernel);
    }
    std::string list;
    for (const std::string& name : names) list += (list.empty() ? "" : " ") + name;
    return list;
}

ew_status compute(const Request& request, const ew_engine* engine, ew_context* context, std::vector<Array>* outputs) {
    const auto count = static_cast<int32_t>(request.inputs.size());
    for (int32_t i = 0; i < count; ++i) {
        const std::vector<int64_t>& dims = request.inputs[static_cast<size_t>(i)].dims;
        if (const ew_status status = ew_set_input_shape(context, i, dims.data(), static_cast<int32_t>(dims.size()))) return status;
    }
    for (int32_t i = 0; i < count; ++i) {
        const Buffer& data = request.inputs[static_cast<size_t>(i)].data;
        if (const ew_status status = ew_write_input(context, i, data.data(), data.bytes())) return status;
    }
    if (const ew_status status = ew_run(context)) return status;
    for (int32_t i = 0; i < ew_output_count(engine); ++i) {
        if (const ew_status status = read_output(engine, context, i, outputs)) return status;
    }
    return EW_OK;
}

ew_status answer(const Request& request, std::vector<Array>* outputs, std::string* kernels) {
    ew_engine* engine = nullptr;
    if (const ew_status status = ew_open(request.path.c_str(), &engine)) return status;
    const std::unique_ptr<ew_engine, void (*)(ew_engine*)> owner(engine, ew_close);
    const ew_options options{request.threads, 0, 0};
    ew_context* context = nullptr;
    if (const ew_status status = ew_context_create(engine, &options, &context)) return status;
    const std::unique_ptr<ew_context, void (*)(ew_context*)> other(context, ew_context_close);
    const ew_status status = compute(request, engine, context, outputs);
    *kernels = kernels_of(context);
    return status;
}

void reply(const Request& request) {
    std::vector<Array> outputs;
    std::string kernels;
    const ew_status status = answer(request, &outputs, &kernels);
    put(static_cast<uint32_t>(status));
    put(status == EW_OK ? kernels : std::string(ew_last_error()));
    if (status != EW_OK) return;
    put(static_cast<uint32_t>(outputs.size()));
    for (const Array& output : outputs) put(output);
}

}  // namespace

int serve() {
    put(std::string(ew_isas()));
    for (;;) {
        std::fflush(stdout);
        Request request;
        if (get(&request)) {
            reply(request);
        } else {
            return std::feof(stdin) && request.path.empty() ? 0 : 1;
        }
    }
}

}  // namespace bench
