#include "host/train/limits.h"

#include <algorithm>

#include "core/sizes.h"

namespace dapo {
namespace {

/// Most tokens of a pack unless actor.ppo_max_token_len sets it: enough to multiply at the full rate.
int64_t most_pack_tokens(const DeviceSize& device) {
  return device.device == Device::cpu ? 2048 : 16384;
}

double budget(const DeviceSize& device) {
  return kUsableMemory * device.total;
}

/// A CPU multiplies 512 rows at the full rate; more would only keep an interrupt waiting.
int prefill_tokens(const Config& c, const DeviceSize& device) {
  const int automatic = device.device == Device::cpu ? 512 : 4096;
  return c.rollout.max_num_batched_tokens > 0 ? c.rollout.max_num_batched_tokens : automatic;
}

int decode_steps(const Config& c, const DeviceSize& device) {
  return c.rollout.collect_every > 0 ? c.rollout.collect_every : device.device == Device::cpu ? 1 : 16;
}

void set_packs(ModelLimits& l, const ModelConfig& model, const DeviceSize& device, const ModelSection& keeps,
               int64_t wanted, int64_t longest, bool fixed) {
  l.train = true;
  l.recompute = keeps.recompute;
  l.offload_optimizer = keeps.offload_optimizer && device.device != Device::cpu;
  const auto set = [&](int64_t tokens) { l.pack_tokens = l.pack_segments = l.pack_head_rows = tokens; };
  set(std::max(wanted, longest));
  while (!fixed && l.pack_tokens > longest && plan_memory(device, model, l).total() > budget(device))
    set(std::max(longest, l.pack_tokens / 2));
}

double page_bytes(const ModelConfig& whole, const DeviceSize& device, int page_size, const TensorRank& at) {
  const ModelConfig model = local_config(whole, at);
  return 2.0 * model.layers * model.kv_heads * model.head_dim * page_size * dtype_size(device.dtype);
}

/// `least`: pages of the longest sequence.
void set_pages(ModelLimits& l, const ModelConfig& model, const DeviceSize& device, double kv_memory_gb, int64_t wanted,
               int64_t least) {
  const double page = page_bytes(model, device, l.page_size, l.tensor);
  l.kv_pages = 0;
  double bytes = kv_memory_gb * 1e9;
  const auto fit = [page](double b) -> int64_t { return b / page + 1e-6; };
  if (bytes > 0 && fit(bytes) < least) {
    fail_input(
        "rollout.kv_memory_gb = {}: the longest sequence needs {} pages of {} tokens, {:.3g} GB: raise it (0: what "
        "memory leaves)",
        kv_memory_gb, least, l.page_size, page * least / 1e9);
  } else if (bytes <= 0) {
    // pages and the activations of a pack take turns in one arena: pages of the same size cost nothing
    const MemoryPlan p = plan_memory(device, model, l);
    bytes = budget(device) - (p.weights + p.reference + p.state + p.workspace);
  }
  l.kv_pages = std::max(least, std::min(wanted, fit(bytes)));
}

int64_t pages_for(int64_t tokens, int page_size) {
  return ceil_div(tokens, page_size);
}
/// Prompt and response have pages of their own, since prompts are shared.
int64_t least_pages(const Config& c) {
  return pages_for(c.data.max_prompt_length, c.rollout.page_size) +
         pages_for(c.data.max_response_length, c.rollout.page_size);
}

}  // namespace

int ranks_that_share(const Config& c, const DeviceSize& device) {
  return device.device == Device::cpu ? c.parallel.ranks() : 1;
}

TensorRank largest_rank(const ModelConfig& model, int tp) {
  TensorRank largest{tp, 0};
  const auto size = [&](const TensorRank& at) {
    return std::pair(local_config(model, at).kv_heads, parameter_table(model, at).size);
  };
  for (int r = 1; r < tp; ++r)
    if (size({tp, r}) > size(largest)) largest.rank = r;
  return largest;
}

double kv_gb(const ModelLimits& limits, const ModelConfig& model, const DeviceSize& device) {
  return page_bytes(model, device, limits.page_size, limits.tensor) * static_cast<double>(limits.kv_pages) / 1e9;
}

double least_kv_gb(const Config& c, const ModelConfig& model, const DeviceSize& device) {
  return page_bytes(model, device, c.rollout.page_size, largest_rank(model, c.parallel.of_a_copy())) * least_pages(c) /
         1e9;
}

void check_positions(const ModelConfig& model, const std::string& folder, int64_t prompt, int64_t response) {
  if (prompt + response > model.max_position)
    fail_input(
        "{} prompt tokens + {} new ones exceed the {} positions of {}: lower data.max_prompt_length or "
        "data.max_response_length",
        prompt, response, model.max_position, folder);
}

ModelLimits training_limits(const Config& c, const ModelConfig& model, const DeviceSize& whole) {
  DeviceSize device = whole;
  device.total /= ranks_that_share(c, whole);
  ModelLimits l;
  l.data_ranks = c.parallel.copies();
  l.zero_stage = c.parallel.zero_stage;
  l.reduce_dtype = c.parallel.reduce_dtype == ReduceDType::bf16 ? DType::bf16 : DType::f32;
  l.overlap = c.parallel.overlap;
  l.tensor = largest_rank(model, c.parallel.of_a_copy());
  const int64_t prompt = c.data.max_prompt_length, response = c.data.max_response_length;
  const int64_t longest = prompt + response;
  l.max_length = longest;
  const int64_t mini_batch = c.actor.ppo_mini_batch_size * (prompt + c.rollout.n * response);
  const bool fixed = c.actor.ppo_max_token_len > 0;
  l.reference = c.actor.kl_loss_coef > 0;
  l.page_size = c.rollout.page_size;
  l.batch = std::max(c.rollout.max_num_seqs, c.rollout.n);
  l.decode_steps = decode_steps(c, device);
  l.prefill_tokens = prefill_tokens(c, device);
  set_packs(l, model, device, c.model,
            fixed ? c.actor.ppo_max_token_len : std::min(mini_batch, most_pack_tokens(device)), longest, fixed);
  const int64_t groups = ceil_div(l.batch, c.rollout.n) + 1;
  const int64_t wanted = l.batch * pages_for(response, l.page_size) + groups * pages_for(prompt, l.page_size);
  set_pages(l, model, device, c.rollout.kv_memory_gb, wanted, least_pages(c));
  return l;
}

PackLimits pack_limits(const Config& c, const Learner& learner) {
  const ModelConfig& m = learner.config();
  const ModelLimits& l = learner.limits();
  const Backend& backend = learner.backend();
  PackLimits out{l.pack_tokens, l.pack_segments};
  out.pair_cost = 1.0 / (6.0 * m.hidden);  // 4 C operations a pair and layer, against some 24 C^2 a token
  if (backend.device() != Device::cpu || c.actor.ppo_max_token_len > 0) return out;
  // What a layer keeps for each token: two residuals in f32 (with recompute its input alone), the rest in T.
  const int64_t kept = l.recompute ? 0 : m.attention().qkv_width() + m.attention().q_width() + 2 * int64_t{m.ffn};
  const int64_t size = dtype_size(backend.dtype()), token = m.layers * ((l.recompute ? 4 : 8) * m.hidden + kept * size);
  constexpr int64_t kBytes = 256'000'000, kFewest = 512;
  out.wanted = std::max(kFewest, kBytes / token);
  return out;
}

ModelLimits generation_limits(const Config& c, const ModelConfig& model, const DeviceSize& device, int max_length,
                              int sequences) {
  ModelLimits l;
  l.max_length = max_length;
  l.batch = std::max(1, std::min(c.rollout.max_num_seqs, sequences));
  l.decode_steps = decode_steps(c, device);
  l.prefill_tokens = prefill_tokens(c, device);
  l.page_size = c.rollout.page_size;
  const int64_t pages = pages_for(max_length, l.page_size) + 1;  // prompt and response each have a last page
  set_pages(l, model, device, c.rollout.kv_memory_gb, l.batch * pages, pages);
  return l;
}

ModelLimits sft_limits(const Config& c, const ModelConfig& model, const DeviceSize& device) {
  ModelLimits l;
  const int64_t longest = int64_t{c.data.max_prompt_length} + c.data.max_response_length;
  const bool fixed = c.actor.ppo_max_token_len > 0;
  l.max_length = longest;
  set_packs(l, model, device, c.model,
            fixed ? c.actor.ppo_max_token_len : std::min(c.sft.batch_size * longest, most_pack_tokens(device)), longest,
            fixed);
  return l;
}

}  // namespace dapo
