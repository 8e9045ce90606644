// The C interface for Python: numpy arrays in and out, RuntimeError-like exceptions for statuses.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "edgewise.h"

namespace nb = nanobind;

namespace {

struct Failure {
    ew_status status;
    std::string message;
};

void check(ew_status status) {
    if (status != EW_OK) throw Failure{status, ew_last_error()};
}

struct DTypeName {
    const char* name;
    nb::dlpack::dtype type;
};

// By ew_dtype. numpy has no bfloat16: it travels as its bits.
DTypeName dtype_of(ew_dtype dtype) {
    switch (dtype) {
        case EW_F32: return {"float32", nb::dtype<float>()};
        case EW_F16: return {"float16", {static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, 1}};
        case EW_BF16: return {"bfloat16", nb::dtype<uint16_t>()};
        case EW_U8: return {"uint8", nb::dtype<uint8_t>()};
        case EW_S8: return {"int8", nb::dtype<int8_t>()};
        case EW_S32: return {"int32", nb::dtype<int32_t>()};
        case EW_S64: return {"int64", nb::dtype<int64_t>()};
        case EW_BOOL: return {"bool", nb::dtype<bool>()};
        case EW_F64: return {"float64", nb::dtype<double>()};
        case EW_S16: return {"int16", nb::dtype<int16_t>()};
        case EW_U16: return {"uint16", nb::dtype<uint16_t>()};
    }
    return {"unknown", nb::dtype<uint8_t>()};
}

using Array = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using Made = nb::ndarray<nb::numpy>;

// Names come from the file: what is no UTF-8, or was cut within a letter, is replaced.
nb::str text(const char* bytes, size_t count) { return nb::steal<nb::str>(PyUnicode_DecodeUTF8(bytes, static_cast<Py_ssize_t>(count), "replace")); }
nb::str text(const char* bytes) { return text(bytes, std::strlen(bytes)); }

// (name, dtype, shape), a dim that depends on the inputs being a string.
nb::tuple describe(const ew_tensor_info& info) {
    nb::list shape;
    for (int32_t i = 0; i < info.rank; ++i) {
        if (info.dims[i] >= 0) {
            shape.append(info.dims[i]);
        } else {
            shape.append(text(info.dim_names[i] ? info.dim_names[i] : "?"));
        }
    }
    return nb::make_tuple(text(info.name), dtype_of(info.dtype).name, nb::tuple(shape));
}

class Engine {
public:
    explicit Engine(const std::string& path) { check(ew_open(path.c_str(), &engine_)); }
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;
    ~Engine() { ew_close(engine_); }

    nb::list inputs() const {
        nb::list all;
        for (int32_t i = 0; i < ew_input_count(engine_); ++i) all.append(describe(input(i)));
        return all;
    }
    nb::list outputs() const {
        nb::list all;
        for (int32_t i = 0; i < ew_output_count(engine_); ++i) all.append(describe(output(i)));
        return all;
    }
    ew_tensor_info input(int32_t index) const {
        ew_tensor_info info;
        check(ew_input_info(engine_, index, &info));
        return info;
    }
    ew_tensor_info output(int32_t index) const {
        ew_tensor_info info;
        check(ew_output_info(engine_, index, &info));
        return info;
    }
    const ew_engine* get() const { return engine_; }

private:
    ew_engine* engine_ = nullptr;
};

class Context {
public:
    Context(const Engine& engine, int32_t threads, bool pin, bool profile) : engine_(engine) {
        const ew_options options{threads, pin, profile};
        check(ew_context_create(engine.get(), &options, &context_));
    }
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;
    ~Context() { ew_context_close(context_); }

    // Arrays in the order of the engine's inputs; gives arrays in the order of its outputs.
    std::vector<Made> run(const std::vector<Array>& inputs) {
        const Entered entered(inside_);
        write(inputs);
        compute();
        std::vector<Made> outputs;
        for (int32_t i = 0; i < ew_output_count(engine_.get()); ++i) outputs.push_back(read(i));
        return outputs;
    }

