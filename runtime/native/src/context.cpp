#include "context.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "arena.h"

namespace ew {
namespace {

constexpr int64_t kMost = int64_t{1} << 46;  // elements or bytes: far above any memory, far below overflow

uint64_t now_ns() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

// Bytes of a tensor of these dims; -1 when they are negative or too many.
int64_t bytes_of(const Tensor& tensor) {
    int64_t count = 1;
    for (int32_t i = 0; i < tensor.rank; ++i) {
        const int64_t dim = tensor.layout == Layout::kC4 && i == 1 ? (tensor.dims[i] + 3) / 4 * 4 : tensor.dims[i];
        if (dim < 0 || dim > kMost || __builtin_mul_overflow(count, dim, &count) || count > kMost) return -1;
    }
    return count * static_cast<int64_t>(size_of(tensor.dtype));
}

}  // namespace

void AlignedFree::operator()(uint8_t* memory) const { std::free(memory); }

AlignedBytes allocate(size_t bytes) {
    const size_t whole = (bytes + kAlignment) / kAlignment * kAlignment;
    return AlignedBytes(static_cast<uint8_t*>(std::aligned_alloc(kAlignment, whole)));
}

Context::Context(const Plan& plan, const ew_options& options)
    : plan_(plan), options_(options), symbols_(plan.symbols.size(), -1), bound_(plan.storages.size(), nullptr) {}

Status Context::start() {
    pool_ = make_pool(options_.threads, options_.pin != 0);
    if (!pool_) return Status::fail(EW_OUT_OF_MEMORY, "the system refuses to start %d threads", options_.threads);
    EW_TRY(make_steps());
    return symbols_.empty() ? bind_shapes() : Status();
}

Status Context::make_steps() {
    tensors_.resize(plan_.tensors.size());
    attributes_.resize(plan_.ops.size());
    for (size_t i = 0; i < plan_.ops.size(); ++i) {
        const PlanOp& op = plan_.ops[i];
        bool known = false;
        Step step;
        step.op.reset(make_operator(op.op.c_str(), &known));
        if (!known) return Status::fail(EW_UNSUPPORTED, "this library has no operator %.100s", op.op.c_str());
        if (!step.op) return Status::fail(EW_OUT_OF_MEMORY, "no memory for operator %.100s", op.name.c_str());
        for (int32_t input : op.inputs) step.inputs.push_back(input < 0 ? nullptr : &tensors_[static_cast<size_t>(input)]);
        for (uint32_t output : op.outputs) step.outputs.push_back(&tensors_[output]);
        steps_.push_back(std::move(step));
        profile_.push_back({op.name.c_str(), op.op.c_str(), "", 0, 0});
        attributes_[i] = op.attributes;
    }
    return {};
}

Status Context::set_input_shape(size_t index, const int64_t* dims, int32_t rank) {
    const PlanTensor& tensor = plan_.tensors[plan_.inputs[index]];
    if (static_cast<size_t>(rank) != tensor.dims.size()) {
        return Status::fail(EW_INVALID_ARGUMENT, "input %s has %zu dims, not %d", tensor.name.c_str(), tensor.dims.size(), rank);
    }
    std::vector<int64_t> symbols = symbols_;
    for (int32_t i = 0; i < rank; ++i) {
        const Expression& expression = plan_.expressions[tensor.dims[static_cast<size_t>(i)]];
        if (dims[i] < 0 || (expression.kind == Expression::kConstant && expression.a != dims[i])) {
            return Status::fail(EW_INVALID_ARGUMENT, "dim %d of input %s is %lld, not %lld", i, tensor.name.c_str(),
                                static_cast<long long>(expression.a), static_cast<long long>(dims[i]));
        }
        if (expression.kind == Expression::kSymbol) symbols[static_cast<size_t>(expression.a)] = dims[i];
    }
    if (symbols != symbols_) {
        symbols_ = std::move(symbols);
        ready_ = false;
    }
    return {};
}

Status Context::bind_shapes() {
    if (ready_) return {};
    for (size_t i = 0; i < symbols_.size(); ++i) {
        if (symbols_[i] < 0) {
            return Status::fail(EW_INVALID_ARGUMENT, "no input has said how large %.100s is", plan_.symbols[i].c_str());
        }
    }
    EW_TRY(evaluate(plan_, symbols_, &values_));
    EW_TRY(place_tensors(values_));
    EW_TRY(prepare_steps(values_));
    EW_TRY(place_memory(values_));
    ready_ = true;
    return {};
}

Status Context::place_tensors(const std::vector<int64_t>& values) {
    for (size_t i = 0; i < tensors_.size(); ++i) {
        const PlanTensor& from = plan_.tensors[i];
        Tensor& tensor = tensors_[i];
        tensor = Tensor();
        tensor.name = from.name.c_str();
        tensor.dtype = from.dtype;
        tensor.layout = from.layout;
        tensor.rank = static_cast<int32_t>(from.dims.size());
        for (size_t d = 0; d < from.dims.size(); ++d) tensor.dims[d] = values[from.dims[d]];
        const int64_t needed = bytes_of(tensor);
        const int64_t offset = from.constant ? 0 : values[from.offset];
        const int64_t room = from.constant ? static_cast<int64_t>(from.bytes) : values[plan_.storages[from.storage]];
        const bool aligned = offset % static_cast<int64_t>(size_of(tensor.dtype)) == 0;
        if (needed < 0 || offset < 0 || room < 0 || room > kMost || !aligned || needed > room - offset) {
            return Status::fail(EW_BAD_FILE, "engine file: tensor %.100s does not fit its place", tensor.name);
        }
        tensor.bytes = static_cast<size_t>(from.constant ? room : needed);
        tensor.constant = from.constant;
        // Constants are never written: no operator may have one as its output.
        if (from.constant) tensor.data = const_cast<uint8_t*>(plan_.weights) + from.offset;
    }
    return {};
}

Status Context::prepare_steps(const std::vector<int64_t>& values) {
    size_t scratch = 0;
    for (size_t i = 0; i < steps_.size(); ++i) {
        for (Attribute& attribute : attributes_[i].entries) {
            for (size_t d = 0; d < attribute.expressions.size(); ++d) attribute.integers[d] = values[attribute.expressions[d]];
        }
        Step& step = steps_[i];
        Setup setup{plan_.ops[i].op.c_str(), plan_.ops[i].name.c_str(), attributes_[i], step.inputs.data(),
                    static_cast<int32_t>(step.inputs.size()), step.outputs.data(), static_cast<int32_t>(step.outputs.size()),
                    std::min(plan_.isa, host_isa()), pool_->threads()};
        EW_TRY(step.op->prepare(setup));
        profile_[i].kernel = setup.kernel;
        if (setup.scratch_bytes > static_cast<size_t>(kMost)) return setup.refuse("needs too much memory");
        scratch = std::max(scratch, setup.scratch_bytes);
    }
    scratch_offset_ = scratch;  // its size until place_memory() knows where it lies
    return {};
}

Status Context::place_memory(const std::vector<int64_t>& values) {
    const int steps = static_cast<int>(steps_.size());
    std::vector<Lifetime> lives(plan_.storages.size());
    for (size_t i = 0; i < lives.size(); ++i) lives[i] = {static_cast<size_t>(values[plan_.storages[i]]), steps, -1};
    const auto touch = [&](uint32_t tensor, int step) {
        if (plan_.tensors[tensor].constant) return;
        Lifetime& life = lives[plan_.tensors[tensor].storage];
        life.first = std::min(life.first, step);
        life.last = std::max(life.last, step);
    };
    for (int i = 0; i < steps; ++i) {
        const PlanOp& op = plan_.ops[static_cast<size_t>(i)];
        for (int32_t input : op.inputs) {
            if (input >= 0) touch(static_cast<uint32_t>(input), i);
        }
        for (uint32_t output : op.outputs) touch(output, i);
    }
    // The app reads and writes these between runs.
    for (const auto* ports : {&plan_.inputs, &plan_.outputs}) {
        for (uint32_t port : *ports) touch(port, -1), touch(port, steps);
    }
    const size_t scratch = scratch_offset_;
    uint64_t total = place(lives, &offsets_);
    total += scratch;
    if (total > static_cast<uint64_t>(kMost)) return Status::fail(EW_OUT_OF_MEMORY, "the activations need too much memory");
    arena_.reset();
    arena_ = allocate(static_cast<size_t>(total));
    if (!arena_) {
        return Status::fail(EW_OUT_OF_MEMORY, "no memory for %llu bytes of activations", static_cast<unsigned long long>(total));
    }
    arena_bytes_ = static_cast<size_t>(total);
    scratch_offset_ = arena_bytes_ - scratch;
    set_pointers();
    return {};
}

void Context::set_pointers() {
    for (size_t i = 0; i < tensors_.size(); ++i) {
        const PlanTensor& from = plan_.tensors[i];
        if (from.constant) continue;
        uint8_t* base = bound_[from.storage] ? bound_[from.storage] : arena_.get() + offsets_[from.storage];
        tensors_[i].data = base + values_[from.offset];
    }
}

Status Context::output_shape(size_t index, int64_t* dims, int32_t* rank) {
    EW_TRY(bind_shapes());
    const Tensor& tensor = tensors_[plan_.outputs[index]];
    std::copy(tensor.dims, tensor.dims + tensor.rank, dims);
    *rank = tensor.rank;
    return {};
}

namespace {

Status wrong_size(const Tensor& tensor, size_t bytes) {
    return Status::fail(EW_INVALID_ARGUMENT, "%.100s has %zu bytes, not %zu", tensor.name, tensor.bytes, bytes);
}

}  // namespace

Status Context::write_input(size_t index, const void* data, size_t bytes) {
    EW_TRY(bind_shapes());
    const Tensor& tensor = tensors_[plan_.inputs[index]];
    if (bytes != tensor.bytes) return wrong_size(tensor, bytes);
    std::memcpy(tensor.data, data, bytes);
    return {};
}

Status Context::read_output(size_t index, void* data, size_t bytes) {
    EW_TRY(bind_shapes());
    const Tensor& tensor = tensors_[plan_.outputs[index]];
    if (bytes != tensor.bytes) return wrong_size(tensor, bytes);
    std::memcpy(data, tensor.data, bytes);
    return {};
}

Status Context::bind(const std::vector<uint32_t>& ports, size_t index, void* data, size_t bytes) {
    EW_TRY(bind_shapes());
    const Tensor& tensor = tensors_[ports[index]];
    if (data && bytes != tensor.bytes) return wrong_size(tensor, bytes);
    if (reinterpret_cast<uintptr_t>(data) % size_of(tensor.dtype) != 0) {
        return Status::fail(EW_INVALID_ARGUMENT, "memory for %.100s is not aligned to its dtype", tensor.name);
    }
    bound_[plan_.tensors[ports[index]].storage] = static_cast<uint8_t*>(data);
    set_pointers();
    return {};
}

Status Context::run() {
    EW_TRY(bind_shapes());
    for (size_t i = 0; i < steps_.size(); ++i) {
        Step& step = steps_[i];
        const uint64_t begin = options_.profile ? now_ns() : 0;
        step.op->run({step.inputs.data(), step.outputs.data(), arena_.get() + scratch_offset_, *pool_});
        if (options_.profile) {
            profile_[i].total_ns += now_ns() - begin;
            ++profile_[i].runs;
        }
    }
    return {};
}

Status Context::memory_use(ew_memory* memory) {
    EW_TRY(bind_shapes());
    *memory = {plan_.weights_bytes, arena_bytes_};
    return {};
}

}  // namespace ew
