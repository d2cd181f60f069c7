// Judges responses while others are generated: decodes them without special tokens, for the verifier's threads.
#pragma once

#include <future>
#include <memory>
#include <span>
#include <vector>

#include "data/dataset.h"
#include "host/rollout/rollout.h"
#include "host/train/settings.h"
#include "host/verify/pool.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

/// The verifier of a configuration, with its terms. Error (exit 2) if it is unknown or its program cannot be started.
std::unique_ptr<Verifier> make_verifier(const RewardSection& config);

/// Before a run: lets every program of the configuration judge an empty response to `example`. Error (exit 2) says
/// what one does instead of answering.
void try_commands(const RewardSection& config, const Example& example);

class Reward {
 public:
  Reward(const RewardSection& config, const Tokenizer& tokenizer)
      : tokenizer_(tokenizer), pool_(make_verifier(config), config.workers) {}

  /// Verdicts in the order of the responses.
  std::future<std::vector<Verdict>> judge(std::span<const Response> responses, const Example& example);
  VerifierCounters counters() const { return pool_.counters(); }

 private:
  const Tokenizer& tokenizer_;
  VerifierPool pool_;
};

}  // namespace dapo
