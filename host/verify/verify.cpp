#include "host/verify/verify.h"

#include <algorithm>

#include "core/answers.h"
#include "core/check.h"
#include "core/choices.h"
#include "host/verify/makers.h"
#include "host/verify/text.h"

namespace dapo {

Verdict Verifier::verify(const VerifyItem& item) const noexcept {
  Verdict out;
  try {
    if (verify::strip(item.ground_truth).empty()) fail_input("the ground truth is empty");
    judge_item(item, out);
  } catch (const std::exception& e) {
    out = {};
    out.score = options_.wrong;
    out.error = true;
    try {
      out.reason = std::string("error: ") + e.what();
    } catch (...) {  // no memory for the message: the flag still counts
    }
  }
  return out;
}

void AnswerVerifier::judge_item(const VerifyItem& item, Verdict& out) const {
  for (std::string_view rest = item.ground_truth; !out.acc && !rest.empty();) {  // one accepted answer must match
    const size_t cut = std::min(rest.find(kAnswerSeparator), rest.size());
    out = {};
    judge(item.response, rest.substr(0, cut), out);
    rest.remove_prefix(std::min(cut + 1, rest.size()));
  }
  out.score = out.acc ? options_.right : options_.wrong;
}

std::unique_ptr<Verifier> make_verifier(std::string_view name, const VerifierOptions& options) {
  // in the order of kVerifierNames
  constexpr decltype(&verify::make_exact) kMakers[] = {
      verify::make_math_dapo, verify::make_gsm8k, verify::make_boxed,  verify::make_math,
      verify::make_countdown, verify::make_exact, verify::make_format, verify::make_command};
  const int index = choice_index(kVerifierNames, name);
  if (index < 0) fail_input("verifier \"{}\" is unknown: one of {}", name, choice_list(kVerifierNames, ", "));
  return kMakers[index](options);
}

}  // namespace dapo
