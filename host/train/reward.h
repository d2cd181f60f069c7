// Judges responses while others are generated: decodes them without special tokens, for the verifier's threads.
#pragma once

#include <future>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "host/rollout/rollout.h"
#include "host/train/settings.h"
#include "host/verify/pool.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

class Reward {
 public:
  /// Error (exit 2) if the verifier is unknown.
  Reward(const RewardSection& config, const Tokenizer& tokenizer)
      : tokenizer_(tokenizer),
        pool_(make_verifier(config.verifier, {.right = float(config.correct), .wrong = float(config.incorrect)}),
              config.workers) {}

  /// Verdicts in the order of the responses.
  std::future<std::vector<Verdict>> judge(std::span<const Response> responses, const std::string& ground_truth) {
    std::vector<VerifyItem> items;
    items.reserve(responses.size());
    for (const Response& r : responses) items.push_back({tokenizer_.decode(r.shown()), ground_truth});
    return pool_.submit(std::move(items));
  }
  VerifierCounters counters() const { return pool_.counters(); }

 private:
  const Tokenizer& tokenizer_;
  VerifierPool pool_;
};

}  // namespace dapo
