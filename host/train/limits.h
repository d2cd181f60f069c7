// What a run asks of the model's memory, from the settings alone (and the machine's size): pure, so that a plan and a
// run agree.
#pragma once

#include "core/backend.h"
#include "host/train/packing.h"
#include "host/train/settings.h"
#include "model/learner.h"

namespace dapo {

/// Error (exit 2) where prompt and response together exceed the positions that the model was made for.
void check_positions(const ModelConfig& model, const std::string& folder, int64_t prompt, int64_t response);

/// Training: packs of ppo_max_token_len tokens (0: a whole mini-batch, at most 2,048 on a CPU and 16,384 on a GPU, less
/// where memory is short, never less than the longest sequence); max_num_seqs decode sequences; KV pages for all of
/// them at full length with prompts shared, cut to kv_memory_gb or to what memory leaves. Error where kv_memory_gb is
/// set and less than least_kv_gb.
ModelLimits training_limits(const Config& config, const ModelConfig& model, const Backend& backend);

/// GB (1e9 bytes) of the KV pages that are laid out.
double kv_gb(const ModelLimits& limits, const ModelConfig& model, const Backend& backend);

/// GB (1e9 bytes) of the KV pages of the longest prompt with the longest response.
double least_kv_gb(const Config& config, const ModelConfig& model, const Backend& backend);

/// How packs are filled. On a CPU, unless ppo_max_token_len says otherwise, groups join while their activations stay
/// within 256 MB (512 tokens at least), and a group of more than twice that is cut: a further pack costs one more pass
/// over the gradients, some 4 % of its time, and saves its size in memory.
PackLimits pack_limits(const Config& config, const Learner& learner);

/// Rollout only (`dapo eval`, `dapo generate`): `sequences` at once at most, none sharing a prompt.
ModelLimits generation_limits(const Config& config, const ModelConfig& model, const Backend& backend, int max_length,
                              int sequences);

/// Packs of config.sft.batch_size rows; no rollout.
ModelLimits sft_limits(const Config& config, const ModelConfig& model, const Backend& backend);

}  // namespace dapo
