# Cross-compilation with Zig, whose libc and C++ library are built from source: nothing of the target system is needed.
# EDGEWISE_TRIPLE such as aarch64-linux-musl; EDGEWISE_ZIG: a folder with c++, cc, ar and ranlib that call zig for it.
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EDGEWISE_TRIPLE EDGEWISE_ZIG)
set(CMAKE_SYSTEM_NAME Linux)
if(EDGEWISE_TRIPLE MATCHES "-wasi$")
  set(CMAKE_SYSTEM_NAME WASI)
endif()
string(REGEX MATCH "^[^-]+" CMAKE_SYSTEM_PROCESSOR "${EDGEWISE_TRIPLE}")
set(CMAKE_CXX_COMPILER "${EDGEWISE_ZIG}/c++")
set(CMAKE_C_COMPILER "${EDGEWISE_ZIG}/cc")
set(CMAKE_AR "${EDGEWISE_ZIG}/ar" CACHE FILEPATH "")
set(CMAKE_RANLIB "${EDGEWISE_ZIG}/ranlib" CACHE FILEPATH "")
set(CMAKE_CXX_COMPILER_AR "${CMAKE_AR}" CACHE FILEPATH "")
set(CMAKE_CXX_COMPILER_RANLIB "${CMAKE_RANLIB}" CACHE FILEPATH "")
# One level for CMake's own trials, the linking and what is merged into the archive: for each level Zig builds its C++ library
# anew, two minutes of a core. What is compiled says its own level.
set(CMAKE_CXX_FLAGS_INIT "-Os -g0")
set(CMAKE_CXX_FLAGS_RELEASE "-Os -DNDEBUG -g0" CACHE STRING "")
set(EDGEWISE_STATIC ON CACHE BOOL "")
