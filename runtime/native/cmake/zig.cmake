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
# The same level for all triples' libraries: Zig builds its C++ library once for each.
set(CMAKE_CXX_FLAGS_RELEASE_INIT "-Os -DNDEBUG -g0")
set(EDGEWISE_STATIC ON CACHE BOOL "")
