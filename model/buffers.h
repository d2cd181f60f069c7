// What the passes hold in the shared arena, laid out by the very code that a plan measures with.
#pragma once

#include <cstring>
#include <span>
#include <vector>

#include "core/backend.h"
#include "model/model.h"

namespace dapo {

/// What the forward of one layer reads and writes; N rows each. x_in is the residual stream that enters the first norm,
/// x_mid the one that enters the second, both f32; they may be one buffer where nothing is kept for backward.
struct LayerBuffers {
  Tensor x_in, rstd1, h, qkv, att, lse, x_mid, rstd2, gate_up, act, delta;
  LayerBuffers first(int64_t n) const;
};

/// The R rows that need the head: gathered residual (f32) and delta, the final norm's output.
struct HeadBuffers {
  Tensor x, delta, h, rstd;
  HeadBuffers first(int64_t n) const;
};

/// A call's small inputs: copied to pinned host memory and from there to the device, piece by piece, always at the same
/// addresses for the same sizes. A call blocks before the next one resets.
class Inputs {
 public:
  Inputs() = default;
  Inputs(Backend& backend, const Tensor& device, void* host)
      : backend_(&backend), device_(device), host_(static_cast<char*>(host)) {}
  static constexpr size_t piece(size_t bytes) { return (bytes + Arena::kAlign - 1) / Arena::kAlign * Arena::kAlign; }

  void reset() { used_ = 0; }
  /// A device copy, [n]; never empty, not even for n = 0.
  template <class T>
  Tensor put(std::span<const T> values) {
    const size_t bytes = values.size_bytes();
    CHECK_LE(used_ + piece(bytes), device_.bytes(), "inputs of a call");
    Tensor t(static_cast<char*>(device_.data) + used_, dtype_of<T>::value, {static_cast<int64_t>(values.size())});
    if (bytes > 0) {
      std::memcpy(host_ + used_, values.data(), bytes);
      backend_->copy_in(t, host_ + used_);
    }
    used_ += piece(bytes);
    return t;
  }
  template <class T>
  Tensor put(const std::vector<T>& values) {
    return put(std::span<const T>(values));
  }

 private:
  Backend* backend_ = nullptr;
  Tensor device_;
  char* host_ = nullptr;
  size_t used_ = 0;
};

/// Pages of KV, [layers * pages, 2, K, page_size, D], and the rows of one prefill or decode call.
struct RolloutBuffers {
  Tensor cache;
  LayerBuffers layer;
  HeadBuffers head;
  Tensor tokens, log_prob;            ///< [batch]: of one step
  Tensor step_tokens, step_log_prob;  ///< [decode_steps * batch]
  Tensor inputs;                      ///< u8
};
RolloutBuffers lay_rollout(Arena& arena, const ModelConfig& config, const ModelLimits& limits, DType dtype);

/// A pack's activations (one LayerBuffers a layer; they share what backward makes anew), and backward's gradients.
struct UpdateBuffers {
  std::vector<LayerBuffers> layers;
  HeadBuffers head;
  Tensor dx;                             ///< gradient of the residual stream, [N, C]
  Tensor dact, datt, dqkv;               ///< inside one layer; dh lies in LayerBuffers::delta
  Tensor log_prob, entropy, loss, clip;  ///< [R]
  Tensor inputs;                         ///< u8
};
UpdateBuffers lay_update(Arena& arena, const ModelConfig& config, const ModelLimits& limits, DType dtype);

/// fp32 gradients and moments, the masters' remainders (bf16).
struct StateBuffers {
  Tensor gradients, moment1, moment2, remainders;
};
StateBuffers lay_state(Arena& arena, const ParamTable& params, DType dtype);

/// What stays at the bottom of the workspace; the ops' scratch lies above.
struct ConstantBuffers {
  Tensor rope;   ///< f32[max_length, D]
  Tensor norm2;  ///< f64[1]
};
ConstantBuffers lay_constants(Arena& arena, const ModelConfig& config, const ModelLimits& limits);
WorkspaceNeeds workspace_needs(const ModelConfig& config, const ModelLimits& limits);

/// Most pages that one sequence can have.
int64_t max_pages(const ModelLimits& limits);

}  // namespace dapo
