// One inference at a time: buffers, prepared operators, threads.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "op.h"
#include "plan.h"
#include "pool.h"

namespace ew {

struct AlignedFree {
    void operator()(uint8_t* memory) const;
};
using AlignedBytes = std::unique_ptr<uint8_t, AlignedFree>;

// Null when there is no memory.
AlignedBytes allocate(size_t bytes);

class Context {
public:
    Context(const Plan& plan, const ew_options& options);

    Status start();  // once, after construction: threads, operators, and shapes where none depends on an input
    Status set_input_shape(size_t index, const int64_t* dims, int32_t rank);
    Status output_shape(size_t index, int64_t* dims, int32_t* rank);
    Status write_input(size_t index, const void* data, size_t bytes);
    Status read_output(size_t index, void* data, size_t bytes);
    Status bind_input(size_t index, const void* data, size_t bytes) {
        return bind(plan_.inputs, index, const_cast<void*>(data), bytes);  // operators do not write their inputs
    }
    Status bind_output(size_t index, void* data, size_t bytes) { return bind(plan_.outputs, index, data, bytes); }
    size_t inputs() const { return plan_.inputs.size(); }
    size_t outputs() const { return plan_.outputs.size(); }
    Status run();
    Status memory_use(ew_memory* memory);
    const std::vector<ew_profile_entry>& profile() const { return profile_; }

    std::atomic_flag busy = ATOMIC_FLAG_INIT;

private:
    struct Step {
        std::unique_ptr<Operator> op;
        std::vector<Tensor*> inputs;
        std::vector<Tensor*> outputs;
    };

    Status bind(const std::vector<uint32_t>& ports, size_t index, void* data, size_t bytes);
    Status make_steps();
    Status bind_shapes();
    Status place_tensors(const std::vector<int64_t>& values);
    Status prepare_steps(const std::vector<int64_t>& values);
    Status place_memory(const std::vector<int64_t>& values);
    void set_pointers();

    const Plan& plan_;
    ew_options options_;
    std::unique_ptr<ThreadPool> pool_;
    std::vector<int64_t> symbols_;     // -1 while no input has said
    std::vector<int64_t> values_;      // of the expressions, for the present shapes
    std::vector<Tensor> tensors_;
    std::vector<Attributes> attributes_;  // with the present values of dims
    std::vector<Step> steps_;
    std::vector<size_t> offsets_;      // of the storages in the arena
    std::vector<uint8_t*> bound_;      // per storage, the app's memory or null
    AlignedBytes arena_;
    size_t arena_bytes_ = 0;
    size_t scratch_offset_ = 0;
    bool ready_ = false;               // shapes are bound and memory is placed
    std::vector<ew_profile_entry> profile_;
};

}  // namespace ew
