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

bool AttentionChoice::wgmma(AttentionPass pass, const AttentionDims& dims, int max_rows) const {
  if (kind_ == AttentionKernel::mma || !has_wgmma_attention(dims.head_dim)) return false;
  if (kind_ == AttentionKernel::wgmma) return true;
  const auto found = chosen_.find({pass, dims.head_dim, group(dims)});
  if (found == chosen_.end() || !found->second.wgmma) return false;
  return int64_t{max_rows} * group(dims) >= kLeastRows && (pass == AttentionPass::forward || max_rows >= kLeastKeys);
}

bool AttentionChoice::open(const AttentionDims& dims) const {
  return kind_ == AttentionKernel::automatic && on_hopper() && has_wgmma_attention(dims.head_dim) &&
         !chosen_.contains({AttentionPass::forward, dims.head_dim, group(dims)});
}

void AttentionChoice::choose(AttentionPass pass, const AttentionDims& dims, bool wgmma, const std::string& why) {
  chosen_[{pass, dims.head_dim, group(dims)}] = {wgmma, why};
}

std::string AttentionChoice::describe() const {
  if (kind_ != AttentionKernel::automatic)
    return fmt::format("attention: {} (DAPO_CUDA_ATTENTION={})", kind_ == AttentionKernel::wgmma ? "wgmma" : "mma.sync",
                       choice_name(kind_));
  std::string text;
  const AttentionPass* last = nullptr;
  for (const auto& [key, chosen] : chosen_) {
    const auto& [pass, head_dim, heads] = key;
    const char* title = pass == AttentionPass::forward ? "attention: " : "; its backward pass: ";
    text += fmt::format("{}{} for heads of {}, {} a KV head ({})", last != nullptr && *last == pass ? ", " : title,
                        chosen.wgmma ? "wgmma" : "mma.sync", head_dim, heads, chosen.why);
    last = &pass;
  }
  return text;
}

}  // namespace dapo::cuda
