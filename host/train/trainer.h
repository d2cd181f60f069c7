// The DAPO loop (arXiv 2503.14476, Algorithm 1): one call of step() is one rollout step with its mini-batch updates.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/grid.h"
#include "core/progress.h"
#include "data/cursor.h"
#include "data/dataset.h"
#include "host/rollout/rollout.h"
#include "host/train/alarms.h"
#include "host/train/encode_prompts.h"
#include "host/train/group.h"
#include "host/train/limits.h"
#include "host/train/metrics.h"
#include "host/train/objective.h"
#include "host/train/packing.h"
#include "host/train/prompt_record.h"
#include "host/train/reward.h"
#include "host/train/settings.h"
#include "model/learner.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

/// A step under way: what a later process needs to go on with it. After the step, what it did.
struct StepState {
  enum Stage : uint8_t {
    rollout,  ///< draws its groups
    update,   ///< has them; updates the weights
    done
  } stage = done;
  std::vector<Group> groups;    ///< that the step trains on
  std::vector<Group> left_out;  ///< drawn, never trained on: all right, all wrong, not judged, expired, or surplus
  std::vector<Group> drawing;   ///< the generation batch under way; its responses hold what was drawn of them
  int32_t drawn = 0;            ///< prompts: the next DrawKey.prompt
  int mini_batches = 0;         ///< behind us: updated, refused, or empty
  StepSums sums;
  Rollout::Stats rollout_stats;  ///< of an interrupted rollout
  double seconds = 0, rollout_seconds = 0, update_seconds = 0;
};

/// All the state of a run beside weights and moments (random draws are keyed and have none). Between two steps and
/// after an interruption (an Error of exit code 130 that Progress threw) a copy of it, with weights and moments, goes
/// on to the same bits.
struct TrainerState {
  int64_t step = 0;     ///< rollout steps done
  int64_t updates = 0;  ///< optimizer steps applied (bias correction)
  int64_t refused = 0;  ///< updates refused in a row
  CursorState cursor;
  YieldEstimate yield;
  std::vector<Group> bank;        ///< finished groups for the next step, oldest first
  std::vector<Group> unfinished;  ///< of earlier steps, to be drawn further (rollout.partial)
  AlarmState alarms;
  std::vector<PromptRecord> prompts;  ///< by example
  bool solved = false;                ///< nearly all groups of the last step were all right
  StepState now;
};

class Trainer {
 public:
  /// Allocates the memory of training_limits(). Keeps a reference to `train`. Prompts are encoded, and dropped or
  /// refused, as encode_prompts() does. `grid`: the ranks that train together; all of them make the same calls, hold the
  /// same state() and get the same metrics (but for seconds). Null: this one alone. `device_data`: Grid::data for memory
  /// of the device; null: that, on CPUs.
  Trainer(const Config& config, Weights& weights, const Tokenizer& tokenizer, const Dataset& train, Progress& progress,
          const Grid* grid = nullptr, Comm* device_data = nullptr);
  ~Trainer();

  /// The frozen weights of the KL, before the first step of a run with actor.kl_loss_coef > 0.
  void use_reference(const Weights& weights) { reference_ = &weights; }

  /// One rollout step, or the rest of an interrupted one. Error (exit 4) after trainer.nonfinite_patience refused updates in a row; weights and moments
  /// are then those of the last good update.
  StepMetrics step();
  bool done() const;  ///< trainer.total_steps have been done

  /// The groups that the last step trained on, for logs.
  const std::vector<Group>& trained() const { return state_.now.groups; }
  /// The groups that the last step drew but that are never trained on.
  const std::vector<Group>& left_out() const { return state_.now.left_out; }
  Rollout& rollout() { return rollout_; }
  Learner& learner() { return learner_; }
  const TrainerState& state() const { return state_; }
  /// state() as a checkpoint needs it: without the groups of a step that is done.
  TrainerState snapshot() const;
  void restore(TrainerState state);
  /// Hash of every prompt's ids in order: of the data, the tokenizer and the template together.
  uint64_t prompts_hash() const;
  size_t prompts_dropped() const { return prompts_.dropped; }
  size_t prompts() const { return prompts_.ids.size(); }

  /// Runs the mini-batch that state().now comes to next, without the update, and says where numbers are not finite: in
  /// its inputs, log-probs, entropies, losses, gradients (by parameter), weights and moments. "" if nowhere.
  std::string replay();
  /// Called when an update has been refused, with the state in which the mini-batch began.
  std::function<void(const TrainerState&)> on_refused;

  /// For tests: called after the forward and backward pass of every pack, before the update; may change its numbers.
  std::function<void(Pack&)> after_pack;
  /// For tests: called on the groups of a step before their advantages are computed.
  std::function<void(std::vector<Group>&)> after_rollout;

 private:
  void begin_step();
  void roll_out();
  void draw_generation_batch();
  void update_weights();
  void open_bank();
  int prompts_to_draw() const;
  bool nothing_left_to_learn() const;
  size_t next_prompt();
  std::vector<Group> next_prompts(int count);
  void file_group(Group group);
  void end_rollout();
  void recompute_old_log_probs();
  void score_reference();
  /// A mini-batch's packs that this rank runs, how many a rank runs at most, and the tokens of all ranks' packs.
  struct MiniBatch {
    std::vector<MicroBatch> packs;
    size_t most_packs = 0;
    int64_t tokens = 0;
  };
  MiniBatch pack(size_t begin, size_t end) const;
  bool forward_backward(MiniBatch& mini_batch, size_t begin, LossStats& loss);
  void update(const LossStats& loss);
  void refuse(const char* reason);
  void report_refusal(const StepSums& before);
  void compare_log_probs(const MicroBatch& packed, size_t begin, Agreement& agreement) const;
  void compare_one_group();
  void share_scores(const std::vector<MicroBatch>& packs, std::vector<float> Pack::*values,
                    const std::function<void(Group&, Sample&, std::vector<float>)>& store);
  StepMetrics summarize() const;

  const Config config_;
  const std::unique_ptr<Comm> alone_;  // of one rank, if no other is given
  const Grid grid_;
  ModelMemory memory_;  // of the decoder and the learner, which take turns
  Decoder decoder_;
  Learner learner_;
  const Weights* reference_ = nullptr;
  const Dataset& train_;
  Progress& progress_;
  Rollout rollout_;
  const std::unique_ptr<Reward> reward_;  // of a rank that leads its tensor group
  const EncodedPrompts prompts_;
  Cursor cursor_;
  TrainerState state_;
  StepState& now_ = state_.now;
  StepSums& sums_ = state_.now.sums;
  int64_t slow_ = 0;  // VerifierCounters::slow at the end of the last rollout
};

}  // namespace dapo
