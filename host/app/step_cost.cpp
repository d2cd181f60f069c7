#include "host/app/step_cost.h"

#include <algorithm>
#include <cmath>

#include "core/sizes.h"

namespace dapo {
namespace {

/// A step with dynamic sampling is expected to keep half of the groups that it draws.
constexpr double kDrawnPerKept = 2;

/// Bytes of the weights that a forward pass reads: an embedding that is not the head is read by the row.
double weight_bytes(const ModelConfig& m, DType t) {
  const double embedding = m.tied ? 0 : double{1} * m.vocab * m.hidden;
  return (static_cast<double>(m.parameters()) - embedding) * static_cast<double>(dtype_size(t));
}

double kv_bytes_per_token(const ModelConfig& m, DType t) {
  return 2.0 * m.layers * static_cast<double>(m.attention().kv_width()) * static_cast<double>(dtype_size(t));
}

/// Activations of a token in all layers: residual stream in f32, the rest in T.
double activation_bytes(const ModelConfig& m, DType t) {
  const AttentionDims a = m.attention();
  const double in_t = static_cast<double>(a.qkv_width() + a.q_width()) + 3.0 * m.ffn + 2.0 * m.hidden;
  return m.layers * (8.0 * m.hidden + in_t * static_cast<double>(dtype_size(t)));
}

double attention_flops(const ModelConfig& m, double pairs) {
  return m.forward_flops(0, pairs, 0);
}

/// Sequences that decode together: as many as the batch, and the KV pages at the average length, allow.
double sequences_together(const Config& c, const ModelLimits& limits, double responses, const StepShape& shape) {
  const double each = double{1} * shape.prompt / c.rollout.n + 0.5 * shape.response;
  const double held = static_cast<double>(limits.kv_pages) * limits.page_size / std::max(1.0, each);
  return std::max(1.0, std::min({responses, static_cast<double>(limits.batch), held}));
}

}  // namespace

Shares measured_shares(Device device, const ModelConfig& model) {
  // CPU: training at 80 % of the product's rate (README); decode is a guess between that and what short rows cost.
  if (device == Device::cpu) return {0.8, 0.5, 0.6, 0.6, 0};
  // GPU, from the two training lengths and three decode batches of each model: a token's time is its products at the
  // first share and its attention at the second; a decode step's is its bytes plus so much for each layer.
  return {model.hidden < 1024 ? 0.61 : 0.74, 0.24, 0.69, 0.91, 53e-6};
}

std::string_view shares_text(Device device) {
  if (device == Device::cpu)
    return "expected: 80 % of products in training (measured at 0.5B, README), 60 % of memory in decode (assumed); "
           "half of "
           "the groups kept, one response of full length";
  return "expected: what training, decode and AdamW reached on an H200 (bench/results); half of the groups kept, one "
         "response of full length";
}

std::vector<PhaseCost> step_costs(const Config& c, const ModelConfig& m, const ModelLimits& limits, DType t,
                                  const StepShape& shape) {
  const double P = shape.prompt, R = shape.response, n = c.rollout.n, groups = c.data.train_batch_size;
  const double weights = weight_bytes(m, t), kv = kv_bytes_per_token(m, t), parameters = double(m.parameters());
  const double prompt_pairs = P * (P + 1) / 2;

  const double drawn = groups * shape.drawn, responses = drawn * n;
  PhaseCost prefill{.name = "prefill", .tokens = drawn * P};
  prefill.passes = std::max(1.0, std::ceil(prefill.tokens / std::max(1, limits.prefill_tokens)));
  prefill.attention = attention_flops(m, drawn * prompt_pairs);
  prefill.flops = m.forward_flops(prefill.tokens, drawn * prompt_pairs, responses);
  prefill.bytes = prefill.passes * weights + prefill.tokens * (kv + activation_bytes(m, t));

  // The prefill draws the first token. A prompt that sequences share is counted as read once a step.
  const double steps_each = R - 1, together = sequences_together(c, limits, responses, shape);
  PhaseCost decode{.name = "decode", .tokens = responses * steps_each, .kind = PhaseCost::decode};
  const double decode_pairs = responses * (steps_each * P + R * steps_each / 2);
  decode.passes = responses * steps_each / together;
  decode.attention = attention_flops(m, decode_pairs);
  decode.flops = m.forward_flops(decode.tokens, decode_pairs, decode.tokens);
  decode.bytes = decode.passes * weights + kv * responses * steps_each * (P / n + R / 2);

  const double epochs = c.actor.ppo_epochs, updates = groups / std::max(1, c.actor.ppo_mini_batch_size) * epochs;
  const double rows = groups * (P + n * R), pairs = groups * (prompt_pairs + n * (R * P + R * (R + 1) / 2));
  const double packs = std::max(updates, std::ceil(rows * epochs / std::max<double>(1, limits.pack_tokens)));
  const double forward = m.forward_flops(rows, pairs, groups * n * R);
  const double passes = limits.recompute ? 4 : 3;  // forward, backward twice a forward, once more if recomputed
  PhaseCost train{.name = "forward, backward", .tokens = rows * epochs, .flops = passes * forward * epochs};
  train.attention = passes * attention_flops(m, pairs) * epochs;
  train.passes = packs;
  train.bytes = packs * ((passes - 1) * weights + 8 * parameters) + 3 * train.tokens * activation_bytes(m, t);

  // AdamW reads and writes master (16 + 16 bits, or f32), two moments and gradient; the norm reads the gradient.
  PhaseCost update{.name = "update", .tokens = 0, .kind = PhaseCost::update};
  update.passes = updates;
  update.bytes = updates * parameters * (4 + 2 * 16);
  if (limits.offload_optimizer) {  // moments and remainders, or moments alone
    const double state = t == DType::bf16 ? 10 : 8;
    update.bus_bytes = updates * parameters * state;
    update.bytes -= 2 * update.bus_bytes;
  }

  std::vector<PhaseCost> out = {prefill, decode};
  const auto add_forward_pass = [&](const char* name) {
    PhaseCost scored{.name = name, .tokens = rows, .flops = forward};
    scored.attention = attention_flops(m, pairs);
    scored.passes = std::ceil(rows / std::max<double>(1, limits.pack_tokens));
    scored.bytes = scored.passes * weights + rows * activation_bytes(m, t);
    out.push_back(scored);
  };
  if (c.actor.old_logprobs == OldLogProbs::recompute) add_forward_pass("old log-probs");
  if (c.actor.kl_loss_coef > 0) add_forward_pass("reference log-probs");
  if (c.actor.policy_loss == LossKind::gspo)  // its logits are made twice
    train.flops += m.forward_flops(0, 0, groups * n * R) * epochs;
  out.insert(out.end(), {train, update});
  return out;
}

namespace {
/// Bytes per second each way, both at once: PCIe 5.0 x16 as copies reach it.
constexpr double kBus = 50e9;
}  // namespace

double least_seconds(const PhaseCost& cost, const Ceilings& ceilings) {
  return std::max({cost.flops / ceilings.flops, cost.bytes / ceilings.bytes_per_second, cost.bus_bytes / kBus});
}

double expected_seconds(const PhaseCost& cost, const Ceilings& ceilings, const Shares& shares, int layers) {
  const double products = (cost.flops - cost.attention) / (ceilings.flops * shares.products);
  switch (cost.kind) {
    case PhaseCost::update:
      return std::max(cost.bytes / (ceilings.bytes_per_second * shares.update), cost.bus_bytes / kBus);
    case PhaseCost::decode:  // attention of a decode step is bound by its bytes
      return std::max(products, cost.bytes / (ceilings.bytes_per_second * shares.memory)) +
             cost.passes * layers * shares.layer_seconds;
    case PhaseCost::many_tokens:
      break;
  }
  return std::max(products + cost.attention / (ceilings.flops * shares.attention),
                  cost.bytes / ceilings.bytes_per_second);
}

double tail_seconds(const Config& config, const ModelConfig& model, DType t, const StepShape& shape,
                    const Ceilings& ceilings, const Shares& shares) {
  const double steps = std::max(0, config.data.max_response_length - shape.response);
  return steps *
         (weight_bytes(model, t) / (ceilings.bytes_per_second * shares.memory) + model.layers * shares.layer_seconds);
}

StepShape planned_shape(const Config& config, int response, bool drops) {
  return {std::min(256, config.data.max_prompt_length), response,
          drops && config.algorithm.filter_groups ? kDrawnPerKept : 1};
}

double checkpoint_bytes(const ModelConfig& model, DType t) {
  return static_cast<double>(model.parameters()) * ((t == DType::bf16 ? 2 + 2 : 4) + 2 * 4);
}

}  // namespace dapo
