// The DAPO loop (arXiv 2503.14476, Algorithm 1): one call of step() is one rollout step with its mini-batch updates.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/progress.h"
#include "data/cursor.h"
#include "data/dataset.h"
#include "host/rollout/rollout.h"
#include "host/train/encode_prompts.h"
#include "host/train/group.h"
#include "host/train/limits.h"
#include "host/train/metrics.h"
#include "host/train/objective.h"
#include "host/train/packing.h"
#include "host/train/reward.h"
#include "host/train/settings.h"
#include "model/learner.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

/// All the state of a run beside weights and moments (random draws are keyed and have none).
struct TrainerState {
  int64_t step = 0;     ///< rollout steps done
  int64_t updates = 0;  ///< optimizer steps applied (bias correction)
  int64_t refused = 0;  ///< updates refused in a row
  CursorState cursor;
  YieldEstimate yield;
  std::vector<Group> bank;  ///< finished groups for the next step, oldest first
};

class Trainer {
 public:
  /// Allocates the memory of training_limits(). Keeps a reference to `train`. Prompts are encoded, and dropped or
  /// refused, as encode_prompts() does.
  Trainer(const Config& config, Weights& weights, const Tokenizer& tokenizer, const Dataset& train, Progress& progress);
  ~Trainer();

  /// The frozen weights of the KL, before the first step of a run with actor.kl_loss_coef > 0.
  void use_reference(const Weights& weights) { reference_ = &weights; }

  /// One rollout step. Error (exit 4) after trainer.nonfinite_patience refused updates in a row; weights and moments
  /// are then those of the last good update.
  StepMetrics step();
  bool done() const;  ///< trainer.total_steps have been done

  /// The groups that the last step trained on, for logs.
  const std::vector<Group>& trained() const { return groups_; }
  /// The groups that the last step drew but that are never trained on: all right, all wrong, not judged, or surplus.
  const std::vector<Group>& left_out() const { return left_out_; }
  Rollout& rollout() { return rollout_; }
  Learner& learner() { return learner_; }
  const TrainerState& state() const { return state_; }
  void restore(TrainerState state);
  size_t prompts_dropped() const { return prompts_.dropped; }
  size_t prompts() const { return prompts_.ids.size(); }

  /// For tests: called after the forward and backward pass of every pack, before the update; may change its numbers.
  std::function<void(Pack&)> after_pack;
  /// For tests: called on the groups of a step before their advantages are computed.
  std::function<void(std::vector<Group>&)> after_rollout;

 private:
  void begin_step();
  void open_bank();
  int prompts_to_draw() const;
  std::vector<Group> next_prompts(int count);
  void file_group(Group group);
  void end_rollout(double seconds);
  void recompute_old_log_probs();
  void score_reference();
  std::vector<MicroBatch> pack(size_t begin, size_t end) const;
  bool forward_backward(std::vector<MicroBatch>& mini_batch, size_t begin, LossStats& loss);
  void update(const LossStats& loss);
  void refuse(const char* reason);
  void compare_log_probs(const MicroBatch& packed, size_t begin);
  void compare_one_group();
  StepMetrics summarize() const;
  void raise_alarms(StepMetrics& m);

  const Config config_;
  ModelMemory memory_;  // of the decoder and the learner, which take turns
  Decoder decoder_;
  Learner learner_;
  const Weights* reference_ = nullptr;
  const Dataset& train_;
  Progress& progress_;
  Rollout rollout_;
  Reward reward_;
  const EncodedPrompts prompts_;
  Cursor cursor_;
  TrainerState state_;
  // of the step under way
  std::vector<Group> groups_, left_out_;
  StepSums sums_;
  int32_t drawn_ = 0;  // prompts: the next DrawKey.prompt
  // of the run
  int64_t slow_ = 0;               // VerifierCounters::slow at the end of the last rollout
  bool checked_sampling_ = false;  // alarms that are raised at most once
};

}  // namespace dapo
