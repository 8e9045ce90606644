#include <cstring>

#include "../op.h"

namespace ew {

#define EW_OPERATOR(name, make) Operator* make();
#include "ops.inc"
#undef EW_OPERATOR

Operator* make_operator(const char* name, bool* known) {
    *known = true;
#define EW_OPERATOR(entry, make) \
    if (std::strcmp(name, #entry) == 0) return make();
#include "ops.inc"
#undef EW_OPERATOR
    *known = false;
    return nullptr;
}

}  // namespace ew
