#include "host/train/draw.h"

#include <algorithm>
#include <future>

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
};

std::vector<Response> take_responses(Group& group, int first, int count) {
  std::vector<Response> out(count);
  for (int i = 0; i < count; ++i) out[i] = std::exchange(group.samples[first + i].response, {});
  return out;
}

}  // namespace

double draw_and_judge(std::span<Group> groups, const Dataset& data, const DrawOptions& options, Rollout& rollout,
                      Reward& reward, Progress& progress) {
  const Rollout::Stats before = rollout.stats();
  const int64_t responses = std::ssize(groups) * options.samples;
  std::vector<Part> parts;
  for (Group& g : groups) {
    g.samples.resize(options.samples);
    for (int first = 0; first < options.samples; first += rollout.batch()) {
      const int count = std::min(options.samples - first, rollout.batch());
      rollout.add({.id = std::ssize(parts),
                   .prompt = g.prompt,
                   .samples = count,
                   .max_new = options.max_new,
                   .step = g.step,
                   .prompt_key = g.prompt_key,
                   .first_sample = first,
                   .begun = take_responses(g, first, count)});
      parts.push_back({&g, first, {}});
    }
  }
  try {
    while (rollout.busy()) {
      for (Completion& c : rollout.advance()) {
        Part& part = parts[c.id];
        part.verdicts = reward.judge(c.responses, data[part.group->example].answer);
        part.take(std::move(c.responses));
      }
      progress.report(options.phase, rollout.stats().finished - before.finished, responses,
                      rollout.stats().drawn_tokens - before.drawn_tokens);
    }
  } catch (const Error& e) {
    if (e.code() == kExitInterrupted)
      for (size_t i = 0; i < parts.size(); ++i) parts[i].take(rollout.take_drawn(i));
    throw;
  }
  const Stopwatch waiting;
  for (Part& part : parts) {
    std::vector<Verdict> verdicts = part.verdicts.get();
    for (size_t i = 0; i < verdicts.size(); ++i) part.group->samples[part.first + i].verdict = std::move(verdicts[i]);
  }
  return waiting.seconds();
}

}  // namespace dapo
