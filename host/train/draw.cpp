#include "host/train/draw.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <map>

#include "core/check.h"

namespace dapo {
namespace {

/// Samples first, first + 1, ... of a group: one request.
struct Part {
  Group* group;
  int first;
  std::future<std::vector<Verdict>> verdicts;

  void take(std::vector<Response> responses) const {
    for (size_t i = 0; i < responses.size(); ++i) group->samples[first + i].response = std::move(responses[i]);
  }
  /// `meanwhile` is called ten times a second.
  void wait_for_verdicts(const std::function<void()>& meanwhile) {
    while (verdicts.wait_for(std::chrono::milliseconds(100)) != std::future_status::ready) meanwhile();
    std::vector<Verdict> all = verdicts.get();
    for (size_t i = 0; i < all.size(); ++i) group->samples[first + i].verdict = std::move(all[i]);
  }
};

std::vector<Response> take_responses(Group& group, int first, int count) {
  std::vector<Response> out(count);
  for (int i = 0; i < count; ++i) out[i] = std::exchange(group.samples[first + i].response, {});
  return out;
}

/// Groups while they are drawn.
class Drawing {
 public:
  Drawing(std::span<Group> groups, const Dataset& data, const DrawOptions& options, Rollout& rollout, Reward& reward,
          Progress& progress)
      : data_(data),
        options_(options),
        rollout_(rollout),
        reward_(reward),
        progress_(progress),
        before_(rollout.stats()),
        responses_(std::ssize(groups) * options.samples) {
    for (Group& g : groups) {
      g.samples.resize(options.samples);
      for (int first = 0; first < options.samples; first += rollout.batch()) {
        const int count = std::min(options.samples - first, rollout.batch());
        rollout.add({.id = std::ssize(parts_),
                     .prompt = g.prompt,
                     .samples = count,
                     .max_new = options.max_new,
                     .step = g.step,
                     .prompt_key = g.prompt_key,
                     .first_sample = first,
                     .begun = take_responses(g, first, count)});
        parts_.push_back({&g, first, {}});
        ++open_[&g];
      }
    }
  }

  /// Runs the rollout once; whether anything is left to draw.
  bool advance() {
    for (Completion& c : rollout_.advance()) {
      Part& part = parts_[c.id];
      part.verdicts = reward_.judge(c.responses, data_[part.group->example]);
      part.take(std::move(c.responses));
      if (!options_.on_group) continue;
      part.wait_for_verdicts([this] { report(); });
      if (--open_[part.group] == 0) enough_ = options_.on_group(*part.group) || enough_;
    }
    return rollout_.busy() && !enough_;
  }
  void report() {
    progress_.report(options_.phase, rollout_.stats().finished - before_.finished, responses_,
                     rollout_.stats().drawn_tokens - before_.drawn_tokens);
  }
  /// Gives the groups what was drawn of responses that are not complete.
  void keep_unfinished() {
    for (size_t i = 0; i < parts_.size(); ++i) parts_[i].take(rollout_.take_drawn(i));
  }
  /// Waits for verdicts that are still under way. Returns the seconds.
  double wait_for_verdicts() {
    const Stopwatch waiting;
    if (!options_.on_group)
      for (Part& part : parts_) part.wait_for_verdicts([this] { report(); });
    return waiting.seconds();
  }

 private:
  const Dataset& data_;
  const DrawOptions& options_;
  Rollout& rollout_;
  Reward& reward_;
  Progress& progress_;
  const Rollout::Stats before_;
  const int64_t responses_;
  std::vector<Part> parts_;
  std::map<const Group*, int> open_;  // requests of a group that are not complete
  bool enough_ = false;
};

}  // namespace

double draw_and_judge(std::span<Group> groups, const Dataset& data, const DrawOptions& options, Rollout& rollout,
                      Reward& reward, Progress& progress) {
  Drawing drawing(groups, data, options, rollout, reward, progress);
  try {
    for (bool more = rollout.busy(); more;) {
      more = drawing.advance();
      drawing.report();
    }
    if (rollout.busy()) drawing.keep_unfinished();  // on_group had enough
    return drawing.wait_for_verdicts();
  } catch (const Error& e) {
    if (e.code() == kExitInterrupted) drawing.keep_unfinished();
    throw;
  }
}

}  // namespace dapo
