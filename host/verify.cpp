#include "host/verify.h"

#include <algorithm>

#include "core/check.h"
#include "data/dataset.h"
#include "host/verify_impl.h"

namespace dapo {

Verdict Verifier::verify(std::string_view response, std::string_view ground_truth) const noexcept {
  Verdict out;
  try {
    if (ground_truth.empty()) fail_input("the ground truth is empty");
    for (std::string_view rest = ground_truth; !out.acc && !rest.empty();) {  // of accepted answers one must match
      const size_t cut = std::min(rest.find(kAnswerSeparator), rest.size());
      out = {};
      judge(response, rest.substr(0, cut), out);
      rest.remove_prefix(std::min(cut + 1, rest.size()));
    }
  } catch (const std::exception& e) {
    out = {};
    out.error = true;
    try {
      out.reason = std::string("error: ") + e.what();
    } catch (...) {  // no memory for the words: the flag still counts
    }
  }
  out.score = out.acc ? options_.right : options_.wrong;
  return out;
}

std::unique_ptr<Verifier> make_verifier(std::string_view name, const VerifierOptions& options) {
  if (name == "math_dapo") return verify::make_math_dapo(options);
  if (name == "gsm8k") return verify::make_gsm8k(options);
  if (name == "boxed") return verify::make_boxed(options);
  if (name == "countdown") return verify::make_countdown(options);
  if (name == "exact") return verify::make_exact(options);
  fail_input("verifier \"{}\" is unknown: math_dapo, gsm8k, boxed, countdown or exact", name);
}

namespace verify {

namespace {
class Exact final : public Verifier {
 public:
  using Verifier::Verifier;

 private:
  void judge(std::string_view response, std::string_view ground_truth, Verdict& out) const override {
    out.pred = strip(response);
    out.found = !out.pred.empty();
    out.acc = out.pred == strip(ground_truth);
    out.reason = out.acc ? "equal" : "differs";
  }
};

class Gsm8k final : public Verifier {
 public:
  using Verifier::Verifier;

 private:
  static bool numeric(char c) { return (c >= '0' && c <= '9') || c == '.' || c == ','; }
  static size_t run(std::string_view text, size_t at) {
    const size_t start = at;
    while (at < text.size() && numeric(text[at])) ++at;
    return at - start;
  }
  void judge(std::string_view response, std::string_view ground_truth, Verdict& out) const override {
    const std::string_view text = tail(response, 300);
    options_.flexible ? last_number(text, out) : after_hashes(text, out);
    out.acc = out.found && out.pred == ground_truth;
    out.reason = !out.found ? options_.flexible ? "no number" : "no \"#### number\"" : out.acc ? "equal" : "differs";
  }
  static void after_hashes(std::string_view text, Verdict& out) {
    for (size_t at = 0; (at = text.find("#### ", at)) != std::string_view::npos;) {
      at += 5;
      const bool minus = at < text.size() && text[at] == '-';
      const size_t n = run(text, at + minus);
      if (n == 0) continue;
      out.found = true;
      out.pred = text.substr(at, minus + n);
      at += minus + n;
    }
    std::erase(out.pred, ',');
  }
  static void last_number(std::string_view text, Verdict& out) {
    std::string_view first, last;  // the reference takes the first where every one is a lone "."
    for (size_t at = 0; at < text.size();) {
      const bool minus = text[at] == '-';
      const size_t n = run(text, at + minus);
      if (n == 0) {
        ++at;
        continue;
      }
      const std::string_view found = text.substr(at, minus + n);
      if (!out.found) first = found;
      if (found != ".") last = found;
      out.found = true;
      at += minus + n;
    }
    out.pred = last.empty() ? first : last;
  }
};
}  // namespace

std::unique_ptr<Verifier> make_exact(const VerifierOptions& options) {
  return std::make_unique<Exact>(options);
}
std::unique_ptr<Verifier> make_gsm8k(const VerifierOptions& options) {
  return std::make_unique<Gsm8k>(options);
}

}  // namespace verify
}  // namespace dapo