    // As run, but gives the nanoseconds of ew_run, and leaves the outputs where they are.
    int64_t time(const std::vector<Array>& inputs) {
        const Entered entered(inside_);
        write(inputs);
        return compute();
    }

    // Runs, and gives the bytes of outputs of operators, (op, output) each, as they lie in memory; none of those that there are not.
    std::vector<Made> trace(const std::vector<Array>& inputs, const std::vector<std::pair<int32_t, int32_t>>& wanted) {
        const Entered entered(inside_);
        Trace found{wanted, std::vector<std::vector<uint8_t>>(wanted.size())};
        check(ew_observe(context_, &Trace::keep, &found));
        const std::unique_ptr<ew_context, void (*)(ew_context*)> end(context_, [](ew_context* context) { ew_observe(context, nullptr, nullptr); });
        write(inputs);
        compute();
        std::vector<Made> made;
        for (const auto& bytes : found.bytes) {
            std::unique_ptr<uint8_t[]> memory(new uint8_t[bytes.size() + 1]);
            std::copy(bytes.begin(), bytes.end(), memory.get());
            const size_t shape[] = {bytes.size()};
            made.push_back(owned(std::move(memory), 1, shape, nb::dtype<uint8_t>()));
        }
        return made;
    }

    // (name, op, kernel, total_ns, runs) of each operator, in the order in which they run.
    nb::list profile() const {
        nb::list all;
        for (int32_t i = 0; i < ew_profile_count(context_); ++i) {
            ew_profile_entry entry;
            check(ew_profile_get(context_, i, &entry));
            all.append(nb::make_tuple(text(entry.name), text(entry.op), text(entry.kernel), entry.total_ns, entry.runs));
        }
        return all;
    }

    // By the names of ew_memory.
    nb::dict memory() {
        ew_memory memory;
        check(ew_memory_use(context_, &memory));
        nb::dict all;
        all["weights_bytes"] = memory.weights_bytes;
        all["arena_bytes"] = memory.arena_bytes;
        all["least_arena_bytes"] = memory.least_arena_bytes;
        return all;
    }

private:
    // Between writing inputs and reading outputs Python may let another thread in.
    class Entered {
    public:
        explicit Entered(std::atomic_flag& flag) : flag_(flag) {
            if (flag_.test_and_set()) throw Failure{EW_BUSY, "another thread is inside this context"};
        }
        Entered(const Entered&) = delete;
        Entered& operator=(const Entered&) = delete;
        ~Entered() { flag_.clear(); }

    private:
        std::atomic_flag& flag_;
    };

    struct Trace {
        const std::vector<std::pair<int32_t, int32_t>>& wanted;
        std::vector<std::vector<uint8_t>> bytes;

        static void keep(void* user, const ew_result* result) {
            auto& trace = *static_cast<Trace*>(user);
            const auto* data = static_cast<const uint8_t*>(result->data);
            for (size_t i = 0; i < trace.wanted.size(); ++i) {
                if (trace.wanted[i] == std::make_pair(result->op, result->output)) trace.bytes[i].assign(data, data + result->bytes);
            }
        }
    };

    void write(const std::vector<Array>& inputs) {
        if (static_cast<int32_t>(inputs.size()) != ew_input_count(engine_.get())) {
            throw Failure{EW_INVALID_ARGUMENT, "the wrong number of inputs"};
        }
        for (size_t i = 0; i < inputs.size(); ++i) set_shape(static_cast<int32_t>(i), inputs[i]);
        for (size_t i = 0; i < inputs.size(); ++i) {
            check(ew_write_input(context_, static_cast<int32_t>(i), inputs[i].data(), inputs[i].nbytes()));
        }
    }

