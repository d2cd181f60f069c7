#include "cuda/attention_choice.h"

#include <fmt/format.h>

#include <cstdlib>
#include <string_view>

#include "core/check.h"

namespace dapo::cuda {

AttentionChoice::AttentionChoice(const cudaDeviceProp& properties) : arch_(properties.major * 10 + properties.minor) {
  const char* asked = std::getenv("DAPO_CUDA_ATTENTION");
  const std::string_view kind = asked == nullptr ? "auto" : asked;
  if (kind == "mma")
    use(Kind::mma);
  else if (kind == "wgmma")
    use(Kind::wgmma);
  else if (kind != "auto")
    fail_input("DAPO_CUDA_ATTENTION={}: mma, wgmma or auto", kind);
}

void AttentionChoice::use(Kind kind) {
  if (kind == Kind::wgmma && arch_ != 90)
    fail_input("DAPO_CUDA_ATTENTION=wgmma: wgmma is of sm_90, this is sm_{}; use auto", arch_);
  kind_ = kind;
}

bool AttentionChoice::wgmma(const AttentionDims& dims, int max_rows) const {
  if (kind_ == Kind::mma || !has_wgmma_attention(dims.head_dim)) return false;
  if (kind_ == Kind::wgmma) return true;
  const auto found = chosen_.find(key(dims));
  return found != chosen_.end() && found->second.wgmma && int64_t{max_rows} * key(dims).second >= kLeastRows;
}

bool AttentionChoice::open(const AttentionDims& dims) const {
  return kind_ == Kind::automatic && arch_ == 90 && has_wgmma_attention(dims.head_dim) && !chosen_.contains(key(dims));
}

void AttentionChoice::choose(const AttentionDims& dims, bool wgmma, const std::string& why) {
  chosen_[key(dims)] = {wgmma, why};
}

std::string AttentionChoice::describe() const {
  if (kind_ != Kind::automatic)
    return fmt::format("attention: {} (DAPO_CUDA_ATTENTION={})", kind_ == Kind::wgmma ? "wgmma" : "mma.sync",
                       kind_ == Kind::wgmma ? "wgmma" : "mma");
  std::string text;
  for (const auto& [heads, chosen] : chosen_)
    text += fmt::format("{}{} for heads of {}, {} a KV head ({})", text.empty() ? "attention: " : ", ",
                        chosen.wgmma ? "wgmma" : "mma.sync", heads.first, heads.second, chosen.why);
  return text;
}

}  // namespace dapo::cuda
