// Verifiers: the reward of a response, judged against the ground truth. No eval, no regular expressions on model text;
// every verifier runs in time linear in its input, and reports a failure of its own as an error, never as a score of 0.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace dapo {

/// A response, with the parts of its problem that a verifier may need.
struct VerifyItem {
  std::string response, ground_truth;
  std::string id = {}, prompt = {}, data_source = {};  ///< of the dataset's row: for `command`
};

struct Verdict {
  float score = 0;     ///< the reward: VerifierOptions::right or ::wrong, or what `command` gives
  bool acc = false;    ///< whether the answer is right; dynamic sampling filters on this
  bool found = false;  ///< whether an answer was found in the response at all
  bool error = false;  ///< the verifier could not judge (score is ::wrong); counted, and `reason` starts with "error: "
  std::string pred;    ///< the answer as compared (normalised if the verifier normalises)
  std::string reason;  ///< a few words for the log
  /// With reward.terms: the verifier's own score, then that of each term, without weights; `score` is their sum with
  /// weights. Else empty.
  std::vector<float> terms;
};

struct VerifierOptions {
  float right = 1, wrong = -1;
  bool strict_box = false;   ///< math_dapo: \boxed{} within the last 100 code points, compared verbatim
  bool flexible = false;     ///< gsm8k: the last number instead of the text after the last "#### "
  std::string pattern = {};  ///< format: "<think>*</think>*": fixed pieces with any text in place of each "*"
  std::vector<std::string> command = {};  ///< command: a program with its arguments, or one text that is cut at blanks
  double timeout = 10;                    ///< command: seconds for one answer
};

class Verifier {
 public:
  explicit Verifier(const VerifierOptions& options) : options_(options) {}
  virtual ~Verifier() = default;
  /// Judges one response. Any number of threads may call it. Never throws; an empty ground truth is an error.
  Verdict verify(const VerifyItem& item) const noexcept;
  Verdict verify(std::string_view response, std::string_view ground_truth) const {
    return verify(VerifyItem{std::string(response), std::string(ground_truth)});
  }
  /// Items that one worker takes at a time: long compared to the pool's lock, short compared to a batch.
  virtual size_t items_at_once() const { return 64; }
  /// Makes calls that wait for something return soon, with an error; called when nobody needs their verdicts any more.
  virtual void cancel() const noexcept {}

 protected:
  /// Sets score, acc, found, pred and reason; an exception becomes an error verdict.
  virtual void judge_item(const VerifyItem& item, Verdict& out) const = 0;
  const VerifierOptions options_;
};

/// A verifier that compares a response with each accepted answer: right if one of them matches.
class AnswerVerifier : public Verifier {
 public:
  using Verifier::Verifier;

 protected:
  /// Sets found, pred, reason and acc.
  virtual void judge(std::string_view response, std::string_view ground_truth, Verdict& out) const = 0;

 private:
  void judge_item(const VerifyItem& item, Verdict& out) const final;
};

/// Names:
///  math_dapo  the paper's scorer (verl's math_dapo, equal on every test vector): the last "Answer: ..." line within
///             the last 300 code points, normalised, compared as text
///  gsm8k      verl's gsm8k: the text after the last "#### " within the last 300 code points, compared as text
///  boxed      the last \boxed{} (or "\boxed 2", or \fbox{}): numbers by value, expressions by canonical spelling,
///             lists and sets of them, words; docs/verifiers.md defines equality
///  math       the answer in a box, behind "the answer is", or the last formula or number; compared as by boxed
///  countdown  an expression (in <answer></answer>, else \boxed{}, else after "Answer:") that uses each number once and
///             reaches the target, in exact fractions; ground truth {"target":23,"numbers":[30,100,93]}
///  exact      the whole response, white space trimmed
///  format     whether the response has the form of VerifierOptions::pattern; the ground truth does not matter
///  command    a program of the user's (docs/verifiers.md): a pool of processes, JSON lines over pipes
inline constexpr std::string_view kVerifierNames = "math_dapo|gsm8k|boxed|math|countdown|exact|format|command";
/// Error (exit 2) for any other name, and if `command` cannot be started.
std::unique_ptr<Verifier> make_verifier(std::string_view name, const VerifierOptions& options = {});

/// A term of reward.terms.
struct WeightedVerifier {
  std::unique_ptr<const Verifier> verifier;
  double weight = 1;
};
/// The verdicts of `verifier`, but the score is increased by each term's score times its weight. A term that cannot
/// judge makes an error of the whole.
std::unique_ptr<Verifier> make_weighted(std::unique_ptr<const Verifier> verifier, std::vector<WeightedVerifier> terms);

// ---- the comparisons on their own -------------------------------------------------------------------------------

/// The reference scorer's normalisation of a final answer (math_dapo).
std::string normalize_dapo(std::string_view answer);
/// Whether two answers are equal (boxed; docs/verifiers.md defines it).
bool math_equal(std::string_view a, std::string_view b);
/// The canonical spelling of an answer ("\frac12", "0.5" -> "1/2"), without names and units, so that answers can be
/// counted (maj@n).
std::string canonical_answer(std::string_view answer);

}  // namespace dapo
