// gsm8k: the number after the last "#### ", or the last number, as in verl's scorer of GSM8K (strict, flexible).
#include "host/verify/makers.h"
#include "host/verify/text.h"

namespace dapo::verify {

namespace {
class Gsm8k final : public AnswerVerifier {
 public:
  using AnswerVerifier::AnswerVerifier;

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
    out.acc = out.found && out.pred == strip(ground_truth);
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
    std::string_view first, last;  // the reference takes the first if all of them are a lone "."
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

std::unique_ptr<Verifier> make_gsm8k(const VerifierOptions& options) {
  return std::make_unique<Gsm8k>(options);
}

}  // namespace dapo::verify
