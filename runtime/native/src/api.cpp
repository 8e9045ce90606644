// The C boundary: pointers and indices are checked here, and no exception passes.
#include <cstdio>
#include <memory>
#include <new>

#include "context.h"
#include "edgewise.h"
#include "engine_file.h"
#include "plan.h"

#ifndef EDGEWISE_VERSION
#define EDGEWISE_VERSION "0"
#endif

namespace {

// What an engine and its contexts share; the last of them that is closed ends it.
struct Loaded {
    ew::EngineFile file;
    ew::Plan plan;
};

}  // namespace

struct ew_engine {
    std::shared_ptr<Loaded> loaded;
    const ew::Plan& plan() const { return loaded->plan; }
};

struct ew_context {
    std::shared_ptr<const Loaded> loaded;
    ew::Context context;
};

namespace {

using ew::Status;

thread_local char last_error[256] = "";

ew_status report(const Status& status) {
    if (!status.ok()) std::snprintf(last_error, sizeof last_error, "%s", status.message());
    return status.code();
}

// Runs f, which returns a Status, and turns running out of memory into one.
template <typename F>
ew_status guard(F&& f) {
#if defined(__wasi__)  // which has no exceptions: without memory the program traps
    return report(f());
#else
    try {
        return report(f());
    } catch (const std::bad_alloc&) {
        return report(Status::fail(EW_OUT_OF_MEMORY, "out of memory"));
    } catch (...) {
        return report(Status::fail(EW_OUT_OF_MEMORY, "the C++ library gave up"));
    }
#endif
}

Status null_pointer() { return Status::fail(EW_INVALID_ARGUMENT, "a null pointer"); }

Status check_index(int32_t index, size_t count) {
    if (index >= 0 && static_cast<size_t>(index) < count) return {};
    return Status::fail(EW_INVALID_ARGUMENT, "there is no entry %d, only %zu", index, count);
}

// Lets one thread in. C is ew_context or const ew_context.
template <typename C, typename F>
ew_status enter(C* context, F&& f) {
    if (!context) return report(null_pointer());
    if (context->context.busy.test_and_set(std::memory_order_acquire)) {
        return report(Status::fail(EW_BUSY, "another thread is inside this context"));
    }
    const ew_status status = guard([&] { return f(context->context); });
    context->context.busy.clear(std::memory_order_release);
    return status;
}

Status describe(const ew::Plan& plan, const std::vector<uint32_t>& ports, int32_t index, ew_tensor_info* info) {
    EW_TRY(check_index(index, ports.size()));
    const ew::PlanTensor& tensor = plan.tensors[ports[static_cast<size_t>(index)]];
    *info = ew_tensor_info();
    info->name = tensor.name.c_str();
    info->dtype = tensor.dtype;
    info->rank = static_cast<int32_t>(tensor.dims.size());
    for (size_t i = 0; i < tensor.dims.size(); ++i) {
        const ew::Expression& expression = plan.expressions[tensor.dims[i]];
        info->dims[i] = expression.kind == ew::Expression::kConstant ? expression.a : -1;
        if (expression.kind == ew::Expression::kSymbol) {
            info->dim_names[i] = plan.symbols[static_cast<size_t>(expression.a)].c_str();
        }
    }
    return {};
}

// `load` fills an EngineFile.
template <typename F>
ew_status open_engine(ew_engine** engine, F&& load) {
    *engine = nullptr;
    return guard([&]() -> Status {
        auto made = std::make_unique<ew_engine>(ew_engine{std::make_shared<Loaded>()});
        ew::EngineFile& file = made->loaded->file;
        EW_TRY(load(file));
        EW_TRY(ew::read_plan(file.data(), file.bytes(), &made->loaded->plan));
        const ew::Isa needs = made->plan().isa, has = ew::host_isa();
        if (!ew::includes(has, needs)) {
            return Status::fail(EW_UNSUPPORTED, "the engine was built for %s, this processor has %s", ew::isa_name(needs), ew::isa_name(has));
        }
        *engine = made.release();
        return {};
    });
}

}  // namespace

const char* ew_version(void) { return EDGEWISE_VERSION; }

const char* ew_last_error(void) { return last_error; }

const char* ew_isas(void) { return ew::host_isas(); }

ew_status ew_open(const char* path, ew_engine** engine) {
    if (!path || !engine) return report(null_pointer());
    return open_engine(engine, [&](ew::EngineFile& file) { return file.map(path); });
}

ew_status ew_open_memory(const void* data, size_t bytes, ew_engine** engine) {
    if (!data || !engine) return report(null_pointer());
    return open_engine(engine, [&](ew::EngineFile& file) { return file.borrow(data, bytes); });
}

