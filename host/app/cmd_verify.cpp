#include <cstdio>
#include <deque>
#include <utility>

#include "core/check.h"
#include "host/app/commands.h"
#include "host/app/response_lines.h"
#include "host/verify/pool.h"

namespace dapo {

int run_verify_command(const VerifyOptions& o) {
  VerifierOptions options;
  options.strict_box = o.strict_box;
  options.flexible = o.flexible;
  if (o.strict_box && o.verifier != "math_dapo") fail_input("--strict-box belongs to math_dapo, not to {}", o.verifier);
  if (o.flexible && o.verifier != "gsm8k") fail_input("--flexible belongs to gsm8k, not to {}", o.verifier);
  if (!o.pattern.empty() && o.verifier != "format") fail_input("--pattern belongs to format, not to {}", o.verifier);
  if (!o.command.empty() && o.verifier != "command") fail_input("--command belongs to command, not to {}", o.verifier);
  if (!(o.timeout > 0)) fail_input("--timeout {}: expects seconds above 0", o.timeout);
  if (o.workers < 1 || o.workers > 1024) fail_input("--workers {}: expects 1 to 1024", o.workers);
  options.pattern = o.pattern;
  if (!o.command.empty()) options.command = {o.command};
  options.timeout = o.timeout;
  VerifierPool pool(make_verifier(o.verifier, options), o.workers);
  check_output(o.out, {o.file});
  LineWriter out(o.out);
  std::deque<std::future<std::vector<Verdict>>> pending;  // in order; so many that the workers are never idle
  std::string first_error;
  const auto write_one = [&] {
    for (const Verdict& v : pending.front().get()) {
      if (v.error && first_error.empty()) first_error = v.reason;
      out.line(add_verdict(JsonLine().add("score", v.score).add("acc", v.acc), v).str());
    }
    pending.pop_front();
  };
  std::vector<VerifyItem> items;
  const auto submit = [&] {
    if (!items.empty()) pending.push_back(pool.submit(std::exchange(items, {})));
    while (pending.size() > 64) write_one();
  };
  read_rows(o.file, [&](const JsonRow& row) {
    // rows of rollouts/ and of `dapo eval -o` name the text "response"
    const char* solution = row.has("solution") || !row.has("response") ? "solution" : "response";
    items.push_back({row.text(solution), row.answer("ground_truth"), row.text_or("id", ""),
                     row.has("prompt") && row.is_text("prompt") ? row.text("prompt") : "",
                     row.text_or("data_source", "")});
    if (items.size() == 64) submit();
  });
  submit();
  while (!pending.empty()) write_one();
  out.commit();
  if (const uint64_t errors = pool.counters().errors; errors > 0)
    fmt::print(stderr, "dapo: {} of {} responses could not be judged; the first {}\n", errors, pool.counters().items,
               first_error);
  return 0;
}

}  // namespace dapo
