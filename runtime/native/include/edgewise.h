/* edgewise.h: run a compiled engine file in an app.
 *
 * Every function returns an ew_status; what went wrong in words is ew_last_error(), per thread. Nothing throws, nothing aborts.
 * An engine is immutable: any number of contexts on any number of threads may share one. A context holds the buffers of one
 * inference at a time; of two threads in one context at once, one gets EW_BUSY. docs/embedding.md has a whole program. */
#ifndef EDGEWISE_H
#define EDGEWISE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define EW_API __declspec(dllexport)
#else
#define EW_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define EW_MAX_RANK 8

typedef enum ew_status {
    EW_OK = 0,
    EW_INVALID_ARGUMENT = 1, /* a null pointer, an index out of range, a wrong shape, dtype or size */
    EW_IO_ERROR = 2,         /* the file cannot be read */
    EW_BAD_FILE = 3,         /* not an engine file, cut short, damaged, or of a newer format */
    EW_UNSUPPORTED = 4,      /* this processor lacks the instruction set, or this build lacks an operator */
    EW_OUT_OF_MEMORY = 5,
    EW_BUSY = 6              /* another thread is inside this context */
} ew_status;

typedef enum ew_dtype {
    EW_F32 = 0,
    EW_F16 = 1,
    EW_BF16 = 2,
    EW_U8 = 3,
    EW_S8 = 4,
    EW_S32 = 5,
    EW_S64 = 6,
    EW_BOOL = 7,
    EW_F64 = 8,
    EW_S16 = 9,
    EW_U16 = 10
} ew_dtype;

typedef struct ew_engine ew_engine;
typedef struct ew_context ew_context;

/* An input or output. A dim of -1 depends on the inputs' shapes; its name is what the network calls it, else NULL. */
typedef struct ew_tensor_info {
    const char* name;
    ew_dtype dtype;
    int32_t rank;
    int64_t dims[EW_MAX_RANK];
    const char* dim_names[EW_MAX_RANK];
} ew_tensor_info;

typedef struct ew_options {
    int32_t threads; /* 0: one per core; 1: no other thread, no synchronisation; at most 1024 */
    int32_t pin;     /* not 0: each thread that the context starts stays on a core of its own; the caller's is left alone */
    int32_t profile; /* not 0: time every operator */
} ew_options;

typedef struct ew_profile_entry {
    const char* name; /* the layer of the network */
    const char* op;
    const char* kernel; /* what computed it, such as "s8_avx512vnni" */
    uint64_t total_ns;
    uint64_t runs;
} ew_profile_entry;

typedef struct ew_memory {
    uint64_t weights_bytes;     /* mapped from the file, shared by all contexts */
    uint64_t arena_bytes;       /* activations and scratch of this context */
    uint64_t least_arena_bytes; /* that any placement needs: the most that is alive at one operator, its scratch included */
} ew_memory;

EW_API const char* ew_version(void);
/* Of the last call on this thread that failed; never NULL. */
EW_API const char* ew_last_error(void);
/* Instruction sets that this processor has and this library uses, such as "generic avx2 avx512vnni". */
EW_API const char* ew_isas(void);

EW_API ew_status ew_open(const char* path, ew_engine** engine);
/* The memory is not copied and must stay, 64-byte aligned, until the engine and all its contexts are closed. */
EW_API ew_status ew_open_memory(const void* data, size_t bytes, ew_engine** engine);
/* Contexts that are open stay usable. NULL is allowed. */
EW_API void ew_close(ew_engine* engine);

EW_API int32_t ew_input_count(const ew_engine* engine);
EW_API int32_t ew_output_count(const ew_engine* engine);
EW_API ew_status ew_input_info(const ew_engine* engine, int32_t index, ew_tensor_info* info);
EW_API ew_status ew_output_info(const ew_engine* engine, int32_t index, ew_tensor_info* info);

/* options may be NULL. */
EW_API ew_status ew_context_create(const ew_engine* engine, const ew_options* options, ew_context** context);
/* No other thread may be inside. NULL is allowed. */
EW_API void ew_context_close(ew_context* context);

/* For inputs with dims of -1, before the first run and whenever it changes: after a change all inputs must be written again. A dim
 * of one name must be the same in all inputs, which is checked at the next call that needs the shapes. A dim above the most that the
 * engine was built for is refused, and the shape from before stays. */
EW_API ew_status ew_set_input_shape(ew_context* context, int32_t index, const int64_t* dims, int32_t rank);
/* The shape that an output will have with the present input shapes; where that depends on what the inputs hold, after a run the shape
 * of its result, before it the largest. Memory for ew_bind_output has the largest size; ew_read_output gives what there is. */
EW_API ew_status ew_output_shape(ew_context* context, int32_t index, int64_t* dims, int32_t* rank);
/* Copy in before, copy out after a run; bytes must be the tensor's exact size. */
EW_API ew_status ew_write_input(ew_context* context, int32_t index, const void* data, size_t bytes);
EW_API ew_status ew_read_output(ew_context* context, int32_t index, void* data, size_t bytes);
/* Or let the engine read from and write to the app's own memory, aligned to the dtype's size; NULL unbinds, and so does writing
 * the input. It must stay until it is unbound. 64-byte alignment is fastest. */
EW_API ew_status ew_bind_input(ew_context* context, int32_t index, const void* data, size_t bytes);
EW_API ew_status ew_bind_output(ew_context* context, int32_t index, void* data, size_t bytes);
EW_API ew_status ew_run(ew_context* context);

/* What an operator has just written; `op` counts as ew_profile_get does. Of 8 bits with `quads` not 0, [N, C, spatial...] lies as
 * [N][ceil(C/4)][spatial...][4]. The memory is the engine's: it is used again for other tensors when the call returns. */
typedef struct ew_result {
    int32_t op;
    int32_t output;
    ew_dtype dtype;
    int32_t quads;
    int32_t rank;
    int64_t dims[EW_MAX_RANK];
    const void* data;
    size_t bytes;
} ew_result;

typedef void (*ew_observer)(void* user, const ew_result* result);

/* Calls `observer` in each run, on the thread of ew_run, after each operator for each of its outputs, to find where an engine departs
 * from its network; NULL ends that. It must not throw, and gets EW_BUSY from this context. */
EW_API ew_status ew_observe(ew_context* context, ew_observer observer, void* user);

/* For the present shapes; where every free dim has a stated largest size, for these, and before any shape is set. */
EW_API ew_status ew_memory_use(ew_context* context, ew_memory* memory);
EW_API int32_t ew_profile_count(const ew_context* context);
EW_API ew_status ew_profile_get(const ew_context* context, int32_t index, ew_profile_entry* entry);

#ifdef __cplusplus
}
#endif
#endif
