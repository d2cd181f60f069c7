// The weights of a model on its device, and the ways in and out: a Hugging Face folder, or a random start.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/comm.h"
#include "core/safetensors.h"
#include "model/config.h"
#include "model/owned_block.h"
#include "model/params.h"

namespace dapo {

class Weights {
 public:
  /// Allocates this rank's part; values are unspecified until load() or init(). Splits the backend's vocabulary over the
  /// ranks of `tensor_parallel`. Error (exit 2) if the model cannot be split over so many ranks, (exit 3) if the device
  /// has too little memory.
  Weights(Backend& backend, Comm& tensor_parallel, const ModelConfig& config);
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  Backend& backend() const { return backend_; }
  Comm& tensor_parallel() const { return tensor_parallel_; }
  const ModelConfig& config() const { return config_; }  ///< of the whole model
  TensorRank tensor_rank() const { return {tensor_parallel_.size(), tensor_parallel_.rank()}; }
  const ModelConfig& local() const { return local_; }  ///< what this rank has of it
  const ParamTable& params() const { return params_; }

  /// T[params().size]: all parameters in table order.
  Tensor flat() const { return flat_; }
  /// Parameter `index` of the table, T[rows, columns] or T[rows].
  Tensor view(int index) const { return params_.view(flat_, index); }

  /// Reads safetensors, sharded or not, straight into the weights, and converts them to T. The tensors must have the
  /// names and shapes of the table; a tied head may be absent. Error (exit 2) names file, tensor, expected and actual
  /// shape. Returns one line about what differs from a folder that transformers saves (ignored tensors, a prefix of
  /// their names), or "".
  std::string load(const std::string& folder);
  /// Matrices ~ Normal(0, std), biases 0, norms 1. Each element is a pure function of (seed, parameter, index).
  void init(uint64_t seed, float std);
  /// Writes model.safetensors (above 5 GB: shards and their index), config.json and generation_config.json; weights as
  /// T. Error (exit 3) if the disk refuses. One tensor-parallel rank only.
  void save(const std::string& folder, const ShardFiles& files = {}) const;

 private:
  Backend& backend_;
  Comm& tensor_parallel_;
  const ModelConfig config_, local_;
  const ParamTable params_;
  const OwnedBlock block_;
  const Tensor flat_;
};

/// Copies elements [first, first + count) of a flat buffer to host memory.
using ReadFlat = std::function<void(int64_t first, int64_t count, void* to)>;
/// Adds the tensors of a flat buffer, by the names of the Hugging Face folder with `prefix` before them: those rows that
/// lie in its elements [begin, end). A tensor of which only rows [r0, r1) do is named NAME|r0:r1; one of which this rank
/// has columns [c0, c1) alone NAME|r0:r1|c0:c1. What several tensor-parallel ranks hold is added on the first of them.
void add_tensors(std::vector<TensorToWrite>& out, const ParamTable& params, const std::string& prefix, DType dtype,
                 int64_t begin, int64_t end, const ReadFlat& read);

}  // namespace dapo
