// Weights, masters and moments on disk, for checkpoints. Tensors have the names of the Hugging Face folder, so that a
// checkpoint does not depend on how a run lays them out.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "model/learner.h"

namespace dapo {

/// What a checkpoint holds of a learner. Read from the device while it is written, or, after copy_to_host(), from a
/// copy, so that training can go on meanwhile.
class TrainingState {
 public:
  explicit TrainingState(const Learner& learner);
  /// Of a copy: weights (T; of the first rank of a run without tensor parallelism only), and of this rank's shard the
  /// moments (f32) and remainders (i16, if T = bf16).
  size_t bytes() const;
  /// Error (exit 3) if the host has too little memory.
  void copy_to_host();

  const ModelConfig& config() const { return weights_.config(); }
  /// As Weights::save. May run in another thread once there is a copy. Not of tensor-parallel ranks (model/whole_model.h).
  void save_model(const std::string& folder) const;
  /// "moment1.NAME" and "moment2.NAME" F32, "remainder.NAME" I16: master = weight and remainder (core/dtype.h); of a
  /// tensor that several ranks share a rectangle, "moment1.NAME|r0:r1|c0:c1" (add_tensors). One file of this rank's
  /// shard: folder/optimizer.safetensors, or optimizer-0000i-of-0000N.safetensors of N ranks. Error (exit 3) if the disk
  /// refuses.
  void save_optimizer(const std::string& folder) const;

 private:
  struct Part {
    const char* prefix;
    Tensor device;
    std::unique_ptr<char[]> copy = nullptr;
  };
  ReadFlat reader(const Part& part, int64_t shift) const;

  const Weights& weights_;
  const int rank_, ranks_;  // of the whole grid
  const std::vector<ShardSlice> slices_;
  std::array<Part, 4> parts_;  // the first: the weights
};

/// Reads this rank's shard of what save_optimizer() wrote on any grid of ranks. Error (exit 2) names the tensor that is
/// missing, in part or whole, or has another shape.
void load_optimizer(const Learner& learner, const std::string& folder);

}  // namespace dapo
