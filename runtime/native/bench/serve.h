// Answers requests to run engine files, one after the other, until stdin ends: how tests try another processor's kernels in one process.
//
//   A request: u32 bytes of path, path, u32 threads, u32 inputs, and for each: u32 ew_dtype, u32 rank, s64 dims[rank], u64 bytes, data.
//   The answer: u32 status; then a text (u32 bytes, text): the kernels that ran, or what was wrong; then, if all is well, u32 outputs
//   as inputs are. Before the first request comes a text: the instruction sets of this processor. All little-endian.
#pragma once

namespace bench {

// Exit status: 0 when stdin ended between requests.
int serve();

}  // namespace bench
