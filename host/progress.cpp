#include "host/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "core/check.h"

namespace dapo {
namespace {

/// "2026-11-26 07:08:09 text": local time, each line of the text.
std::string stamped(const std::string& text) {
  std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char stamp[32];
  std::strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S ", &local);
  std::string out;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    out.append(stamp).append(text, begin, end - begin).append("\n");
    begin = end + 1;
  }
  return out;
}

}  // namespace

std::string duration_text(double seconds) {
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  if (seconds > 48 * 3600) return fmt::format("{:.0f} hours", seconds / 3600);
  const auto s = static_cast<int64_t>(seconds + 0.5);
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
  out += m.mismatch_tokens > 0 ? fmt::format("  mismatch {:g} ({} tokens)", m.mismatch,
                                             count_text(static_cast<double>(m.mismatch_tokens)))
                               : "  mismatch -";
  out += fmt::format("  {:.2f} s =", m.seconds);
  const char* before = " ";
  for (const Phase p : {Phase::rollout, Phase::reward, Phase::update}) {
    out += fmt::format("{}{} {:.2f}", before, phase_name(p), m.phases[p].seconds);
    before = " + ";
  }
  const auto rate = [](const PhaseTimes::Row& r) {
    return count_text(r.seconds > 0 ? static_cast<double>(r.tokens) / r.seconds : 0);
  };
  out += fmt::format("  tok/s {} / {}", rate(m.phases[Phase::rollout]), rate(m.phases[Phase::update]));
  return out;
}

std::string sft_text(const SftMetrics& m, int64_t total) {
  return fmt::format("sft {}/{}  loss {:.4f}  grad {:.3g}  lr {:.2e}  tok/s {}", m.step, total, m.loss, m.grad_norm,
                     m.lr, count_text(m.seconds > 0 ? static_cast<double>(m.tokens) / m.seconds : 0));
}

std::string eval_text(const EvalResult& r, int64_t step) {
  std::string out = step < 0 ? "eval: " : fmt::format("eval after step {}: ", step);
  out += fmt::format("avg@{} {:.1f} % ({:.1f} to {:.1f} with 95 % confidence)", r.n, 100 * r.avg, 100 * r.low,
                     100 * r.high);
  if (r.n > 1) {
    for (const auto& [k, p] : r.pass)
      if (k > 1) out += fmt::format("  pass@{} {:.1f} %", k, 100 * p);
    out += fmt::format("  maj@{} {:.1f} %", r.n, 100 * r.maj);
  }
  out += fmt::format("  {} problems  length {:.1f}  cut {:.1f} %  {}", r.problems, r.length_mean, 100 * r.truncated,
                     duration_text(r.seconds));
  if (r.verifier_errors > 0) out += fmt::format("  verifier errors {}", r.verifier_errors);
  return out;
}

TerminalProgress::TerminalProgress(int64_t total_steps, bool will_log)
    : live_(isatty(STDERR_FILENO) != 0), will_log_(will_log), total_steps_(total_steps) {}

std::string TerminalProgress::left_text() const {
  const int64_t steps = step_ - first_step_;
  if (steps <= 0) return "";
  const double each = before_step_ / static_cast<double>(steps);
  const double left = each * static_cast<double>(total_steps_ - step_ + 1) - (since_first_.seconds() - before_step_);
  return fmt::format("{} left", duration_text(std::max(0.0, left)));
}

/// "step 3/100  rollout 312/1024  1.2k tok/s  rollout 0:40 left  2:03:10 left"
std::string TerminalProgress::phase_text(int64_t done, int64_t total) const {
  const double here = since_phase_.seconds();
  std::string text = step_ > 0 ? fmt::format("step {}/{}  ", step_, total_steps_) : "";
  text += fmt::format("{} {}/{}", phase_name(phase_), done, total);
  if (here > 0.2) text += fmt::format("  {} tok/s", count_text(static_cast<double>(tokens_) / here));
  if (done > 0 && here > 0.5)
    text += fmt::format("  {} {} left", phase_name(phase_),
                        duration_text(here * static_cast<double>(total - done) / static_cast<double>(done)));
  if (const std::string left = left_text(); !left.empty()) text += "  run " + left;
  return text;
}

void TerminalProgress::report(Phase phase, int64_t done, int64_t total, int64_t tokens) {
  if (on_report) on_report(phase);
  if (phase != phase_ || tokens < tokens_) since_phase_ = {};
  phase_ = phase;
  tokens_ = tokens;
  if (!live_) {
    if (since_shown_.seconds() < 60) return;
    since_shown_ = {};
    return line("  " + phase_text(done, total));
  }
  if (shown_ && since_shown_.seconds() < 0.1) return;
  since_shown_ = {};
  shown_ = true;
  std::fputs(("\r\x1b[K" + phase_text(done, total)).c_str(), stderr);
  std::fflush(stderr);
}

void TerminalProgress::clear() {
  if (!shown_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  shown_ = false;
}

void TerminalProgress::note(const char* text) {
  line(fmt::format("  note: {}", text));
}

void TerminalProgress::line(const std::string& text) {
  clear();
  log(text);
  print(text);
}

void TerminalProgress::print(const std::string& text) {
  if (deaf_) return;
  try {
    print_out(text + "\n");
  } catch (const Error& e) {
    if (!will_log_) throw;
    deaf_ = true;
    std::clearerr(stdout);
    const std::string what = fmt::format("{}; the run goes on, its lines are in log.txt", e.what());
    log(what);
    std::fprintf(stderr, "%s\n", what.c_str());
  }
}

void TerminalProgress::log(const std::string& text) {
  if (log_)
    log_.append(stamped(text));  // what a full disk refuses goes with the next line
  else
    early_ += stamped(text);
}

void TerminalProgress::log_to(const std::string& path) {
  log_ = AppendFile(path);
  log_.append(early_);
  early_.clear();
}

void TerminalProgress::step(int64_t step) {
  if (first_step_ == 0) {
    first_step_ = step;
    since_first_ = {};
  }
  before_step_ = since_first_.seconds();
  step_ = step;
  phase_ = Phase::count;
  if (!live_) since_shown_ = {};
}

}  // namespace dapo
