#include "plan.h"

#include <algorithm>

#include "checksum.h"
#include "reader.h"

namespace ew {
namespace {

constexpr char kMagic[8] = {'E', 'D', 'G', 'E', 'W', 'I', 'S', 'E'};
constexpr size_t kHeaderBytes = 64;
constexpr size_t kMostOps = size_t{1} << 24;

struct Sections {
    const uint8_t* plan;
    size_t plan_bytes;
};

Status bad(const char* what) { return Status::fail(EW_BAD_FILE, "engine file: %s", what); }

Status read_header(const uint8_t* data, size_t bytes, Plan* plan, Sections* sections) {
    if (bytes < kHeaderBytes) return bad("too short to be one");
    if (std::memcmp(data, kMagic, sizeof kMagic) != 0) return bad("does not begin as one");
    Reader reader(data + sizeof kMagic, kHeaderBytes - sizeof kMagic);
    const auto version = reader.number<uint32_t>();
    if (version != kFormatVersion) {
        return Status::fail(EW_BAD_FILE, "engine file: format version %u, this library reads %u", version, kFormatVersion);
    }
    const auto isa = reader.number<uint32_t>();
    const auto file_bytes = reader.number<uint64_t>();
    const auto plan_offset = reader.number<uint64_t>();
    const auto plan_bytes = reader.number<uint64_t>();
    const auto weights_offset = reader.number<uint64_t>();
    const auto weights_bytes = reader.number<uint64_t>();
    const auto checksum = reader.number<uint32_t>();
    if (file_bytes != bytes) return bad("cut short, or longer than it says");
    if (plan_offset > bytes || plan_bytes > bytes - plan_offset) return bad("the plan lies outside of the file");
    if (weights_offset > bytes || weights_bytes > bytes - weights_offset) return bad("the weights lie outside of the file");
    if (weights_offset % kAlignment != 0) return bad("the weights are not aligned");
    if (!known_isa(isa)) return bad("made for an instruction set that this library does not know");
    if (checksum != crc32(data + plan_offset, plan_bytes)) return bad("the plan is damaged (checksum)");
    plan->isa = static_cast<Isa>(isa);
    plan->weights = data + weights_offset;
    plan->weights_bytes = weights_bytes;
    *sections = {data + plan_offset, static_cast<size_t>(plan_bytes)};
    return {};
}

Status read_expressions(Reader& reader, Plan* plan) {
    const uint32_t symbols = reader.count(4);
    for (uint32_t i = 0; i < symbols; ++i) plan->symbols.emplace_back(reader.text());
    plan->limits.assign(plan->symbols.size(), 0);
    const uint32_t count = reader.count(17);
    plan->expressions.reserve(count);
    for (uint32_t i = 0; i < count; ++i) {
        const auto kind = reader.number<uint8_t>();
        const auto a = reader.number<int64_t>();
        const auto b = reader.number<int64_t>();
        if (kind > Expression::kCounted) return bad("an unknown kind of expression");
        if (kind == Expression::kSymbol && (a < 0 || a >= symbols)) return bad("an expression of a symbol that is not there");
        if (kind == Expression::kSymbol) {
            if (b < 0 || b > kMost) return bad("a dim with a bound that is none");
            plan->limits[static_cast<size_t>(a)] = b;
        }
        const bool other = kind > Expression::kSymbol && kind < Expression::kCounted;  // b of a count is a tensor: find_counts
        if (kind > Expression::kSymbol && (a < 0 || a >= i || b < 0 || (other && b >= i))) return bad("an expression of a later one");
        plan->expressions.push_back({static_cast<Expression::Kind>(kind), a, b});
    }
    return {};
}

Status read_tensor(Reader& reader, const Plan& plan, PlanTensor* tensor) {
    tensor->name = reader.text();
    const auto dtype = reader.number<uint8_t>();
    const auto layout = reader.number<uint8_t>();
    const auto constant = reader.number<uint8_t>();
    const uint32_t rank = reader.count(4);
    if (dtype > EW_U16 || layout > 1 || constant > 1 || rank > EW_MAX_RANK) return bad("a tensor of unknown kind");
    for (uint32_t i = 0; i < rank; ++i) tensor->dims.push_back(reader.number<uint32_t>());
    tensor->offset = reader.number<uint64_t>();
    tensor->bytes = reader.number<uint64_t>();
    tensor->storage = reader.number<uint32_t>();
    tensor->dtype = static_cast<DType>(dtype);
    tensor->layout = static_cast<Layout>(layout);
    tensor->constant = constant != 0;
    for (uint32_t dim : tensor->dims) {
        if (dim >= plan.expressions.size()) return bad("a tensor's dim is no expression");
    }
    if (tensor->layout == Layout::kC4 && (size_of(tensor->dtype) != 1 || rank < 2)) return bad("a tensor that cannot be C4");
    if (tensor->constant) {
        if (tensor->offset % kAlignment != 0) return bad("a constant is not aligned");
        if (tensor->offset > plan.weights_bytes || tensor->bytes > plan.weights_bytes - tensor->offset) {
            return bad("a constant lies outside of the weights");
        }
    } else if (tensor->storage >= plan.storages.size() || tensor->offset >= plan.expressions.size()) {
        return bad("a tensor without a place");
    }
    return {};
}

Status read_attribute(Reader& reader, const Plan& plan, Attribute* attribute) {
    attribute->key = reader.text();
    const auto kind = reader.number<uint8_t>();
    if (kind > static_cast<uint8_t>(AttributeKind::kDims)) return bad("an attribute of unknown kind");
    attribute->kind = static_cast<AttributeKind>(kind);
    switch (attribute->kind) {
        case AttributeKind::kInt: attribute->integer = reader.number<int64_t>(); break;
        case AttributeKind::kFloat: attribute->real = reader.number<double>(); break;
        case AttributeKind::kString: attribute->text = reader.text(); break;
        case AttributeKind::kInts:
            for (uint32_t i = reader.count(8); i > 0; --i) attribute->integers.push_back(reader.number<int64_t>());
            break;
        case AttributeKind::kFloats:
            for (uint32_t i = reader.count(8); i > 0; --i) attribute->reals.push_back(reader.number<double>());
            break;
        case AttributeKind::kDims:
            for (uint32_t i = reader.count(4); i > 0; --i) attribute->expressions.push_back(reader.number<uint32_t>());
            for (uint32_t expression : attribute->expressions) {
                if (expression >= plan.expressions.size()) return bad("an attribute's dim is no expression");
            }
            attribute->integers.resize(attribute->expressions.size());
            break;
    }
    return {};
}

Status read_op(Reader& reader, const Plan& plan, PlanOp* op) {
    op->op = reader.text();
    op->name = reader.text();
    for (uint32_t i = reader.count(4); i > 0; --i) op->inputs.push_back(reader.number<int32_t>());
    for (uint32_t i = reader.count(4); i > 0; --i) op->outputs.push_back(reader.number<uint32_t>());
    const uint32_t attributes = reader.count(9);
    op->attributes.entries.resize(attributes);
    for (Attribute& attribute : op->attributes.entries) EW_TRY(read_attribute(reader, plan, &attribute));
    const auto tensors = static_cast<int64_t>(plan.tensors.size());
    for (int32_t input : op->inputs) {
        if (input < -1 || input >= tensors) return bad("an operator reads a tensor that is not there");
    }
    for (uint32_t output : op->outputs) {
        if (output >= tensors) return bad("an operator writes a tensor that is not there");
        if (plan.tensors[output].constant) return bad("an operator writes a constant");
    }
    return {};
}

// Inputs and outputs may be bound to the app's memory, so each has a storage of its own and begins where that begins. (That it
// also ends there is known when shapes are: Context::place_tensors.)
Status check_ports(const Plan& plan) {
    std::vector<uint8_t> used(plan.storages.size());
    for (const auto* ports : {&plan.inputs, &plan.outputs}) {
        for (uint32_t port : *ports) {
            if (port >= plan.tensors.size()) return bad("an input or output that is not there");
            const PlanTensor& tensor = plan.tensors[port];
            if (tensor.constant || tensor.layout != Layout::kPlain) return bad("an input or output that is constant or packed");
            const Expression& offset = plan.expressions[tensor.offset];
            if (offset.kind != Expression::kConstant || offset.a != 0) return bad("an input or output inside of another tensor");
            if (used[tensor.storage]++) return bad("two inputs or outputs in one storage");
            for (uint32_t dim : tensor.dims) {
                const Expression& size = plan.expressions[dim];
                if (size.kind == Expression::kConstant && (size.a < 0 || size.a > kMost)) return bad("an input or output of no size");
            }
        }
    }
    for (uint32_t input : plan.inputs) {
        for (uint32_t dim : plan.tensors[input].dims) {
            if (plan.expressions[dim].kind > Expression::kSymbol) return bad("an input's dim is computed");
        }
    }
    return {};
}

// An input may be bound to memory that the app cannot write to.
Status check_inputs_are_read_only(const Plan& plan) {
    std::vector<bool> given(plan.storages.size());
    for (uint32_t input : plan.inputs) given[plan.tensors[input].storage] = true;
    for (const PlanOp& op : plan.ops) {
        for (uint32_t output : op.outputs) {
            if (given[plan.tensors[output].storage]) return bad("an operator writes into an input");
        }
    }
    return {};
}

bool is_one_number(const Plan& plan, const PlanTensor& tensor) {
    const auto is_one = [&](uint32_t dim) { return plan.expressions[dim].kind == Expression::kConstant && plan.expressions[dim].a == 1; };
    return !tensor.constant && tensor.dtype == EW_S64 && std::all_of(tensor.dims.begin(), tensor.dims.end(), is_one);
}

// Which operator writes each count. What depends on it must come later: `since` is the last operator that an expression waits for.
Status find_counts(Plan* plan) {
    std::vector<int64_t> writer(plan->tensors.size(), -1), since(plan->expressions.size(), -1);
    for (size_t i = 0; i < plan->ops.size(); ++i) {
        for (uint32_t output : plan->ops[i].outputs) writer[output] = static_cast<int64_t>(i);
    }
    for (size_t i = 0; i < since.size(); ++i) {
        const Expression& expression = plan->expressions[i];
        if (expression.kind <= Expression::kSymbol) continue;
        const auto a = static_cast<size_t>(expression.a), b = static_cast<size_t>(expression.b);
        if (expression.kind != Expression::kCounted) {
            since[i] = std::max(since[a], since[b]);
            continue;
        }
        if (b >= plan->tensors.size() || !is_one_number(*plan, plan->tensors[b])) return bad("a count that is no number");
        if (writer[b] < 0) return bad("a count that no operator writes");
        since[i] = std::max(since[a], writer[b]);
        plan->counts.push_back({static_cast<uint32_t>(b), static_cast<uint32_t>(writer[b])});
    }
    if (plan->counts.empty()) return {};
    const auto latest = [&](const std::vector<uint32_t>& dims) {
        int64_t found = -1;
        for (uint32_t dim : dims) found = std::max(found, since[dim]);
        return found;
    };
    for (PlanTensor& tensor : plan->tensors) {
        tensor.counted = latest(tensor.dims) >= 0 || (!tensor.constant && since[tensor.offset] >= 0);
    }
    for (size_t i = 0; i < plan->ops.size(); ++i) {
        PlanOp& op = plan->ops[i];
        int64_t waits = -1;
        const auto touch = [&](size_t index) {
            const PlanTensor& tensor = plan->tensors[index];
            waits = std::max({waits, latest(tensor.dims), tensor.constant ? -1 : since[tensor.offset]});
        };
        for (int32_t input : op.inputs) {
            if (input >= 0) touch(static_cast<size_t>(input));
        }
        for (uint32_t output : op.outputs) touch(output);
        for (const Attribute& attribute : op.attributes.entries) waits = std::max(waits, latest(attribute.expressions));
        if (waits >= static_cast<int64_t>(i)) return bad("an operator needs a count that is not there yet");
        op.counted = waits >= 0;
    }
    return {};
}

}  // namespace

Status read_plan(const uint8_t* data, size_t bytes, Plan* plan) {
    Sections sections{};
    EW_TRY(read_header(data, bytes, plan, &sections));
    Reader reader(sections.plan, sections.plan_bytes);
    EW_TRY(read_expressions(reader, plan));
    for (uint32_t i = reader.count(4); i > 0; --i) plan->storages.push_back(reader.number<uint32_t>());
    for (uint32_t storage : plan->storages) {
        if (storage >= plan->expressions.size()) return bad("a storage's size is no expression");
    }
    plan->tensors.resize(reader.count(31));
    for (PlanTensor& tensor : plan->tensors) EW_TRY(read_tensor(reader, *plan, &tensor));
    for (uint32_t i = reader.count(4); i > 0; --i) plan->inputs.push_back(reader.number<uint32_t>());
    for (uint32_t i = reader.count(4); i > 0; --i) plan->outputs.push_back(reader.number<uint32_t>());
    EW_TRY(check_ports(*plan));
    const uint32_t ops = reader.count(20);
    if (ops > kMostOps) return bad("too many operators");
    plan->ops.resize(ops);
    for (PlanOp& op : plan->ops) EW_TRY(read_op(reader, *plan, &op));
    if (reader.failed()) return bad("the plan ends too early");
    if (reader.left() != 0) return bad("something follows the plan");
    EW_TRY(check_inputs_are_read_only(*plan));
    return find_counts(plan);
}

namespace {

// False when it overflows or divides by nothing.
bool compute(Expression::Kind kind, int64_t a, int64_t b, int64_t* value) {
    switch (kind) {
        case Expression::kAdd: return !__builtin_add_overflow(a, b, value);
        case Expression::kSubtract: return !__builtin_sub_overflow(a, b, value);
        case Expression::kMultiply: return !__builtin_mul_overflow(a, b, value);
        case Expression::kFloorDivide:
        case Expression::kCeilDivide:
            if (b <= 0) return false;
            *value = a / b;
            if (kind == Expression::kFloorDivide && a % b < 0) --*value;
            if (kind == Expression::kCeilDivide && a % b > 0) ++*value;
            return true;
        case Expression::kMinimum: *value = std::min(a, b); return true;
        case Expression::kMaximum: *value = std::max(a, b); return true;
        case Expression::kConstant:
        case Expression::kSymbol:
        case Expression::kCounted: break;  // are not computed
    }
    return false;
}

}  // namespace

Status evaluate(const Plan& plan, const std::vector<int64_t>& symbols, const std::vector<int64_t>& counts, std::vector<int64_t>* values) {
    values->resize(plan.expressions.size());
    size_t count = 0;
    for (size_t i = 0; i < plan.expressions.size(); ++i) {
        const Expression& expression = plan.expressions[i];
        const auto a = static_cast<size_t>(expression.a), b = static_cast<size_t>(expression.b);
        if (expression.kind == Expression::kConstant) {
            (*values)[i] = expression.a;
        } else if (expression.kind == Expression::kSymbol) {
            (*values)[i] = symbols[a];
        } else if (expression.kind == Expression::kCounted) {
            const int64_t most = (*values)[a], found = counts[count++];
            (*values)[i] = found < 0 ? most : std::min(found, most);
        } else if (!compute(expression.kind, (*values)[a], (*values)[b], &(*values)[i])) {
            return Status::fail(shape_error(plan), "a dim computed from the inputs' shapes is too large, or divided by nothing");
        }
    }
    return {};
}

}  // namespace ew