    // Gives the nanoseconds of ew_run.
    int64_t compute() {
        const nb::gil_scoped_release release;
        const auto start = std::chrono::steady_clock::now();
        const ew_status status = ew_run(context_);
        const auto took = std::chrono::steady_clock::now() - start;
        check(status);
        return std::chrono::duration_cast<std::chrono::nanoseconds>(took).count();
    }

    static Made owned(std::unique_ptr<uint8_t[]> memory, size_t rank, const size_t* shape, nb::dlpack::dtype type) {
        nb::capsule owner(memory.get(), [](void* p) noexcept { delete[] static_cast<uint8_t*>(p); });
        return Made(memory.release(), rank, shape, owner, nullptr, type);
    }

    void set_shape(int32_t index, const Array& array) {
        const ew_tensor_info info = engine_.input(index);
        if (array.dtype() != dtype_of(info.dtype).type) {
            throw Failure{EW_INVALID_ARGUMENT, std::string("input ") + info.name + " must be " + dtype_of(info.dtype).name};
        }
        int64_t dims[EW_MAX_RANK + 1] = {};
        const size_t rank = array.ndim() <= EW_MAX_RANK ? array.ndim() : EW_MAX_RANK + 1;
        for (size_t i = 0; i < rank && i < EW_MAX_RANK; ++i) dims[i] = static_cast<int64_t>(array.shape(i));
        check(ew_set_input_shape(context_, index, dims, static_cast<int32_t>(rank)));
    }

    Made read(int32_t index) {
        int64_t dims[EW_MAX_RANK];
        int32_t rank = 0;
        check(ew_output_shape(context_, index, dims, &rank));
        const auto type = dtype_of(engine_.output(index).dtype).type;
        size_t shape[EW_MAX_RANK], bytes = type.bits / 8;
        for (int32_t i = 0; i < rank; ++i) bytes *= shape[i] = static_cast<size_t>(dims[i]);
        std::unique_ptr<uint8_t[]> memory(new uint8_t[bytes ? bytes : 1]);
        check(ew_read_output(context_, index, memory.get(), bytes));
        return owned(std::move(memory), static_cast<size_t>(rank), shape, type);
    }

    const Engine& engine_;
    ew_context* context_ = nullptr;
    std::atomic_flag inside_ = ATOMIC_FLAG_INIT;
};

}  // namespace

NB_MODULE(_native, m) {
    nb::set_leak_warnings(false);  // an app may hold a context to its end
    m.doc() = "libedgewise for Python; see edgewise.runtime.engines.native.";
    static PyObject* error = PyErr_NewExceptionWithDoc("edgewise.runtime._native.NativeError",
                                                       "(status, message) of a call that failed.", PyExc_Exception, nullptr);
    m.attr("NativeError") = nb::handle(error);
    nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
        try {
            std::rethrow_exception(pointer);
        } catch (const Failure& failure) {
            PyErr_SetObject(error, nb::make_tuple(static_cast<int>(failure.status), text(failure.message.c_str())).ptr());
        }
    });
    m.def("version", [] { return std::string(ew_version()); });
    m.def("isas", [] { return std::string(ew_isas()); }, "Instruction sets of this processor that the library uses.");
    nb::class_<Engine>(m, "Engine")
        .def(nb::init<const std::string&>(), nb::arg("path"))
        .def_prop_ro("inputs", &Engine::inputs)
        .def_prop_ro("outputs", &Engine::outputs);
    nb::class_<Context>(m, "Context")
        .def(nb::init<const Engine&, int32_t, bool, bool>(), nb::arg("engine"), nb::arg("threads") = 0, nb::arg("pin") = false,
             nb::arg("profile") = false, nb::keep_alive<1, 2>())
        .def("run", &Context::run, nb::arg("inputs"))
        .def("time", &Context::time, nb::arg("inputs"))
        .def("trace", &Context::trace, nb::arg("inputs"), nb::arg("wanted"))
        .def("profile", &Context::profile)
        .def("memory", &Context::memory);
}
