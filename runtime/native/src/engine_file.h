// An engine file in memory: mapped, so that weights are shared between processes and read when they are first used.
#pragma once

#include <cstddef>
#include <cstdint>

#include "status.h"

namespace ew {

class EngineFile {
public:
    EngineFile() = default;
    EngineFile(const EngineFile&) = delete;
    EngineFile& operator=(const EngineFile&) = delete;
    ~EngineFile();

    Status map(const char* path);
    Status borrow(const void* data, size_t bytes);

    const uint8_t* data() const { return data_; }
    size_t bytes() const { return bytes_; }

private:
    const uint8_t* data_ = nullptr;
    size_t bytes_ = 0;
    bool mapped_ = false;
};

}  // namespace ew
