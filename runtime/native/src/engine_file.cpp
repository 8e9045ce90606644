#include "engine_file.h"

#include <fcntl.h>
#if !defined(__wasi__)
#include <sys/mman.h>
#endif
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace ew {

#if defined(__wasi__)
namespace {

// WebAssembly maps nothing: the file is read.
void* const MAP_FAILED = nullptr;
constexpr int PROT_READ = 0, MAP_PRIVATE = 0;

void* mmap(void*, size_t bytes, int, int, int file, int) {
    auto* memory = static_cast<uint8_t*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64));
    for (size_t done = 0; memory && done < bytes;) {
        const ssize_t got = read(file, memory + done, bytes - done);
        if (got <= 0) {
            std::free(memory);
            return MAP_FAILED;
        }
        done += static_cast<size_t>(got);
    }
    return memory;
}

void munmap(void* memory, size_t) { std::free(memory); }

}  // namespace
#endif

EngineFile::~EngineFile() {
    if (mapped_) munmap(const_cast<uint8_t*>(data_), bytes_);
}

Status EngineFile::map(const char* path) {
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not make it wait
    if (file < 0) return Status::fail(EW_IO_ERROR, "cannot open %.160s: %s", path, std::strerror(errno));
    struct stat info;
    void* memory = MAP_FAILED;
    int error = EINVAL;  // a folder, a pipe
    if (fstat(file, &info) != 0) {
        error = errno;
    } else if (S_ISREG(info.st_mode) && info.st_size == 0) {
        close(file);
        return Status::fail(EW_BAD_FILE, "%.160s is empty", path);
    } else if (S_ISREG(info.st_mode) && static_cast<uint64_t>(info.st_size) <= SIZE_MAX) {
        memory = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, file, 0);
        error = errno;
    }
    close(file);
    if (memory == MAP_FAILED) return Status::fail(EW_IO_ERROR, "cannot read %.160s: %s", path, std::strerror(error));
    data_ = static_cast<const uint8_t*>(memory);
    bytes_ = static_cast<size_t>(info.st_size);
    mapped_ = true;
    return {};
}

Status EngineFile::borrow(const void* data, size_t bytes) {
    if (reinterpret_cast<uintptr_t>(data) % 64 != 0) {
        return Status::fail(EW_INVALID_ARGUMENT, "the engine's memory is not aligned to 64 bytes");
    }
    data_ = static_cast<const uint8_t*>(data);
    bytes_ = bytes;
    return {};
}

}  // namespace ew
