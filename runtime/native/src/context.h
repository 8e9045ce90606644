// One inference at a time: buffers, prepared operators, threads.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "arena.h"
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
    Context(const Plan& plan, const ew_options& options);  // the plan must outlive it

    Status start();  // once, after construction: threads, operators, and shapes where none depends on an input
    Status set_input_shape(size_t index, const int64_t* dims, int32_t rank);
    Status output_shape(size_t index, int64_t* dims, int32_t* rank);
    Status write_input(size_t index, const void* data, size_t bytes);
    Status read_output(size_t index, void* data, size_t bytes);
    Status bind_input(size_t index, const void* data, size_t bytes) {
        return bind(plan_.inputs, index, const_cast<void*>(data), bytes);  // no operator writes into an input (read_plan)
    }
    Status bind_output(size_t index, void* data, size_t bytes) { return bind(plan_.outputs, index, data, bytes); }
    size_t inputs() const { return plan_.inputs.size(); }
    size_t outputs() const { return plan_.outputs.size(); }
    Status run();
    void observe(ew_observer observer, void* user) { observer_ = observer, user_ = user; }
    Status memory_use(ew_memory* memory);
    const std::vector<ew_profile_entry>& profile() const { return profile_; }

    mutable std::atomic_flag busy = ATOMIC_FLAG_INIT;

private:
    // The app's memory for an input or output; null: it lies in the arena.
    struct Bound {
        uint8_t* data = nullptr;
        size_t bytes = 0;
    };
    struct Step {
        std::unique_ptr<Operator> op;
        std::vector<Tensor*> inputs;
        std::vector<Tensor*> outputs;
        bool idle = false;   // with the present shapes every output is empty
        bool stale = false;  // a count has changed since it was prepared
        uint64_t scratch_bytes = 0;
        uint64_t placed_bytes = 0;  // of scratch, in the arena
        size_t scratch_offset = 0;  // in the arena

        bool gives_nothing() const;
    };

    Status bind(const std::vector<uint32_t>& ports, size_t index, void* data, size_t bytes);
    Status make_steps();
    Status bind_shapes();
    Status place_largest();
    Status place_all();
    Status resolve_symbols();
    Status place_tensors();
    Status place_tensor(const PlanTensor& from, Tensor* tensor);
    Status check_port_storages() const;
    Status prepare_steps();
    Status prepare_step(size_t index);
    Status prepare_again(size_t index);
    Status read_counts(size_t step);
    Status use_counts(size_t step);
    Status unless_ready(Status status);
    uint64_t room(uint32_t port) const;  // of an input or output: the most that it can be
    uint8_t* scratch(const Step& step) const;
    std::vector<Lifetime> lifetimes() const;  // of what offsets_ places
    Status place_memory();
    void set_pointers();
    Status check_inputs() const;
    Status check_bound() const;
    void tell(size_t step) const;

    const Plan& plan_;
    ew_options options_;
    std::unique_ptr<ThreadPool> pool_;
    std::vector<std::vector<int64_t>> shapes_;  // of the inputs, as the app set them; empty: not yet
    std::vector<int64_t> symbols_;     // what the shapes say
    std::vector<int64_t> counts_;      // that the last run has found; -1: none yet
    std::vector<int64_t> values_;      // of the expressions, for the present shapes and counts
    std::vector<int64_t> most_;        // of the expressions, while no count was known: what memory is placed for
    std::vector<Tensor> tensors_;
    std::vector<Attributes> attributes_;  // with the present values of dims
    std::vector<Step> steps_;
    std::vector<uint64_t> offsets_;    // of the storages in the arena, then of each step's scratch
    std::vector<Bound> bound_;         // per storage
    std::vector<bool> written_;        // per input: it has data in the arena
    AlignedBytes arena_;
    size_t arena_bytes_ = 0;
    bool bounded_ = false;             // every free dim has a bound, for which there is memory from the start
    AlignedBytes spare_;               // scratch of operators that need more for less than for the most
    uint64_t spare_bytes_ = 0;
    uint64_t least_arena_bytes_ = 0;
    bool ready_ = false;               // shapes are bound and memory is placed
    std::vector<ew_profile_entry> profile_;
    ew_observer observer_ = nullptr;
    void* user_ = nullptr;
};

}  // namespace ew
