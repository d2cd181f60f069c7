// The DAPO loop (arXiv 2503.14476, Algorithm 1): one call of step() is one rollout step with its mini-batch updates.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/progress.h"
#include "data/cursor.h"
#include "data/dataset.h"
#include "host/rollout/rollout.h"
#include "host/train/limits.h"
#include "host/train/objective.h"
#include "host/train/packing.h"
#include "host/train/prompts.h"
#include "host/train/reward.h"
#include "host/train/settings.h"
#include "model/learner.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

/// One response with its verdict; the trainer's unit of work and a line of rollouts/step_N.jsonl.
struct Sample {
  Response response;
  Verdict verdict;
  std::vector<float> old_log_prob;  ///< where old_logprobs = recompute; else the response's own are the old ones
  double reward = 0;                ///< task reward: correct or incorrect
  double shaped = 0;                ///< with the overlong punishment
  double advantage = 0;
};

/// A prompt with its G responses.
struct SampleGroup {
  int32_t row = 0;   ///< index into the training set
  int32_t step = 0;  ///< rollout step whose weights drew it
  std::vector<int32_t> prompt;
  std::vector<Sample> samples;
  int correct() const;
};

/// What one step measured. Names and order of fields() never depend on the run, so a writer knows nothing of them.
struct StepMetrics {
  int64_t step = 0;  ///< 1 for the first
  double seconds = 0;
  PhaseTimes phases;
  double lr = 0;
  // rollout: all groups generated in this step
  double acc = 0, reward = 0, shaped_reward = 0;  ///< means over judged responses: share right, task and shaped reward
  double length_mean = 0, length_max = 0, truncated = 0;
  int64_t groups_generated = 0, groups_kept = 0, groups_right = 0, groups_wrong = 0;
  int64_t groups_unjudged = 0;  ///< with a response that the verifier could not judge; neither right nor wrong
  int64_t groups_from_bank = 0, groups_banked = 0, groups_dropped = 0, generation_batches = 0, prompts_dropped = 0;
  int64_t groups_expired = 0;                      ///< banked groups older than algorithm.max_age, dropped
  double found = 0;                                ///< share of judged responses with an answer
  int64_t verifier_errors = 0, verifier_slow = 0;  ///< responses not judged; judged in more than a second
  // update: the groups trained on
  int64_t groups_trained = 0, tokens_trained = 0, updates = 0, updates_refused = 0;
  double train_acc = 0, train_length = 0;
  double loss = 0, entropy = 0, ratio_kl = 0;         ///< ratio_kl: mean(old - new log-prob)
  double clip_low = 0, clip_high = 0, clip_dual = 0;  ///< shares of tokens
  double age_mean = 0, age_max = 0;                   ///< steps since the groups trained on were drawn
  double grad_norm = 0, grad_norm_max = 0;            ///< mean and largest over the updates applied
  // On the weights that drew this step's responses; NaN (null in metrics.jsonl) if none was compared.
  double mismatch = 0;          ///< max |rollout - training log-prob|, nats: 0
  double ratio_error = 0;       ///< max |ratio - 1|: 0
  int64_t mismatch_tokens = 0;  ///< tokens compared
  int64_t preemptions = 0;
  std::vector<std::string> alarms;

  /// (name, value) in a fixed order: "reward/acc", "rollout/tokens_per_s", "update/grad_norm", ...
  std::vector<std::pair<const char*, double>> fields() const;
};

/// All that a run is, beside weights and moments (RNG is stateless).
struct TrainerState {
  int64_t step = 0;     ///< rollout steps done
  int64_t updates = 0;  ///< optimizer steps applied (bias correction)
  int64_t refused = 0;  ///< updates refused in a row
  CursorState cursor;
  YieldEstimate yield;
  std::vector<SampleGroup> bank;  ///< finished groups for the next step, oldest first
};

class Trainer {
 public:
  /// Allocates the memory of training_limits(). `train` stays with the caller. Prompts longer than the limit are
  /// dropped and counted, or an error, as config.data says. Error (exit 2) where none is left.
  Trainer(const Config& config, Weights& weights, const Tokenizer& tokenizer, const Dataset& train, Progress& progress);
  ~Trainer();

  /// One rollout step. Error (exit 4) after trainer.nonfinite_patience refused updates in a row; weights and moments
  /// are then those of the last good update.
  StepMetrics step();
  bool done() const;  ///< trainer.total_steps are done

  /// The groups that the last step trained on, for logs.
  const std::vector<SampleGroup>& trained() const { return groups_; }
  /// The groups that the last step drew and nothing is trained on: all right, all wrong, not judged, or surplus.
  const std::vector<SampleGroup>& left_out() const { return left_out_; }
  Rollout& rollout() { return rollout_; }
  Learner& learner() { return learner_; }
  const TrainerState& state() const { return state_; }
  void restore(TrainerState state);
  size_t prompts_dropped() const { return dropped_; }
  size_t prompts() const { return rows_.size(); }

  /// Tests: called on every pack after its forward and backward, and before the update (break numbers here).
  std::function<void(Pack&)> after_pack;
  /// The same, on the groups of a step before their advantages.
  std::function<void(std::vector<SampleGroup>&)> after_rollout;

 private:
  void sample_groups(StepMetrics& m);
  void generate(int prompts, StepMetrics& m);
  void open_bank(StepMetrics& m);
  void file_group(SampleGroup group, StepMetrics& m);
  void set_advantages();
  void recompute_old_log_probs(StepMetrics& m);
  void update(size_t begin, size_t end, StepMetrics& m);
  std::vector<PackedGroups> pack(size_t begin, size_t end) const;
  void compare_log_probs(const PackedGroups& packed, size_t begin, int64_t step);
  void compare_a_fresh_group(int64_t step);
  void refuse(const char* what, StepMetrics& m);
  void summarize(StepMetrics& m);

  const Config config_;
  ModelMemory memory_;  // of the decoder and the learner, which take turns
  Decoder decoder_;
  Learner learner_;
  const Dataset& train_;
  Progress& progress_;
  std::vector<int32_t> rows_;                  // rows of `train_` that are used
  std::vector<std::vector<int32_t>> prompts_;  // their ids
  size_t dropped_ = 0;
  Cursor cursor_;
  Rollout rollout_;
  Reward reward_;
  TrainerState state_;
  std::vector<SampleGroup> groups_, left_out_;  // of the step under way
  int64_t slow_ = 0;                            // verdicts of all steps that took long
  int32_t drawn_ = 0;                           // prompts drawn in this step: DrawKey.prompt
  LossStats stats_;                             // of the step under way
  Agreement agreement_;                         // likewise
  double grad_norms_ = 0;                       // sum over the step's updates
  bool said_filtered_ = false;                  // alarms that are raised once a run
};

}  // namespace dapo
