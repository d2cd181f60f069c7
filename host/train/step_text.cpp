#include "host/train/step_text.h"

#include <fmt/format.h>

namespace dapo {

std::string duration_text(double seconds) {
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  if (seconds > 48 * 3600) return fmt::format("{:.0f} hours", seconds / 3600);
  const int64_t s = seconds + 0.5;
  return s < 3600 ? fmt::format("{}:{:02}", s / 60, s % 60)
                  : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

std::string count_text(double n) {
  if (n < 1e4) return fmt::format("{:.0f}", n);
  return n < 1e6   ? fmt::format("{:.1f}k", n / 1e3)
         : n < 1e9 ? fmt::format("{:.2f}M", n / 1e6)
                   : fmt::format("{:.2f}G", n / 1e9);
}

std::string step_text(const StepMetrics& m, int64_t total) {
  std::string out = fmt::format("step {}/{}  ", m.step, total);
  if (m.groups_generated > 0)
    out += fmt::format(
        "reward {:+.3f}  acc {:.1f} %  length {:.1f} (max {:.0f}, cut {:.1f} %)  groups kept {}, right {}, wrong {}{}",
        m.reward, 100 * m.acc, m.length_mean, m.length_max, 100 * m.truncated, m.groups_kept, m.groups_right,
        m.groups_wrong, m.groups_unjudged > 0 ? fmt::format(", unjudged {}", m.groups_unjudged) : "");
  else
    out += "all groups from the bank";
  if (m.age_max > 0) out += fmt::format(", age {:.2f} (max {:.0f})", m.age_mean, m.age_max);
  out += fmt::format("  entropy {:.3f}  grad {:.3g}", m.entropy, m.grad_norm);
  if (m.updates > 1) out += fmt::format(" (max {:.3g})", m.grad_norm_max);
  out += m.mismatch_tokens > 0 ? fmt::format("  mismatch {:g} ({} tokens)", m.mismatch, count_text(m.mismatch_tokens))
                               : "  mismatch -";
  out += fmt::format("  {:.2f} s =", m.seconds);
  const char* before = " ";
  for (const Phase p : {Phase::rollout, Phase::reward, Phase::update}) {
    out += fmt::format("{}{} {:.2f}", before, phase_name(p), m.phases[p].seconds);
    before = " + ";
  }
  const auto rate = [](const PhaseTimes::Row& r) { return count_text(r.seconds > 0 ? r.tokens / r.seconds : 0); };
  out += fmt::format("  tok/s {} / {}", rate(m.phases[Phase::rollout]), rate(m.phases[Phase::update]));
  return out;
}

std::string sft_text(const SftMetrics& m, int64_t total) {
  return fmt::format("sft {}/{}  loss {:.4f}  grad {:.3g}  lr {:.2e}  tok/s {}", m.step, total, m.loss, m.grad_norm,
                     m.lr, count_text(m.seconds > 0 ? m.tokens / m.seconds : 0));
}

namespace {
std::string set_text(const SetResult& r, const std::string& title) {
  const auto percent = [](const Estimate& e) {
    return fmt::format("{:.1f} % ({:.1f} to {:.1f}", 100 * e.mean, 100 * e.low, 100 * e.high);
  };
  std::string out = fmt::format("{}: avg@{} {} with 95 % confidence)", title, r.n, percent(r.avg));
  if (r.n > 1) {
    for (const auto& [k, p] : r.pass)
      if (k > 1) out += fmt::format("  pass@{} {})", k, percent(p));
    out += fmt::format("  maj@{} {})", r.n, percent(r.maj));
  }
  out += fmt::format("  {} problems  length {:.1f}  cut {:.1f} %  {}", r.problems, r.length_mean, 100 * r.truncated,
                     duration_text(r.seconds));
  if (r.verifier_errors > 0) out += fmt::format("  verifier errors {}", r.verifier_errors);
  return out;
}
}  // namespace

std::string eval_text(const EvalResult& r, std::optional<int64_t> step) {
  const std::string title = step ? fmt::format("eval after step {}", *step) : "eval";
  std::string out;
  for (const SetResult& set : r.sets)
    out += (out.empty() ? "" : "\n") + set_text(set, r.sets.size() > 1 ? title + ", " + set.name : title);
  return out;
}

std::string comparison_text(const Comparison& c) {
  return fmt::format(
      "avg {:+.1f} points ({:+.1f} to {:+.1f} with 95 % confidence, paired by problem)  better on {}, worse on {} of "
      "{} "
      "problems",
      100 * c.difference.mean, 100 * c.difference.low, 100 * c.difference.high, c.better, c.worse, c.problems);
}

}  // namespace dapo
