// Judging beside generation: decodes responses and runs the verifier in a few threads.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "host/config.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

/// What the verifier said of one response.
struct Verdict {
  bool correct = false;
  bool error = false;  ///< the verifier failed (bad ground truth, time-out): counted, never silent
  std::string answer;  ///< what was taken out of the response
  std::string reason;
};

class Reward {
 public:
  /// Error (exit 2) on an unknown verifier.
  Reward(const RewardSection& config, const Tokenizer& tokenizer);
  ~Reward();

  /// Queues a group: `responses[i]` are ids, special tokens are dropped before the verifier. What the arguments view
  /// must stay until the ticket's wait() returns.
  int64_t submit(std::vector<std::span<const int32_t>> responses, std::string ground_truth);
  /// Verdicts of a ticket, in order of its responses; blocks until they are there. Once a ticket.
  std::vector<Verdict> wait(int64_t ticket);

 private:
  struct Pool;
  std::unique_ptr<Pool> pool_;
};

}  // namespace dapo
