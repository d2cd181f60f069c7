// DAPO's arithmetic (arXiv 2503.14476) as pure functions: advantages, shaping, filtering, loss weights, schedules. The
// loss of one token is in core/dapo_loss.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/dapo_loss.h"
#include "host/config.h"

namespace dapo {

/// A_i = (R_i - mean) / (std + 1e-6) with std over n - 1; without `by_std` R_i - mean (Dr. GRPO). A group of one keeps
/// its reward (mean 0, std 1), as verl has it. eq. 9.
std::vector<double> group_advantages(std::span<const double> rewards, bool by_std);

/// Soft overlong punishment, eq. 13: 0 up to max_length - buffer tokens, then linearly down to -factor at max_length
/// and beyond. `length` counts the end token.
double overlong_penalty(int length, int max_length, int buffer, double factor);

/// Dynamic sampling, eq. 11: 0 < #correct < G, on the verifier's verdicts before shaping.
bool mixed_group(std::span<const uint8_t> correct);

enum class LossAgg : uint8_t { token_mean, seq_mean_token_mean, seq_mean_token_sum, token_mean_per_micro_batch };
/// Error (exit 2) on another name than config.h lists.
LossAgg parse_loss_agg(const std::string& name);

/// What each token of a response is weighted with, so that the loss of a mini-batch is the weighted sum over tokens.
/// `tokens`: loss tokens of each response (0 where masked out), `micro_batch`: the pack that holds it (only
/// token_mean_per_micro_batch looks: the mean over packs of each pack's token mean). Responses without tokens count
/// nowhere. All zero where there is no token.
std::vector<double> loss_weights(LossAgg agg, std::span<const int> tokens, std::span<const int> micro_batch);

/// Learning rate of rollout step `step` (1 for the first): linear warm-up to `lr` over warmup steps (the first is
/// lr / warmup), then constant, or cosine or linear to 0 just after `total_steps`.
double learning_rate(const ActorSection& actor, int64_t step, int64_t total_steps);
/// The same for SFT: warm-up, then linear to 0 over the last `decay_fraction` of the steps (min of the two ramps).
double sft_learning_rate(const SftSection& sft, int64_t step);

/// Prompts to draw so that `need` groups are kept at this expected yield (share of groups kept), with a margin of one
/// standard deviation; at least need, at most 4 * batch.
int generation_size(int need, int batch, double yield);
/// The expected yield after a generation batch: the mean of all batches with weights halving every 2 x batch groups.
double update_yield(double yield, int kept, int generated, int batch);

/// Sums over the tokens of a step's updates.
struct LossStats {
  double loss = 0;  ///< weighted sum: the mini-batches' losses
  double entropy = 0, kl = 0;
  int64_t tokens = 0, low = 0, high = 0, dual = 0;
  float worst_mismatch = 0;      ///< max |old - new log-prob| over tokens that `exact` marks
  double worst_ratio_error = 0;  ///< max |exp(new - old) - 1| over the same
  bool finite = true;            ///< every log-prob, entropy and loss so far
};
/// Adds rows of a pack. `exact`: rows whose old log-probs were drawn by the present weights.
void add_loss_stats(LossStats& s, std::span<const float> log_prob, std::span<const float> old_log_prob,
                    std::span<const float> entropy, std::span<const float> loss, std::span<const float> weight,
                    std::span<const uint8_t> clip, std::span<const uint8_t> exact);

}  // namespace dapo
