#include "cold.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace bench {
namespace {

std::string kept(const char* why) { return std::string("kept: ") + why; }

// How many of the file's pages are in memory; below 0 where the system does not tell.
long resident(int file, size_t bytes) {
    void* view = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0);
    if (view == MAP_FAILED) return -1;
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    std::vector<unsigned char> pages((bytes + page - 1) / page);
    long found = -1;
    if (mincore(view, bytes, pages.data()) == 0) {
        found = 0;
        for (const unsigned char one : pages) found += one & 1;
    }
    munmap(view, bytes);
    return found;
}

}  // namespace

std::string drop_page_cache(const char* path) {
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat told {};
    if (file < 0) return kept(std::strerror(errno));
    std::string said;
    if (fstat(file, &told) != 0 || told.st_size <= 0) {
        said = kept("the file's size is not known");
    } else {
        fsync(file);  // what is not written yet cannot be dropped
        posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
        const long left = resident(file, static_cast<size_t>(told.st_size));
        said = left == 0  ? "dropped for the engine's file; the program itself is in memory"
               : left > 0 ? kept("the file system holds on to the engine's file")
                          : kept("the system does not tell what is in memory");
    }
    close(file);
    return said;
}

}  // namespace bench
