// How much memory a run reserves for the model: pure functions of the settings and of the machine's size, so that a
// plan and the run agree.
#pragma once

#include "core/backend.h"
#include "host/train/packing.h"
#include "host/train/settings.h"
#include "model/learner.h"

namespace dapo {

/// Share of the device's memory that a run reserves; the rest is for programs, tokenizer and system.
inline constexpr double kUsableMemory = 0.85;

/// Error (exit 2) if prompt and response together exceed the model's max_position.
void check_positions(const ModelConfig& model, const std::string& folder, int64_t prompt, int64_t response);

/// Training: packs of ppo_max_token_len tokens (0: a whole mini-batch, at most 2,048 on a CPU and 16,384 on a GPU, less
/// if memory is short, never less than the longest sequence); max_num_seqs decode sequences; KV pages for all of them
/// at full length with prompts shared, limited by kv_memory_gb or by the memory that is left. Error (exit 2) if
/// kv_memory_gb is set and less than least_kv_gb.
ModelLimits training_limits(const Config& config, const ModelConfig& model, const DeviceSize& device);

/// The rank of a tensor-parallel group of `tp` that needs the most memory, which a plan is for: heads and vocabulary may
/// not divide evenly.
TensorRank largest_rank(const ModelConfig& model, int tp);

/// Ranks of the run that share this device's memory: on a CPU all of them, while each has a GPU of its own.
int ranks_that_share(const Config& config, const DeviceSize& device);

/// GB (1e9 bytes) of the KV pages that a rank lays out.
double kv_gb(const ModelLimits& limits, const ModelConfig& model, const DeviceSize& device);

/// GB (1e9 bytes) of KV pages for the longest prompt with the longest response.
double least_kv_gb(const Config& config, const ModelConfig& model, const DeviceSize& device);

/// How packs are filled. On a CPU, unless ppo_max_token_len is set, groups share a pack while their activations stay
/// within 256 MB (but at least 512 tokens), and a group of more than twice that is split: another pack costs one more
/// pass over the gradients, some 4 % of its time, and saves memory.
PackLimits pack_limits(const Config& config, const Learner& learner);

/// Rollout alone (`dapo eval`, `dapo generate`): at most `sequences` at once, none sharing a prompt.
ModelLimits generation_limits(const Config& config, const ModelConfig& model, const DeviceSize& device, int max_length,
                              int sequences);

/// SFT: packs of config.sft.batch_size examples; no rollout.
ModelLimits sft_limits(const Config& config, const ModelConfig& model, const DeviceSize& device);

}  // namespace dapo
