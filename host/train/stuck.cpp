#include "host/train/stuck.h"

#include <fmt/format.h>

#include "core/choices.h"

namespace dapo {

std::string StuckWatch::after(const StepMetrics& m) {
  if (m.groups_generated == 0 || m.groups_right + m.groups_wrong + m.groups_unjudged < m.groups_generated) {
    state_ = {};
    return "";
  }
  ++state_.steps;
  state_.right += m.groups_right;
  state_.wrong += m.groups_wrong;
  state_.unjudged += m.groups_unjudged;
  if (m.groups_unjudged < m.groups_generated) state_.found += m.found;
  const int patience = config_.trainer.stuck_patience;
  if (patience == 0 || state_.steps < patience) return "";
  if (state_.right + state_.wrong == 0)
    return fmt::format(
        "nothing to learn from in {} steps (trainer.stuck_patience): none of {} groups could be judged by "
        "reward.verifier = \"{}\"; the alarms of the steps name its errors",
        state_.steps, state_.unjudged, config_.reward.verifier);
  const std::string seen =
      fmt::format("nothing to learn from in {} steps (trainer.stuck_patience): ", state_.steps) +
      (state_.right == 0   ? fmt::format("all {} groups are wrong", state_.wrong)
       : state_.wrong == 0 ? fmt::format("all {} groups are right", state_.right)
                           : fmt::format("each group is all right ({}) or all wrong ({})", state_.right, state_.wrong));
  if (state_.right == 0)
    return fmt::format(
        "{}; reward.verifier = \"{}\" found an answer in {:.0f} % of the responses. Likely: the verifier expects "
        "another form of answer, data.prompt_template = \"{}\" or data.prompt_suffix does not ask for that form, the "
        "task is too hard for the model, or actor.lr = {:g} has spoiled it",
        seen, config_.reward.verifier, 100 * state_.found / state_.steps, choice_name(config_.data.prompt_template),
        config_.actor.lr);
  if (state_.wrong == 0)
    return fmt::format(
        "{}. Likely: the task is learned, the data are too easy, or reward.verifier = \"{}\" accepts anything", seen,
        config_.reward.verifier);
  return fmt::format(
      "{}. Likely: the responses of a prompt are all the same: raise rollout.temperature ({:g}) or "
      "rollout.n ({}), or lower actor.lr ({:g})",
      seen, config_.rollout.temperature, config_.rollout.n, config_.actor.lr);
}

}  // namespace dapo
