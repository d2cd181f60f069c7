// The work of one step by phase, and the time it takes on a machine of given limits: pure functions, so that a plan can
// be made for a machine that is not here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "host/train/settings.h"
#include "model/memory_plan.h"

namespace dapo {

/// The most that a device multiplies and reads.
struct Ceilings {
  double flops = 0;             ///< FLOP/s of a large matrix product
  double bytes_per_second = 0;  ///< of memory
};

/// Parts of the ceilings that the program reaches: what separates the expected from the least time.
struct Shares {
  double products, attention;  ///< of flops, in passes over many tokens
  double memory;               ///< of bytes_per_second, in decode steps
  double update;               ///< of bytes_per_second, in AdamW
  double layer_seconds;        ///< of a decode step, for each layer besides its bytes: launches, short kernels
};
/// On a GPU fitted to bench/results/h200-2026-11-26.md (training, decode and AdamW at 0.5B, 1.5B and 7B); on a CPU from
/// the README's training share and decode steps of the same model.
Shares measured_shares(Device device, const ModelConfig& model);
/// Where these shares come from, and what else an expected time assumes, as a clause.
std::string_view shares_text(Device device);

struct PhaseCost {
  std::string name;
  double tokens = 0;
  double flops = 0;      ///< of products and attention
  double attention = 0;  ///< of `flops`, those of attention
  double bytes = 0;      ///< read and written at least: weights once a pass, keys and values, activations, state
  double bus_bytes = 0;  ///< each way between the GPU and the host's memory: state that lies there
  double passes = 0;     ///< calls that read the weights once: prefills, decode steps, packs; updates
  enum Kind : uint8_t { many_tokens, decode, update } kind = many_tokens;
};

/// What the responses of a step are taken to be.
struct StepShape {
  int prompt, response;  ///< tokens, of every prompt and on average of every response
  double drawn = 1;      ///< groups drawn for each group trained on; more than 1 with dynamic sampling
};

/// Prefill, decode, (old log-probs, reference log-probs,) forward and backward, update, of one step on one device.
std::vector<PhaseCost> step_costs(const Config& config, const ModelConfig& model, const ModelLimits& limits, DType t,
                                  const StepShape& shape);

/// The least time of a phase: its FLOPs or its bytes at the ceiling, whichever takes longer.
double least_seconds(const PhaseCost& cost, const Ceilings& ceilings);
/// At the shares that the program reaches.
double expected_seconds(const PhaseCost& cost, const Ceilings& ceilings, const Shares& shares, int layers);
/// What the longest response adds to the decode phase: it is still decoded, nearly alone, after the average one ended.
double tail_seconds(const Config& config, const ModelConfig& model, DType t, const StepShape& shape,
                    const Ceilings& ceilings, const Shares& shares);

/// The shapes that a plan computes with, since neither lengths nor yield are known before a run.
StepShape planned_shape(const Config& config, int response, bool drops);

/// Bytes of a checkpoint: weights in T, the remainders of their f32 masters (bf16 only), two f32 moments; the rest is
/// small.
double checkpoint_bytes(const ModelConfig& model, DType t);

}  // namespace dapo
