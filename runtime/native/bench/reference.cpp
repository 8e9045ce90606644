#include "reference.h"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <new>

namespace bench {
namespace {

constexpr std::align_val_t kAligned{64};

constexpr uint32_t kMostTensors = 1024, kMostSamples = 1 << 20, kLongestName = 1 << 16;
constexpr uint64_t kLargest = uint64_t{1} << 32;

struct Close {
    void operator()(FILE* file) const { std::fclose(file); }
};

class Reader {
public:
    explicit Reader(FILE* file) : file_(file) {}
    bool bytes(void* into, size_t count) { return std::fread(into, 1, count, file_) == count; }
    template <typename T>
    bool number(T* value) {
        return bytes(value, sizeof *value);
    }

private:
    FILE* file_;
};

Failure cut() { return bad_reference("a file that stops before its end"); }

Failure read_data(Reader* reader, Array* array) {
    uint64_t bytes = 0, expected = size_of(array->dtype);
    for (const int64_t dim : array->dims) {
        if (dim < 0 || (dim > 0 && expected > kLargest / static_cast<uint64_t>(dim))) return bad_reference("a dim out of range");
        expected *= static_cast<uint64_t>(dim);
    }
    if (!reader->number(&bytes)) return cut();
    if (bytes != expected || bytes > SIZE_MAX) return bad_reference("a tensor whose size does not fit its dims");
    array->data = Buffer(static_cast<size_t>(bytes));
    return reader->bytes(array->data.data(), array->data.bytes()) ? Failure{} : cut();
}

Failure read_array(Reader* reader, Array* array) {
    uint32_t length = 0, dtype = 0, rank = 0;
    if (!reader->number(&length) || length > kLongestName) return cut();
    array->name.resize(length);
    if (!reader->bytes(array->name.data(), length) || !reader->number(&dtype) || !reader->number(&rank)) return cut();
    if (dtype > EW_U16 || rank > EW_MAX_RANK) return bad_reference("an unknown dtype or too many dims");
    array->dtype = static_cast<ew_dtype>(dtype);
    array->dims.resize(rank);
    if (!reader->bytes(array->dims.data(), rank * sizeof(int64_t))) return cut();
    return read_data(reader, array);
}

Failure read_arrays(Reader* reader, uint32_t count, std::vector<Array>* arrays) {
    if (count > kMostTensors) return bad_reference("too many tensors");
    for (uint32_t i = 0; i < count; ++i) {
        arrays->emplace_back();
        if (Failure failure = read_array(reader, &arrays->back())) return failure;
    }
    return {};
}

double half(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double size = exponent == 31 ? (fraction ? NAN : INFINITY)
                                       : std::ldexp(fraction + (exponent ? 1024 : 0), (exponent ? exponent : 1) - 25);
    return bits >> 15 ? -size : size;
}

double brain(uint16_t bits) {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return static_cast<double>(value);
}

template <typename T>
T load(const uint8_t* data, size_t index) {
    T value;
    std::memcpy(&value, data + index * sizeof value, sizeof value);
    return value;
}

double value_at(const uint8_t* data, ew_dtype dtype, size_t index) {
    switch (dtype) {
        case EW_F32: return static_cast<double>(load<float>(data, index));
        case EW_F16: return half(load<uint16_t>(data, index));
        case EW_BF16: return brain(load<uint16_t>(data, index));
        case EW_S8: return load<int8_t>(data, index);
        case EW_S32: return load<int32_t>(data, index);
        case EW_F64: return load<double>(data, index);
        case EW_S16: return load<int16_t>(data, index);
        case EW_U16: return load<uint16_t>(data, index);
        case EW_S64: return static_cast<double>(load<int64_t>(data, index));
        default: return data[index];
    }
}

bool floating(ew_dtype dtype) { return dtype == EW_F32 || dtype == EW_F16 || dtype == EW_BF16 || dtype == EW_F64; }

void add(double ref, double got, bool differs, bool integer, Sums* sums) {
    if (!std::isfinite(ref) || !std::isfinite(got)) {
        sums->broken |= !(ref == got || (std::isnan(ref) && std::isnan(got)));
        return;
    }
    // Integers beyond 2^53 may differ and still be the same double.
    const double error = std::fmax(std::fabs(ref - got), integer && differs ? 1.0 : 0.0);
    sums->largest = std::fmax(sums->largest, error);
    sums->signal += ref * ref;
    sums->noise += error * error;
    sums->energy += got * got;
    sums->dot += ref * got;
}

// Rows of [rows, classes] with the same largest entry, the first where several are.
void count_rows(const Array& want, const uint8_t* have, Sums* sums) {
    if (!floating(want.dtype) || want.dims.size() != 2 || want.dims[1] < 2) return;
    const auto classes = static_cast<size_t>(want.dims[1]);
    for (size_t row = 0; row < static_cast<size_t>(want.dims[0]); ++row) {
        size_t best_want = 0, best_have = 0;
        for (size_t i = 1; i < classes; ++i) {
            const auto at = [&](const uint8_t* data, size_t index) { return value_at(data, want.dtype, row * classes + index); };
            if (at(want.data.data(), i) > at(want.data.data(), best_want)) best_want = i;
            if (at(have, i) > at(have, best_have)) best_have = i;
        }
        sums->rows += 1;
        sums->agreeing += best_want == best_have;
    }
}

}  // namespace

void Buffer::Free::operator()(uint8_t* memory) const { ::operator delete(memory, kAligned); }

Buffer::Buffer(size_t bytes) : memory_(static_cast<uint8_t*>(::operator new(bytes, kAligned))), bytes_(bytes) {}

size_t size_of(ew_dtype dtype) {
    switch (dtype) {
        case EW_S64: return 8;
        case EW_F32:
        case EW_S32: return 4;
        case EW_F16:
        case EW_BF16: return 2;
        default: return 1;
    }
}

Failure read_reference(const char* path, std::vector<Sample>* samples) {
    const std::unique_ptr<FILE, Close> file(std::fopen(path, "rb"));
    if (!file) return bad_reference(std::string(path) + ": " + std::strerror(errno));
    Reader reader(file.get());
    char magic[8];
    uint32_t count = 0;
    if (!reader.bytes(magic, sizeof magic) || std::memcmp(magic, "EWREF\0\0\1", sizeof magic) != 0) {
        return bad_reference("another kind of file");
    }
    if (!reader.number(&count) || count == 0 || count > kMostSamples) return bad_reference("no samples");
    for (uint32_t i = 0; i < count; ++i) {
        uint32_t inputs = 0, outputs = 0;
        samples->emplace_back();
        if (!reader.number(&inputs) || !reader.number(&outputs)) return cut();
        if (Failure failure = read_arrays(&reader, inputs, &samples->back().inputs)) return failure;
        if (Failure failure = read_arrays(&reader, outputs, &samples->back().outputs)) return failure;
    }
    return {};
}

void compare(const Array& want, const uint8_t* have, Sums* sums) {
    const size_t size = size_of(want.dtype), count = want.data.bytes() / size;
    for (size_t i = 0; i < count; ++i) {
        const bool differs = std::memcmp(want.data.data() + i * size, have + i * size, size) != 0;
        add(value_at(want.data.data(), want.dtype, i), value_at(have, want.dtype, i), differs, !floating(want.dtype), sums);
    }
    count_rows(want, have, sums);
}

}  // namespace bench
