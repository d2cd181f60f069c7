#include "core/check.h"
#include "host/app/commands.h"
#include "host/app/json_lines.h"
#include "host/verify/verify.h"

namespace dapo {

int run_verify_command(const VerifyOptions& o) {
  VerifierOptions options;
  options.strict_box = o.strict_box;
  options.flexible = o.flexible;
  if (o.strict_box && o.verifier != "math_dapo") fail_input("--strict-box belongs to math_dapo, not to {}", o.verifier);
  if (o.flexible && o.verifier != "gsm8k") fail_input("--flexible belongs to gsm8k, not to {}", o.verifier);
  const auto verifier = make_verifier(o.verifier, options);
  LineWriter out(o.out);
  read_rows(o.file, [&](const JsonRow& row) {
    // rows of rollouts/ and of `dapo eval -o` name the text "response"
    const char* solution = row.has("solution") || !row.has("response") ? "solution" : "response";
    const auto truth = row.answer("ground_truth");
    const auto v = verifier->verify(row.text(solution), truth);
    out.line(JsonLine().add("score", v.score).add("acc", v.acc).add("pred", v.pred).add("reason", v.reason).str());
  });
  out.commit();
  return 0;
}

}  // namespace dapo
