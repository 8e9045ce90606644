// Named values of an operator, as the engine file gives them.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace ew {

// Dims are expressions in the file; operators see their values as kInts.
enum class AttributeKind : uint8_t { kInt = 0, kFloat = 1, kString = 2, kInts = 3, kFloats = 4, kDims = 5 };

struct Attribute {
    std::string_view key;
    AttributeKind kind = AttributeKind::kInt;
    int64_t integer = 0;
    double real = 0;
    std::string_view text;
    std::vector<int64_t> integers;
    std::vector<double> reals;
    std::vector<uint32_t> expressions;  // of kDims: what `integers` are the values of
};

// Each getter gives the fallback when the key is absent or of another kind: operators check ranges, not presence.
class Attributes {
public:
    std::vector<Attribute> entries;

    const Attribute* find(std::string_view key, AttributeKind kind) const {
        for (const Attribute& entry : entries) {
            if (entry.key == key && entry.kind == kind) return &entry;
        }
        return nullptr;
    }
    int64_t integer(std::string_view key, int64_t fallback) const {
        const Attribute* found = find(key, AttributeKind::kInt);
        return found ? found->integer : fallback;
    }
    float real(std::string_view key, float fallback) const {
        const Attribute* found = find(key, AttributeKind::kFloat);
        return found ? static_cast<float>(found->real) : fallback;
    }
    std::string_view text(std::string_view key, std::string_view fallback) const {
        const Attribute* found = find(key, AttributeKind::kString);
        return found ? found->text : fallback;
    }
    const std::vector<int64_t>& integers(std::string_view key) const {
        static const std::vector<int64_t> kNone;
        const Attribute* found = find(key, AttributeKind::kInts);
        if (!found) found = find(key, AttributeKind::kDims);
        return found ? found->integers : kNone;
    }
    const std::vector<double>& reals(std::string_view key) const {
        static const std::vector<double> kNone;
        const Attribute* found = find(key, AttributeKind::kFloats);
        return found ? found->reals : kNone;
    }
};

}  // namespace ew
