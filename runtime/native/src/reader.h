// Reads numbers and strings one after another and never past the end.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace ew {

// After the first read that does not fit, `failed()` is true and every read gives zero.
class Reader {
public:
    Reader(const uint8_t* data, size_t bytes) : at_(data), end_(data + bytes) {}

    bool failed() const { return failed_; }
    size_t left() const { return static_cast<size_t>(end_ - at_); }

    template <typename T>
    T number() {
        T value{};
        if (const uint8_t* from = take(sizeof(T))) std::memcpy(&value, from, sizeof(T));
        return value;
    }
    std::string_view text() {
        const uint32_t length = number<uint32_t>();
        const uint8_t* from = take(length);
        return from ? std::string_view(reinterpret_cast<const char*>(from), length) : std::string_view();
    }
    // How many items follow; one that cannot fit in what is left fails, so that nothing is allocated for it.
    uint32_t count(size_t least_item_bytes) {
        const uint32_t n = number<uint32_t>();
        if (n > left() / least_item_bytes) failed_ = true;
        return failed_ ? 0 : n;
    }

private:
    const uint8_t* take(size_t bytes) {
        if (failed_ || bytes > left()) {
            failed_ = true;
            return nullptr;
        }
        const uint8_t* from = at_;
        at_ += bytes;
        return from;
    }

    const uint8_t* at_;
    const uint8_t* end_;
    bool failed_ = false;
};

}  // namespace ew
