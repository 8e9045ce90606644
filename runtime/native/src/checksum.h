// CRC-32 (IEEE 802.3, reflected, as zlib's): finds accidents, not attacks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ew {

inline uint32_t crc32(const uint8_t* data, size_t bytes) {
    static constexpr auto kTable = [] {
        std::array<uint32_t, 256> table{};
        for (uint32_t i = 0; i < 256; ++i) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0xEDB88320u : 0);
            table[i] = value;
        }
        return table;
    }();
    uint32_t crc = ~0u;
    for (size_t i = 0; i < bytes; ++i) crc = (crc >> 8) ^ kTable[(crc ^ data[i]) & 0xFF];
    return ~crc;
}

}  // namespace ew
