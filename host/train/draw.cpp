#include "host/train/draw.h"

#include <algorithm>
#include <chrono>
#include <future>

namespace dapo {
namespace {

/// Samples first, first + 1, ... of a group: one request.
struct Part {
  Group* group;
  int first;
  std::future<std::vector<Verdict>> verdicts;
};

}  // namespace

double draw_and_judge(std::span<Group> groups, const Dataset& data, const DrawOptions& options, Rollout& rollout,
                      Reward& reward, Progress& progress) {
  const Rollout::Stats before = rollout.stats();
  const int64_t responses = std::ssize(groups) * options.samples;
  std::vector<Part> parts;
  for (Group& g : groups) {
    g.samples.resize(options.samples);
    for (int first = 0; first < options.samples; first += rollout.batch()) {
      rollout.add({.id = std::ssize(parts),
                   .prompt = g.prompt,
                   .samples = std::min(options.samples - first, rollout.batch()),
                   .max_new = options.max_new,
                   .step = g.step,
                   .prompt_key = g.prompt_key,
                   .first_sample = first});
      parts.push_back({&g, first, {}});
    }
  }
  while (rollout.busy()) {
    for (Completion& c : rollout.advance()) {
      Part& part = parts[c.id];
      part.verdicts = reward.judge(c.responses, data[part.group->example]);
      for (size_t i = 0; i < c.responses.size(); ++i)
        part.group->samples[part.first + i].response = std::move(c.responses[i]);
    }
    progress.report(options.phase, rollout.stats().finished - before.finished, responses,
                    rollout.stats().drawn_tokens - before.drawn_tokens);
  }
  const Stopwatch waiting;
  for (Part& part : parts) {
    while (part.verdicts.wait_for(std::chrono::milliseconds(100)) != std::future_status::ready)
      progress.report(options.phase, responses, responses, rollout.stats().drawn_tokens - before.drawn_tokens);
    std::vector<Verdict> verdicts = part.verdicts.get();
    for (size_t i = 0; i < verdicts.size(); ++i) part.group->samples[part.first + i].verdict = std::move(verdicts[i]);
  }
  return waiting.seconds();
}

}  // namespace dapo
