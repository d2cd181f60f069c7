#include "host/train/reward.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/check.h"

namespace dapo {

std::unique_ptr<Verifier> make_verifier(const RewardSection& config) {
  VerifierOptions options{.right = static_cast<float>(config.correct), .wrong = static_cast<float>(config.incorrect)};
  options.command = config.command;
  options.timeout = config.timeout;
  options.pattern = config.pattern;
  std::unique_ptr<Verifier> verifier = make_verifier(config.verifier, options);
  if (config.terms.empty()) return verifier;
  std::vector<WeightedVerifier> terms;
  for (const RewardTerm& t : config.terms) {
    VerifierOptions own{.right = 1, .wrong = 0};
    own.command = t.command;
    own.timeout = config.timeout;
    own.pattern = t.pattern;
    terms.push_back({make_verifier(t.verifier, own), t.weight});
  }
  return make_weighted(std::move(verifier), std::move(terms));
}

void try_commands(const RewardSection& config, const Example& example) {
  const bool commands = !config.command.empty() ||
                        std::ranges::any_of(config.terms, [](const RewardTerm& t) { return !t.command.empty(); });
  if (!commands) return;
  const Verdict v =
      make_verifier(config)->verify({"", example.answer, example.id, example.text(), example.data_source});
  if (v.error) fail_input("{}, when it is tried with an empty response", v.reason.substr(v.reason.find(' ') + 1));
}

std::future<std::vector<Verdict>> Reward::judge(std::span<const Response> responses, const Example& example) {
  std::vector<VerifyItem> items;
  items.reserve(responses.size());
  const std::string prompt = example.text();
  for (const Response& r : responses)
    items.push_back({tokenizer_.decode(r.shown()), example.answer, example.id, prompt, example.data_source});
  return pool_.submit(std::move(items));
}

}  // namespace dapo
