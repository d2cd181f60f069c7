// exact: the whole response, with white space trimmed, equals the ground truth.
#include "host/verify/makers.h"
#include "host/verify/text.h"

namespace dapo::verify {

namespace {
class Exact final : public AnswerVerifier {
 public:
  using AnswerVerifier::AnswerVerifier;

 private:
  void judge(std::string_view response, std::string_view ground_truth, Verdict& out) const override {
    out.pred = strip(response);
    out.found = !out.pred.empty();
    out.acc = out.pred == strip(ground_truth);
    out.reason = out.acc ? "equal" : "differs";
  }
};
}  // namespace

std::unique_ptr<Verifier> make_exact(const VerifierOptions& options) {
  return std::make_unique<Exact>(options);
}

}  // namespace dapo::verify
