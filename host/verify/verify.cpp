#include "host/verify/verify.h"

#include <algorithm>

#include "core/answers.h"
#include "core/check.h"
#include "core/choices.h"
#include "host/verify/makers.h"

namespace dapo {

Verdict Verifier::verify(std::string_view response, std::string_view ground_truth) const noexcept {
  Verdict out;
  try {
    if (ground_truth.empty()) fail_input("the ground truth is empty");
    for (std::string_view rest = ground_truth; !out.acc && !rest.empty();) {  // one of the accepted answers must match
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
    } catch (...) {  // no memory for the message: the flag still counts
    }
  }
  out.score = out.acc ? options_.right : options_.wrong;
  return out;
}

std::unique_ptr<Verifier> make_verifier(std::string_view name, const VerifierOptions& options) {
  // in the order of kVerifierNames
  constexpr decltype(&verify::make_exact) kMakers[] = {verify::make_math_dapo, verify::make_gsm8k, verify::make_boxed,
                                                       verify::make_countdown, verify::make_exact};
  const int index = choice_index(kVerifierNames, name);
  if (index < 0) fail_input("verifier \"{}\" is unknown: one of {}", name, choice_list(kVerifierNames, ", "));
  return kMakers[index](options);
}

}  // namespace dapo
