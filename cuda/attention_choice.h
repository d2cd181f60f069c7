// Which kernels run attention in training and prefill: those on mma.sync (attention_kernel; dq_kernel and dkv_kernel) or
// those on wgmma. Both give a row the same bits, so the choice is one of speed, made for each pass.
#pragma once

#include <cuda_runtime.h>

#include <map>
#include <string>
#include <string_view>
#include <tuple>

#include "core/backend.h"

namespace dapo::cuda {

/// Head dimensions of the kernels on wgmma.
constexpr bool has_wgmma_attention(int head_dim) {
  return head_dim == 64 || head_dim == 128;
}

enum class AttentionPass : uint8_t { forward, backward };
enum class AttentionKernel : uint8_t { mma, wgmma, automatic };
constexpr std::string_view choices(AttentionKernel) {
  return "mma|wgmma|auto";
}

/// DAPO_CUDA_ATTENTION=mma|wgmma|auto decides. `automatic`: for each pass, head dimension and group the kernels that
/// CudaBackend::prepare_attention found to be faster; mma.sync where it was not asked, and for calls of so few rows that
/// a block of the others would be mostly empty.
class AttentionChoice {
 public:
  explicit AttentionChoice(const cudaDeviceProp& properties);
  /// Error (exit 2): `wgmma`, and the device is not sm_90.
  void use(AttentionKernel kind);
  AttentionKernel kind() const { return kind_; }
  bool on_hopper() const { return arch_ == 90; }
  /// Whether a call is run by wgmma; max_rows: new tokens of its longest sequence.
  bool wgmma(AttentionPass pass, const AttentionDims& dims, int max_rows) const;
  /// Whether prepare_attention has anything to compare for these heads.
  bool open(const AttentionDims& dims) const;
  /// The result of that comparison for a pass, and its reason for people.
  void choose(AttentionPass pass, const AttentionDims& dims, bool wgmma, const std::string& why);
  /// How attention runs, one line for people; "" where there is no choice.
  std::string describe() const;

 private:
  static constexpr int64_t kLeastRows = 128, kLeastKeys = 64;  ///< packed rows of a call; its keys in the backward pass
  using Key = std::tuple<AttentionPass, int, int>;
  static int group(const AttentionDims& d) { return d.heads / d.kv_heads; }
  int arch_;
  AttentionKernel kind_ = AttentionKernel::automatic;
  struct Chosen {
    bool wgmma;
    std::string why;
  };
  std::map<Key, Chosen> chosen_;  ///< by pass, head dimension and group
};

}  // namespace dapo::cuda
