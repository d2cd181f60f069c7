// The arithmetic of DAPO (arXiv 2503.14476) and of the objectives beside it as pure functions: advantages, shaping,
// filtering, loss weights, schedules. The losses of one token are in core/dapo_loss.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/dapo_loss.h"
#include "host/train/settings.h"

namespace dapo {

/// Eq. 9: A_i = (R_i - mean) / (std + 1e-6), std over n - 1; without `by_std` R_i - mean (Dr. GRPO). A group of one
/// keeps its reward (mean 0, std 1), as in verl.
std::vector<double> group_advantages(std::span<const double> rewards, bool by_std);

/// Leave-one-out baseline (RLOO, arXiv 2402.14740, eq. 8): A_i = R_i - mean of the others' rewards. A group of one keeps
/// its reward, as in verl.
std::vector<double> leave_one_out_advantages(std::span<const double> rewards);

/// REINFORCE++ (arXiv 2501.03262, eq. 9): a response's advantage less the mean over all tokens of the batch, divided by
/// their standard deviation (sqrt(var + 1e-8), var over n - 1). `tokens` of each response.
void normalize_over_tokens(std::span<double> advantages, std::span<const int> tokens);

/// Advantages of a step's responses from their rewards, group after group of `group` responses.
std::vector<double> step_advantages(const AlgorithmSection& algorithm, std::span<const double> rewards,
                                    std::span<const int> tokens, int group);

/// The loss of a token by the settings.
DapoLoss loss_of(const ActorSection& actor);

/// Soft overlong punishment, eq. 13: 0 up to max_length - buffer tokens, then linearly down to -factor at max_length
/// and beyond. `length` counts the end id.
double overlong_penalty(int length, int max_length, int buffer, double factor);

/// Dynamic sampling, eq. 11: 0 < #correct < G, by the verifier's verdicts before shaping.
bool mixed_group(std::span<const uint8_t> correct);

/// Weight of each token of a response; the loss of a mini-batch is the weighted sum over its tokens. `tokens`: loss
/// tokens of each response, 0 if it is masked. All weights are 0 if there is no token.
///   token_mean                  1 / tokens of the mini-batch (DAPO, eq. 12)
///   seq_mean_token_mean         1 / (responses with tokens x tokens of the response) (GRPO)
///   seq_mean_token_sum          1 / responses with tokens
///   seq_mean_token_sum_norm     1 / (responses x max_length), masked ones counted (Dr. GRPO, arXiv 2503.20783, eq. 2)
///   token_mean_per_micro_batch  responses of the pack / (responses x tokens of the pack), masked ones counted, as in
///                               verl 4f80e465 (dp_actor.py, update_policy); `micro_batch`: pack of each response
std::vector<double> loss_weights(LossAgg agg, std::span<const int> tokens, std::span<const int> micro_batch,
                                 int max_length = 0);

/// Learning rate of rollout step `step` (1 for the first): linear warm-up to `lr` over warmup steps (the first is
/// lr / warmup), then constant, or cosine or linear to 0 just after `total_steps`.
double learning_rate(const ActorSection& actor, int64_t step, int64_t total_steps);
/// The same for SFT: warm-up, then linear to 0 over the last `decay_fraction` of the steps (min of the two ramps).
double sft_learning_rate(const SftSection& sft, int64_t step);

/// Expected yield: the share of drawn groups that are kept, over past generation batches, whose counts halve with every
/// 2 x batch groups.
struct YieldEstimate {
  double kept = 0, weight = 0;                                     ///< groups kept, groups drawn
  double value() const { return weight > 0 ? kept / weight : 1; }  ///< 1 before the first batch
};
void add_batch(YieldEstimate& estimate, int kept, int generated, int batch);
/// Prompts to draw so that `need` groups are kept, with a margin of two standard deviations (of the binomial, and of
/// the estimate itself). At least `need`, and batch / 8, since each generation batch waits for its longest response; at
/// most four times the batch or the estimate's weight, whichever is larger. `need` before the first batch.
int generation_size(int need, int batch, const YieldEstimate& yield);
/// Most prompts that one step may draw. verl limits generation batches, of 3 x batch prompts in the paper's recipe;
/// ours vary in size.
int64_t prompt_limit(const AlgorithmSection& algorithm, const DataSection& data);
/// Whether finished groups beyond the batch are kept for the next step.
bool banks_surplus(const AlgorithmSection& algorithm, const DataSection& data);

/// Sums over the tokens of a step's updates.
struct LossStats {
  double loss = 0;  ///< weighted: the mini-batches' losses
  double entropy = 0, kl = 0;
  double kl_ref = 0;  ///< KL to the reference by k3, whichever the loss takes
  int64_t tokens = 0, low = 0, high = 0, dual = 0;
  bool finite = true;  ///< every log-prob, entropy and loss so far
  void add(const LossStats& other);
};
/// Adds the tokens of a pack (one a head row). ref_log_prob may be empty.
void add_loss_stats(LossStats& s, std::span<const float> log_prob, std::span<const float> old_log_prob,
                    std::span<const float> entropy, std::span<const float> loss, std::span<const float> weight,
                    std::span<const uint8_t> clip, std::span<const float> ref_log_prob = {});

/// Largest differences between the log-probs of rollout and of training on the same weights; both must be 0.
struct Agreement {
  int64_t tokens = 0;   ///< compared
  double mismatch = 0;  ///< max |rollout - training log-prob|, nats; infinite if either is not finite
  double ratio = 0;     ///< max |exp(training - rollout) - 1|
  void compare(float rollout, float training);
  void add(const Agreement& other);
};

}  // namespace dapo
