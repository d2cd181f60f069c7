// Verifiers: the reward of a response, judged against the ground truth. No eval, no regular expressions on model text;
// every verifier runs in time linear in its input, and reports a failure of its own as an error, never as a score of 0.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace dapo {

struct Verdict {
  float score = 0;     ///< the reward: VerifierOptions::right or ::wrong
  bool acc = false;    ///< whether the answer is right; dynamic sampling filters on this
  bool found = false;  ///< whether an answer was found in the response at all
  bool error = false;  ///< the verifier could not judge (score is ::wrong); counted, and `reason` starts with "error: "
  std::string pred;    ///< the answer as compared (normalised if the verifier normalises)
  std::string reason;  ///< a few words for the log
};

struct VerifierOptions {
  float right = 1, wrong = -1;
  bool strict_box = false;  ///< math_dapo: \boxed{} within the last 100 code points, compared verbatim
  bool flexible = false;    ///< gsm8k: the last number instead of the text after the last "#### "
};

class Verifier {
 public:
  explicit Verifier(const VerifierOptions& options) : options_(options) {}
  virtual ~Verifier() = default;
  /// Judges one response. Any number of threads may call it. Never throws; an empty ground truth is an error.
  Verdict verify(std::string_view response, std::string_view ground_truth) const noexcept;

 protected:
  /// Sets found, pred, reason and acc; an exception becomes an error verdict.
  virtual void judge(std::string_view response, std::string_view ground_truth, Verdict& out) const = 0;
  const VerifierOptions options_;
};

/// Names:
///  math_dapo  the paper's scorer (verl's math_dapo, equal on every test vector): the last "Answer: ..." line within
///             the last 300 code points, normalised, compared as text
///  gsm8k      verl's gsm8k: the text after the last "#### " within the last 300 code points, compared as text
///  boxed      the last \boxed{} (or "\boxed 2", or \fbox{}): numbers by value, expressions by canonical spelling,
///             lists and sets of them, words; docs/verifiers.md defines equality
///  countdown  an expression (in <answer></answer>, else \boxed{}, else after "Answer:") that uses each number once and
///             reaches the target, in exact fractions; ground truth {"target":23,"numbers":[30,100,93]}
///  exact      the whole response, white space trimmed
inline constexpr std::string_view kVerifierNames = "math_dapo|gsm8k|boxed|countdown|exact";
/// Error (exit 2) for any other name.
std::unique_ptr<Verifier> make_verifier(std::string_view name, const VerifierOptions& options = {});

// ---- the comparisons on their own -------------------------------------------------------------------------------

/// The reference scorer's normalisation of a final answer (math_dapo).
std::string normalize_dapo(std::string_view answer);
/// Whether two answers are equal (boxed; docs/verifiers.md defines it).
bool math_equal(std::string_view a, std::string_view b);
/// The canonical spelling of an answer ("\frac12", "0.5" -> "1/2"), without names and units, so that answers can be
/// counted (maj@n).
std::string canonical_answer(std::string_view answer);

}  // namespace dapo
