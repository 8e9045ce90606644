#include "context.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

namespace ew {
namespace {

uint64_t now_ns() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

// Bytes of a tensor; -1 when they, or those of one with 1 in place of each dim of 0, are too many for kMost.
int64_t bytes_of(const Tensor& tensor) {
    int64_t most = static_cast<int64_t>(size_of(tensor.dtype));
    bool empty = false;
    for (int32_t i = 0; i < tensor.rank; ++i) {
        if (tensor.dims[i] > kMost) return -1;
        const int64_t dim = tensor.layout == Layout::kC4 && i == 1 ? (tensor.dims[i] + 3) / 4 * 4 : tensor.dims[i];
        empty = empty || dim == 0;
        if (dim != 0 && (__builtin_mul_overflow(most, dim, &most) || most > kMost)) return -1;
    }
    return empty ? 0 : most;
}

long long ll(int64_t value) { return static_cast<long long>(value); }

}  // namespace

void AlignedFree::operator()(uint8_t* memory) const { std::free(memory); }

AlignedBytes allocate(size_t bytes) {
    const size_t whole = (bytes + kAlignment) / kAlignment * kAlignment;
    return AlignedBytes(static_cast<uint8_t*>(std::aligned_alloc(kAlignment, whole)));
}

Context::Context(const Plan& plan, const ew_options& options)
    : plan_(plan),
      options_(options),
      shapes_(plan.inputs.size()),
      symbols_(plan.symbols.size(), -1),
      bound_(plan.storages.size()),
      written_(plan.inputs.size()) {}

Status Context::start() {
    pool_ = make_pool(options_.threads, options_.pin != 0);
    if (!pool_) return Status::fail(EW_OUT_OF_MEMORY, "the system refuses to start the threads (%d asked for)", options_.threads);
    EW_TRY(make_steps());
    if (symbols_.empty()) return bind_shapes();
    bounded_ = std::find(plan_.limits.begin(), plan_.limits.end(), 0) == plan_.limits.end();
    return bounded_ ? place_largest() : Status();
}

// The arena of the largest shapes, which then serves all.
Status Context::place_largest() {
    symbols_ = plan_.limits;
    EW_TRY(place_all());
    symbols_.assign(symbols_.size(), -1);
    return {};
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
    const char* name = tensor.name.c_str();
    if (rank < 0 || static_cast<size_t>(rank) != tensor.dims.size()) {
        return Status::fail(EW_INVALID_ARGUMENT, "input %.100s has %zu dims, not %d", name, tensor.dims.size(), rank);
    }
    for (int32_t i = 0; i < rank; ++i) {
        const Expression& expression = plan_.expressions[tensor.dims[static_cast<size_t>(i)]];
        if (expression.kind == Expression::kConstant && expression.a != dims[i]) {
            return Status::fail(EW_INVALID_ARGUMENT, "dim %d of input %.100s is %lld, not %lld", i, name, ll(expression.a), ll(dims[i]));
        }
        if (dims[i] < 0 || dims[i] > kMost) {
            return Status::fail(EW_INVALID_ARGUMENT, "dim %d of input %.100s cannot be %lld", i, name, ll(dims[i]));
        }
        const int64_t limit = expression.kind == Expression::kSymbol ? plan_.limits[static_cast<size_t>(expression.a)] : 0;
        if (limit > 0 && dims[i] > limit) {
            return Status::fail(EW_INVALID_ARGUMENT, "dim %d (%.40s) of input %.60s is %lld, and the engine was built for at most %lld", i,
                                plan_.symbols[static_cast<size_t>(expression.a)].c_str(), name, ll(dims[i]), ll(limit));
        }
    }
    std::vector<int64_t> shape(dims, dims + rank);
    if (shape != shapes_[index]) {
        shapes_[index] = std::move(shape);
        if (!symbols_.empty()) ready_ = false;
    }
    return {};
}

// Each symbol from the inputs' shapes, which must agree.
Status Context::resolve_symbols() {
    std::vector<int64_t> symbols(symbols_.size(), -1);
    std::vector<const char*> said_by(symbols_.size(), "");
    for (size_t index = 0; index < shapes_.size(); ++index) {
        const PlanTensor& tensor = plan_.tensors[plan_.inputs[index]];
        for (size_t i = 0; i < shapes_[index].size(); ++i) {
            const Expression& expression = plan_.expressions[tensor.dims[i]];
            if (expression.kind != Expression::kSymbol) continue;
            const auto symbol = static_cast<size_t>(expression.a);
            const int64_t dim = shapes_[index][i];
            if (symbols[symbol] >= 0 && symbols[symbol] != dim) {
                return Status::fail(EW_INVALID_ARGUMENT, "%.40s is %lld in input %.60s and %lld in input %.60s",
                                    plan_.symbols[symbol].c_str(), ll(symbols[symbol]), said_by[symbol], ll(dim), tensor.name.c_str());
            }
            symbols[symbol] = dim;
            said_by[symbol] = tensor.name.c_str();
        }
    }
    for (size_t i = 0; i < symbols.size(); ++i) {
        if (symbols[i] < 0) {
            return Status::fail(EW_INVALID_ARGUMENT, "no input has said how large %.100s is", plan_.symbols[i].c_str());
        }
    }
    symbols_ = std::move(symbols);
    return {};
}

Status Context::bind_shapes() {
    if (ready_) return {};
    EW_TRY(resolve_symbols());
    EW_TRY(place_all());
    ready_ = true;
    return {};
}

Status Context::place_all() {
    counts_.assign(plan_.counts.size(), -1);
    EW_TRY(evaluate(plan_, symbols_, counts_, &values_));
    most_ = values_;
    EW_TRY(place_tensors());
    EW_TRY(prepare_steps());
    return place_memory();
}

Status Context::place_tensors() {
    for (size_t i = 0; i < tensors_.size(); ++i) EW_TRY(place_tensor(plan_.tensors[i], &tensors_[i]));
    return check_port_storages();
}

Status Context::place_tensor(const PlanTensor& from, Tensor* tensor) {
    *tensor = Tensor();
    tensor->name = from.name.c_str();
    tensor->dtype = from.dtype;
    tensor->layout = from.layout;
    tensor->rank = static_cast<int32_t>(from.dims.size());
    tensor->constant = from.constant;
    for (size_t i = 0; i < from.dims.size(); ++i) {
        tensor->dims[i] = values_[from.dims[i]];
        if (tensor->dims[i] < 0) {
            return Status::fail(shape_error(plan_), "dim %zu of tensor %.100s would be %lld", i, tensor->name, ll(tensor->dims[i]));
        }
    }
    const int64_t needed = bytes_of(*tensor);
    if (needed < 0) return Status::fail(EW_OUT_OF_MEMORY, "tensor %.100s is too large for any memory", tensor->name);
    const int64_t offset = from.constant ? 0 : values_[from.offset];
    const int64_t room = from.constant ? static_cast<int64_t>(from.bytes) : most_[plan_.storages[from.storage]];
    const bool aligned = offset % static_cast<int64_t>(size_of(tensor->dtype)) == 0;
    if (offset < 0 || room < 0 || room > kMost || !aligned || needed > room - offset) {
        return Status::fail(EW_BAD_FILE, "engine file: tensor %.100s does not fit its place", tensor->name);
    }
    tensor->bytes = static_cast<size_t>(from.constant ? room : needed);
    // Constants are never written: no operator has one as its output (read_plan).
    if (from.constant) tensor->data = const_cast<uint8_t*>(plan_.weights) + from.offset;
    return {};
}

// What lies in the storage of an input or output may lie in the app's memory, which is as large as that input or output.
Status Context::check_port_storages() const {
    for (const auto* ports : {&plan_.inputs, &plan_.outputs}) {
        for (uint32_t port : *ports) {
            const int64_t room = values_[plan_.storages[plan_.tensors[port].storage]];
            if (static_cast<uint64_t>(room) == tensors_[port].bytes) continue;
            return Status::fail(EW_BAD_FILE, "engine file: the storage of %.100s is larger than it", tensors_[port].name);
        }
    }
    return {};
}

bool Context::Step::gives_nothing() const {
    return !outputs.empty() && std::all_of(outputs.begin(), outputs.end(), [](const Tensor* output) { return output->bytes == 0; });
}

Status Context::prepare_steps() {
    for (size_t i = 0; i < steps_.size(); ++i) EW_TRY(prepare_step(i));
    return {};
}

Status Context::prepare_step(size_t index) {
    for (Attribute& attribute : attributes_[index].entries) {
        for (size_t d = 0; d < attribute.expressions.size(); ++d) attribute.integers[d] = values_[attribute.expressions[d]];
    }
    Step& step = steps_[index];
    Setup setup{plan_.ops[index].op.c_str(), plan_.ops[index].name.c_str(), attributes_[index], step.inputs.data(),
                static_cast<int32_t>(step.inputs.size()), step.outputs.data(), static_cast<int32_t>(step.outputs.size()),
                host_isa(), pool_->threads()};
    EW_TRY(step.op->prepare(setup));
    step.idle = step.gives_nothing();
    profile_[index].kernel = setup.kernel;
    if (setup.scratch_bytes > static_cast<uint64_t>(kMost)) return setup.refuse("needs too much memory");
    step.scratch_bytes = setup.scratch_bytes;
    step.stale = false;
    return {};
}

std::vector<Lifetime> Context::lifetimes() const {
    const int steps = static_cast<int>(steps_.size());
    std::vector<Lifetime> lives(plan_.storages.size(), Lifetime{0, steps, -1});
    const auto touch = [&](uint32_t tensor, int step) {
        if (plan_.tensors[tensor].constant) return;
        const uint32_t storage = plan_.tensors[tensor].storage;
        Lifetime& life = lives[storage];
        life.bytes = static_cast<uint64_t>(values_[plan_.storages[storage]]);
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
    for (int i = 0; i < steps; ++i) lives.push_back({steps_[static_cast<size_t>(i)].scratch_bytes, i, i});
    return lives;
}

Status Context::place_memory() {
    const std::vector<Lifetime> lives = lifetimes();
    const int steps = static_cast<int>(steps_.size());
    const uint64_t total = place(lives, steps, &offsets_);
    if (total > static_cast<uint64_t>(kMost)) return Status::fail(EW_OUT_OF_MEMORY, "the activations are too large for any memory");
    std::fill(written_.begin(), written_.end(), false);
    if (!bounded_ || !arena_ || total > arena_bytes_) {
        arena_.reset();
        arena_ = allocate(static_cast<size_t>(total));
        if (!arena_) {
            return Status::fail(EW_OUT_OF_MEMORY, "no memory for %llu bytes of activations", static_cast<unsigned long long>(total));
        }
        arena_bytes_ = static_cast<size_t>(total);
        least_arena_bytes_ = most_alive(lives, steps);
    }
    for (size_t i = 0; i < steps_.size(); ++i) {
        steps_[i].scratch_offset = static_cast<size_t>(offsets_[plan_.storages.size() + i]);
        steps_[i].placed_bytes = steps_[i].scratch_bytes;
    }
    set_pointers();
    return {};
}

void Context::set_pointers() {
    for (size_t i = 0; i < tensors_.size(); ++i) {
        const PlanTensor& from = plan_.tensors[i];
        if (from.constant) continue;
        // The app's memory may be of an earlier shape: then it is not touched, and run() says so.
        const Bound& bound = bound_[from.storage];
        const bool fits = bound.data && static_cast<int64_t>(bound.bytes) == most_[plan_.storages[from.storage]];
        // A tensor that no operator uses may be in a storage without a place.
        uint8_t* base = fits ? bound.data : arena_.get() + offsets_[from.storage];
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

Status wrong_size(const Tensor& tensor, uint64_t wanted, size_t bytes) {
    return Status::fail(EW_INVALID_ARGUMENT, "%.100s has %llu bytes, not %zu", tensor.name, static_cast<unsigned long long>(wanted), bytes);
}

}  // namespace

Status Context::write_input(size_t index, const void* data, size_t bytes) {
    EW_TRY(bind_shapes());
    const Tensor& tensor = tensors_[plan_.inputs[index]];
    if (bytes != tensor.bytes) return wrong_size(tensor, tensor.bytes, bytes);
    if (bound_[plan_.tensors[plan_.inputs[index]].storage].data) EW_TRY(bind_input(index, nullptr, 0));
    if (bytes > 0) std::memcpy(tensor.data, data, bytes);
    written_[index] = true;
    return {};
}

Status Context::read_output(size_t index, void* data, size_t bytes) {
    EW_TRY(bind_shapes());
    const Tensor& tensor = tensors_[plan_.outputs[index]];
    if (bytes != tensor.bytes) return wrong_size(tensor, tensor.bytes, bytes);
    if (bytes > 0) std::memmove(data, tensor.data, bytes);  // what is bound may be read onto itself, or beside itself
    return {};
}

uint64_t Context::room(uint32_t port) const {
    return static_cast<uint64_t>(most_[plan_.storages[plan_.tensors[port].storage]]);  // check_port_storages
}

Status Context::bind(const std::vector<uint32_t>& ports, size_t index, void* data, size_t bytes) {
    EW_TRY(bind_shapes());
    const Tensor& tensor = tensors_[ports[index]];
    if (data && bytes != room(ports[index])) return wrong_size(tensor, room(ports[index]), bytes);
    if (reinterpret_cast<uintptr_t>(data) % size_of(tensor.dtype) != 0) {
        return Status::fail(EW_INVALID_ARGUMENT, "memory for %.100s is not aligned to its dtype", tensor.name);
    }
    bound_[plan_.tensors[ports[index]].storage] = {static_cast<uint8_t*>(data), bytes};
    set_pointers();
    return {};
}

Status Context::check_inputs() const {
    for (size_t i = 0; i < written_.size(); ++i) {
        const PlanTensor& tensor = plan_.tensors[plan_.inputs[i]];
        if (!written_[i] && !bound_[tensor.storage].data) {
            return Status::fail(EW_INVALID_ARGUMENT, "input %.100s has no data since the shapes were set", tensor.name.c_str());
        }
    }
    return {};
}

Status Context::check_bound() const {
    for (const auto* ports : {&plan_.inputs, &plan_.outputs}) {
        for (uint32_t port : *ports) {
            const Bound& bound = bound_[plan_.tensors[port].storage];
            if (bound.data && bound.bytes != room(port)) {
                return Status::fail(EW_INVALID_ARGUMENT, "%.100s has %llu bytes now, but is bound to %zu", tensors_[port].name,
                                    static_cast<unsigned long long>(room(port)), bound.bytes);
            }
        }
    }
    return {};
}

Status Context::run() {
    EW_TRY(bind_shapes());
    EW_TRY(check_inputs());
    EW_TRY(check_bound());
    for (size_t i = 0; i < steps_.size(); ++i) {
        Step& step = steps_[i];
        const uint64_t begin = options_.profile ? now_ns() : 0;
        if (step.stale) EW_TRY(unless_ready(prepare_again(i)));
        // A dim of 0 leaves the others unbounded by memory: loops over them would take as long as a file says.
        if (!step.idle) step.op->run({step.inputs.data(), step.outputs.data(), scratch(step), *pool_});
        if (options_.profile) {
            profile_[i].total_ns += now_ns() - begin;
            ++profile_[i].runs;
        }
        if (observer_) tell(i);
        if (!counts_.empty()) EW_TRY(unless_ready(read_counts(i)));
    }
    return {};
}

void Context::tell(size_t step) const {
    const std::vector<Tensor*>& outputs = steps_[step].outputs;
    for (size_t i = 0; i < outputs.size(); ++i) {
        const Tensor& from = *outputs[i];
        ew_result result{static_cast<int32_t>(step), static_cast<int32_t>(i), from.dtype, from.layout == Layout::kC4, from.rank, {}, from.data,
                         from.bytes};
        std::copy(from.dims, from.dims + from.rank, result.dims);
        observer_(user_, &result);
    }
}

Status Context::memory_use(ew_memory* memory) {
    if (!bounded_) EW_TRY(bind_shapes());
    *memory = {plan_.weights_bytes, arena_bytes_, least_arena_bytes_};
    return {};
}

}  // namespace ew
