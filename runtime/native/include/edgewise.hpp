// edgewise.hpp: edgewise.h for C++17. Engines and contexts close themselves, tensors are spans, and what fails throws edgewise::Error.
// Header only: it calls the C functions, so that an app and the library may be built by different compilers.
#ifndef EDGEWISE_HPP
#define EDGEWISE_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "edgewise.h"

namespace edgewise {

class Error : public std::runtime_error {
public:
    Error(ew_status code, const std::string& message) : std::runtime_error(message), code_(code) {}
    ew_status code() const noexcept { return code_; }

private:
    ew_status code_;
};

inline void check(ew_status status) {
    if (status != EW_OK) throw Error(status, ew_last_error());
}

// Memory that somebody else holds; what std::span is since C++20.
template <typename T>
class Span {
public:
    Span() = default;
    Span(T* data, size_t size) : data_(data), size_(size) {}
    template <typename Container, typename = decltype(std::declval<Container&>().data())>
    Span(Container& container) : data_(container.data()), size_(container.size()) {}
    T* data() const noexcept { return data_; }
    size_t size() const noexcept { return size_; }
    size_t bytes() const noexcept { return size_ * sizeof(T); }
    T& operator[](size_t index) const { return data_[index]; }
    T* begin() const noexcept { return data_; }
    T* end() const noexcept { return data_ + size_; }

private:
    T* data_ = nullptr;
    size_t size_ = 0;
};

// What an element type is called in an engine; no other type compiles.
template <typename T>
struct DTypeOf;
template <> struct DTypeOf<float> { static constexpr ew_dtype value = EW_F32; };
template <> struct DTypeOf<double> { static constexpr ew_dtype value = EW_F64; };
template <> struct DTypeOf<int16_t> { static constexpr ew_dtype value = EW_S16; };
template <> struct DTypeOf<uint16_t> { static constexpr ew_dtype value = EW_U16; };
template <> struct DTypeOf<uint8_t> { static constexpr ew_dtype value = EW_U8; };
template <> struct DTypeOf<int8_t> { static constexpr ew_dtype value = EW_S8; };
template <> struct DTypeOf<int32_t> { static constexpr ew_dtype value = EW_S32; };
template <> struct DTypeOf<int64_t> { static constexpr ew_dtype value = EW_S64; };
template <> struct DTypeOf<bool> { static constexpr ew_dtype value = EW_BOOL; };

// A dim of -1 depends on the inputs' shapes.
struct Tensor {
    std::string name;
    ew_dtype dtype;
    std::vector<int64_t> dims;
};

// An engine file. Copies share it; contexts keep it alive.
class Engine {
public:
    explicit Engine(const std::string& path) {
        ew_engine* engine = nullptr;
        check(ew_open(path.c_str(), &engine));
        engine_.reset(engine, ew_close);
    }
    // The memory is not copied: see ew_open_memory.
    Engine(const void* data, size_t bytes) {
        ew_engine* engine = nullptr;
        check(ew_open_memory(data, bytes, &engine));
        engine_.reset(engine, ew_close);
    }
    std::vector<Tensor> inputs() const { return describe(ew_input_count(get()), ew_input_info); }
    std::vector<Tensor> outputs() const { return describe(ew_output_count(get()), ew_output_info); }
    const ew_engine* get() const noexcept { return engine_.get(); }

private:
    template <typename F>
    std::vector<Tensor> describe(int32_t count, F&& info_of) const {
        std::vector<Tensor> tensors;
        for (int32_t i = 0; i < count; ++i) {
            ew_tensor_info info;
            check(info_of(get(), i, &info));
            tensors.push_back({info.name, info.dtype, {info.dims, info.dims + info.rank}});
        }
        return tensors;
    }
    std::shared_ptr<ew_engine> engine_;
};

// The buffers and threads of one inference at a time.
class Context {
public:
    explicit Context(Engine engine, const ew_options& options = {}) : engine_(std::move(engine)) {
        ew_context* context = nullptr;
        check(ew_context_create(engine_.get(), &options, &context));
        context_.reset(context);
    }
    void set_shape(int32_t input, const std::vector<int64_t>& dims) {
        check(ew_set_input_shape(get(), input, dims.data(), static_cast<int32_t>(dims.size())));
    }
    std::vector<int64_t> output_shape(int32_t output) const {
        int64_t dims[EW_MAX_RANK];
        int32_t rank = 0;
        check(ew_output_shape(get(), output, dims, &rank));
        return {dims, dims + rank};
    }
    template <typename T>
    void write(int32_t input, Span<T> values) {
        require<std::remove_const_t<T>>(input, ew_input_info);
        check(ew_write_input(get(), input, values.data(), values.bytes()));
    }
    template <typename T>
    void read(int32_t output, Span<T> values) const {
        require<T>(output, ew_output_info);
        check(ew_read_output(get(), output, values.data(), values.bytes()));
    }
    // The output in memory of its own, with its present shape.
    template <typename T>
    std::vector<T> read(int32_t output) const {
        size_t count = 1;
        for (const int64_t dim : output_shape(output)) count *= static_cast<size_t>(dim);
        std::vector<T> values(count);
        read(output, Span<T>(values));
        return values;
    }
    // The engine reads from and writes to this memory, which must stay: see ew_bind_input.
    template <typename T>
    void bind_input(int32_t input, Span<T> values) {
        require<std::remove_const_t<T>>(input, ew_input_info);
        check(ew_bind_input(get(), input, values.data(), values.bytes()));
    }
    template <typename T>
    void bind_output(int32_t output, Span<T> values) {
        require<T>(output, ew_output_info);
        check(ew_bind_output(get(), output, values.data(), values.bytes()));
    }
    void run() { check(ew_run(get())); }
    ew_memory memory() const {
        ew_memory memory;
        check(ew_memory_use(get(), &memory));
        return memory;
    }
    ew_context* get() const noexcept { return context_.get(); }

private:
    struct Close {
        void operator()(ew_context* context) const noexcept { ew_context_close(context); }
    };
    template <typename T, typename F>
    void require(int32_t index, F&& info_of) const {
        ew_tensor_info info;
        check(info_of(engine_.get(), index, &info));
        if (info.dtype != DTypeOf<T>::value) throw Error(EW_INVALID_ARGUMENT, std::string(info.name) + " has another element type");
    }
    Engine engine_;
    std::unique_ptr<ew_context, Close> context_;
};

}  // namespace edgewise
#endif
