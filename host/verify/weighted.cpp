// reward.terms: further rewards beside the verifier's.
#include <algorithm>

#include "core/check.h"
#include "host/verify/verify.h"

namespace dapo {
namespace {

class Weighted final : public Verifier {
 public:
  Weighted(std::unique_ptr<const Verifier> verifier, std::vector<WeightedVerifier> terms)
      : Verifier({}), verifier_(std::move(verifier)), terms_(std::move(terms)) {}
  size_t items_at_once() const override {
    size_t least = verifier_->items_at_once();
    for (const WeightedVerifier& term : terms_) least = std::min(least, term.verifier->items_at_once());
    return least;
  }
  void cancel() const noexcept override {
    verifier_->cancel();
    for (const WeightedVerifier& term : terms_) term.verifier->cancel();
  }

 private:
  void judge_item(const VerifyItem& item, Verdict& out) const override {
    out = verifier_->verify(item);
    out.terms.push_back(out.score);
    double sum = out.score;
    for (const WeightedVerifier& term : terms_) {
      if (out.error) return;
      const Verdict v = term.verifier->verify(item);
      out.terms.push_back(v.score);
      sum += term.weight * v.score;
      if (!v.error) continue;
      out.error = true;
      out.reason = v.reason;
    }
    if (!out.error) out.score = static_cast<float>(sum);
  }

  const std::unique_ptr<const Verifier> verifier_;
  const std::vector<WeightedVerifier> terms_;
};

}  // namespace

std::unique_ptr<Verifier> make_weighted(std::unique_ptr<const Verifier> verifier, std::vector<WeightedVerifier> terms) {
  return std::make_unique<Weighted>(std::move(verifier), std::move(terms));
}

}  // namespace dapo
