// boxed: the last box of the response against the ground truth.
#include "core/last_boxed.h"
#include "host/verify/boxed_answer.h"
#include "host/verify/makers.h"

namespace dapo {

bool math_equal(std::string_view a, std::string_view b) {
  return verify::same_answer(verify::read_answer(a), verify::read_answer(b));
}

std::string canonical_answer(std::string_view answer) {
  return verify::spelled(verify::read_answer(answer));
}

namespace {
class Boxed final : public AnswerVerifier {
 public:
  using AnswerVerifier::AnswerVerifier;

 private:
  void judge(std::string_view response, std::string_view ground_truth, Verdict& out) const override {
    const auto boxed = last_boxed(response);
    out.found = boxed.has_value();
    out.reason = "no closed \\boxed{}";
    if (!out.found) return;
    const verify::Answer answer = verify::read_answer(*boxed);
    out.pred = verify::spelled(answer);
    out.acc = verify::same_answer(answer, verify::read_answer(last_boxed(ground_truth).value_or(ground_truth)));
    out.reason = out.acc ? "equal" : "differs";
  }
};
}  // namespace

std::unique_ptr<Verifier> verify::make_boxed(const VerifierOptions& options) {
  return std::make_unique<Boxed>(options);
}

}  // namespace dapo
