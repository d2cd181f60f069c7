// The device memory that passes over a model's weights need beside these.
#pragma once

#include "model/buffers.h"
#include "model/owned_block.h"
#include "model/weights.h"

namespace dapo {

/// Allocated once, for the largest calls; nothing is allocated inside a step. `state`: the rank's shard of moments and
/// of the remainders of the f32 masters (training only), on the device or in pinned memory of the host. `shared`: the Decoder's KV pages and activations, or the
/// Learner's gradients and activations, in turn. `workspace`: constants, and scratch of the ops above them.
class ModelMemory {
 public:
  /// Error (exit 3), with the bytes of each piece, if the device has too little memory.
  /// `data_parallel`: the limits.data_ranks ranks that train the same weights; null: this one alone.
  ModelMemory(Weights& weights, const ModelLimits& limits, Comm* data_parallel = nullptr);
  ModelMemory(const ModelMemory&) = delete;
  ModelMemory& operator=(const ModelMemory&) = delete;

  Weights& weights() const { return weights_; }
  Backend& backend() const { return weights_.backend(); }
  const ModelLimits& limits() const { return limits_; }
  const MemoryPlan& plan() const { return plan_; }
  Comm* data_parallel() const { return data_parallel_; }
  const Shards& shards() const { return shards_; }
  int data_rank() const { return data_parallel_ != nullptr ? data_parallel_->rank() : 0; }
  const StateBuffers& state() const { return state_buffers_; }  ///< empty tensors unless limits().train
  const ConstantBuffers& constants() const { return constants_; }

  /// The shared arena for `holder` alone; the previous holder loses what it kept there.
  Arena give_shared(const void* holder);
  bool held_by(const void* holder) const { return holder_ == holder; }
  /// A writer of a call's inputs to `device`, memory in the shared arena.
  StagedInputs staged_inputs(const Tensor& device) const { return {backend(), device, pinned_.data()}; }
  /// Makes the workspace that of the backend's ops.
  void use_workspace() { backend().set_workspace(&workspace_arena_); }

 private:
  Weights& weights_;
  const ModelLimits limits_;
  Comm* const data_parallel_;
  const Shards shards_;
  const MemoryPlan plan_;
  const OwnedBlock state_, shared_, workspace_;
  Arena workspace_arena_;
  StateBuffers state_buffers_;
  ConstantBuffers constants_;
  const OwnedBlock pinned_;  // host twin of the device's inputs
  const void* holder_ = nullptr;
};

}  // namespace dapo
