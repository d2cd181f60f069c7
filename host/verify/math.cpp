// math: the answer wherever it stands in the response, compared as `boxed` compares.
#include "host/verify/boxed_answer.h"
#include "host/verify/find_answer.h"
#include "host/verify/makers.h"

namespace dapo::verify {

namespace {
class Math final : public AnswerVerifier {
 public:
  using AnswerVerifier::AnswerVerifier;

 private:
  /// Whether both give a value to a name, and not to the same one.
  static bool other_name(const Answer& a, const Answer& b) {
    const auto name = [](const Answer& x) { return x.elements.size() == 1 ? x.elements[0].name : x.name; };
    return !name(a).empty() && !name(b).empty() && name(a) != name(b);
  }
  void judge(std::string_view response, std::string_view ground_truth, Verdict& out) const override {
    const auto found = find_answer(response);
    out.found = found.has_value();
    out.reason = "no answer";
    if (!out.found) return;
    const Answer truth = read_answer(boxes_in(ground_truth).value_or(std::string(ground_truth)));
    Answer answer = read_answer(found->text);
    out.acc = same_answer(answer, truth);
    if (!out.acc && found->value != found->text && !other_name(answer, truth)) {
      answer = read_answer(found->value);
      out.acc = same_answer(answer, truth);
    }
    out.pred = spelled(answer);
    out.reason = out.acc ? "equal" : "differs";
  }
};
}  // namespace

std::unique_ptr<Verifier> make_math(const VerifierOptions& options) {
  return std::make_unique<Math>(options);
}

}  // namespace dapo::verify
