#include "cuda/attention_choice.h"

#include <fmt/format.h>

#include "core/choices.h"

namespace dapo::cuda {

AttentionChoice::AttentionChoice(const cudaDeviceProp& properties) : arch_(properties.major * 10 + properties.minor) {
  use(environment_choice<AttentionKernel>("DAPO_CUDA_ATTENTION"));
}

void AttentionChoice::use(AttentionKernel kind) {
  if (kind == AttentionKernel::wgmma && !on_hopper())
    fail_input("DAPO_CUDA_ATTENTION=wgmma: wgmma is of sm_90, this is sm_{}; use auto", arch_);
  kind_ = kind;
}

bool AttentionChoice::wgmma(const AttentionDims& dims, int max_rows) const {
  if (kind_ == AttentionKernel::mma || !has_wgmma_attention(dims.head_dim)) return false;
  if (kind_ == AttentionKernel::wgmma) return true;
  const auto found = chosen_.find(key(dims));
  return found != chosen_.end() && found->second.wgmma && int64_t{max_rows} * key(dims).second >= kLeastRows;
}

bool AttentionChoice::open(const AttentionDims& dims) const {
  return kind_ == AttentionKernel::automatic && on_hopper() && has_wgmma_attention(dims.head_dim) &&
         !chosen_.contains(key(dims));
}

void AttentionChoice::choose(const AttentionDims& dims, bool wgmma, const std::string& why) {
  chosen_[key(dims)] = {wgmma, why};
}

std::string AttentionChoice::describe() const {
  if (kind_ != AttentionKernel::automatic)
    return fmt::format("attention: {} (DAPO_CUDA_ATTENTION={})", kind_ == AttentionKernel::wgmma ? "wgmma" : "mma.sync",
                       choice_name(kind_));
  std::string text;
  for (const auto& [heads, chosen] : chosen_)
    text += fmt::format("{}{} for heads of {}, {} a KV head ({})", text.empty() ? "attention: " : ", ",
                        chosen.wgmma ? "wgmma" : "mma.sync", heads.first, heads.second, chosen.why);
  return text;
}

}  // namespace dapo::cuda