void ew_close(ew_engine* engine) { delete engine; }

int32_t ew_input_count(const ew_engine* engine) { return engine ? static_cast<int32_t>(engine->plan().inputs.size()) : 0; }
int32_t ew_output_count(const ew_engine* engine) { return engine ? static_cast<int32_t>(engine->plan().outputs.size()) : 0; }

ew_status ew_input_info(const ew_engine* engine, int32_t index, ew_tensor_info* info) {
    if (!engine || !info) return report(null_pointer());
    return report(describe(engine->plan(), engine->plan().inputs, index, info));
}

ew_status ew_output_info(const ew_engine* engine, int32_t index, ew_tensor_info* info) {
    if (!engine || !info) return report(null_pointer());
    return report(describe(engine->plan(), engine->plan().outputs, index, info));
}

ew_status ew_context_create(const ew_engine* engine, const ew_options* options, ew_context** context) {
    if (!engine || !context) return report(null_pointer());
    *context = nullptr;
    const ew_options chosen = options ? *options : ew_options{0, 0, 0};
    if (chosen.threads < 0 || chosen.threads > 1024) {
        return report(Status::fail(EW_INVALID_ARGUMENT, "threads must lie between 0 and 1024, not %d", chosen.threads));
    }
    return guard([&]() -> Status {
        std::unique_ptr<ew_context> made(new ew_context{engine->loaded, {engine->plan(), chosen}});
        EW_TRY(made->context.start());
        *context = made.release();
        return {};
    });
}

void ew_context_close(ew_context* context) { delete context; }

ew_status ew_set_input_shape(ew_context* context, int32_t index, const int64_t* dims, int32_t rank) {
    if (!dims && rank != 0) return report(null_pointer());
    return enter(context, [&](ew::Context& inside) -> Status {
        EW_TRY(check_index(index, inside.inputs()));
        return inside.set_input_shape(static_cast<size_t>(index), dims, rank);
    });
}

ew_status ew_output_shape(ew_context* context, int32_t index, int64_t* dims, int32_t* rank) {
    if (!dims || !rank) return report(null_pointer());
    return enter(context, [&](ew::Context& inside) -> Status {
        EW_TRY(check_index(index, inside.outputs()));
        return inside.output_shape(static_cast<size_t>(index), dims, rank);
    });
}

ew_status ew_write_input(ew_context* context, int32_t index, const void* data, size_t bytes) {
    if (!data && bytes != 0) return report(null_pointer());
    return enter(context, [&](ew::Context& inside) -> Status {
        EW_TRY(check_index(index, inside.inputs()));
        return inside.write_input(static_cast<size_t>(index), data, bytes);
    });
}

ew_status ew_read_output(ew_context* context, int32_t index, void* data, size_t bytes) {
    if (!data && bytes != 0) return report(null_pointer());
    return enter(context, [&](ew::Context& inside) -> Status {
        EW_TRY(check_index(index, inside.outputs()));
        return inside.read_output(static_cast<size_t>(index), data, bytes);
    });
}

ew_status ew_bind_input(ew_context* context, int32_t index, const void* data, size_t bytes) {
    return enter(context, [&](ew::Context& inside) -> Status {
        EW_TRY(check_index(index, inside.inputs()));
        return inside.bind_input(static_cast<size_t>(index), data, bytes);
    });
}

ew_status ew_bind_output(ew_context* context, int32_t index, void* data, size_t bytes) {
    return enter(context, [&](ew::Context& inside) -> Status {
        EW_TRY(check_index(index, inside.outputs()));
        return inside.bind_output(static_cast<size_t>(index), data, bytes);
    });
}

ew_status ew_run(ew_context* context) {
    return enter(context, [](ew::Context& inside) { return inside.run(); });
}

ew_status ew_observe(ew_context* context, ew_observer observer, void* user) {
    return enter(context, [&](ew::Context& inside) -> Status {
        inside.observe(observer, user);
        return {};
    });
}

ew_status ew_memory_use(ew_context* context, ew_memory* memory) {
    if (!memory) return report(null_pointer());
    return enter(context, [&](ew::Context& inside) { return inside.memory_use(memory); });
}

int32_t ew_profile_count(const ew_context* context) {
    return context ? static_cast<int32_t>(context->context.profile().size()) : 0;
}

ew_status ew_profile_get(const ew_context* context, int32_t index, ew_profile_entry* entry) {
    if (!entry) return report(null_pointer());
    return enter(context, [&](const ew::Context& inside) -> Status {
        EW_TRY(check_index(index, inside.profile().size()));
        *entry = inside.profile()[static_cast<size_t>(index)];
        return {};
    });
}
