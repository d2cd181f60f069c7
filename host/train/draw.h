// Drawing responses and judging them while others are still growing: for training and for evaluation.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "core/grid.h"
#include "core/progress.h"
#include "data/dataset.h"
#include "host/rollout/rollout.h"
#include "host/train/group.h"
#include "host/train/reward.h"

namespace dapo {

// Draw keys that training does not use: its steps count from 1, its prompts from 0.
/// DrawKey.step of every evaluation, so that the same weights give the same responses.
inline constexpr int32_t kEvalStep = -1;
/// DrawKey.prompt of the draws that choose the examples of an SFT step.
inline constexpr int32_t kSftExamples = -2;

struct DrawOptions {
  int samples = 0;               ///< responses a prompt
  int max_new = 0;               ///< most tokens of a response, end id included
  Phase phase = Phase::rollout;  ///< for Progress
  /// Called with each group as it is complete and judged, which it may move from. Once it returns true nothing more is
  /// drawn: the other groups hold what was drawn of them.
  std::function<bool(Group&)> on_group = nullptr;
  /// Ranks that draw together: all call with the same groups, and get all groups back, the same on every rank. Null: this
  /// one alone.
  const Grid* grid = nullptr;
};

/// Draws options.samples responses to the prompt of every group and judges them by data[group.example].answer; fills
/// `samples` (response and verdict). What responses already hold is not drawn again: if `progress` throws an Error of
/// exit code 130, they hold what was drawn until then, for a later call. Call rollout.begin() before. More samples than the rollout's batch are drawn in
/// several requests. rollout.stats() is then that of all ranks, and an error of one rank is thrown on all. Returns the seconds spent waiting for verdicts after the last response was complete.
/// `reward`: null on the ranks of a tensor group that do not lead it (Grid), which get its verdicts.
double draw_and_judge(std::span<Group> groups, const Dataset& data, const DrawOptions& options, Rollout& rollout,
                      Reward* reward, Progress& progress);

}  // namespace dapo
