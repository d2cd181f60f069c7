// The trainer's unit of work: a prompt with its G responses, each with verdict, reward and advantage.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "host/rollout/rollout.h"
#include "host/verify/verify.h"

namespace dapo {

/// A response with its verdict: a line of rollouts/step_N.jsonl.
struct Sample {
  Response response;
  Verdict verdict;
  double reward = 0;  ///< by the verifier and reward.terms
  double shaped = 0;  ///< the reward plus the overlong punishment
  double advantage = 0;
  std::vector<float> old_log_prob;  ///< empty unless recomputed (actor.old_logprobs): the response's own
  std::vector<float> ref_log_prob;  ///< by the reference, while a step trains with a KL
};

/// A prompt with its samples. Their draws are keyed by (step, prompt_key, index of the sample): DrawKey.
struct Group {
  int32_t example = 0;  ///< index into the dataset
  int32_t step = 0;     ///< the rollout step whose weights drew it
  int32_t prompt_key = 0;
  std::vector<int32_t> prompt;
  std::vector<Sample> samples;
  int correct() const {
    return std::ranges::count_if(samples, [](const Sample& s) { return s.verdict.acc; });
  }
};

}  // namespace dapo
