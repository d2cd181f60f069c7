#include "host/app/terminal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "core/check.h"
#include "host/train/step_text.h"

namespace dapo {
namespace {

/// "2026-11-26 07:08:09 text": each line of the text with the local time.
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

TerminalProgress::TerminalProgress(int64_t total_steps, bool will_log)
    : live_(isatty(STDERR_FILENO) != 0), will_log_(will_log), total_steps_(total_steps) {}

std::string TerminalProgress::left_text() const {
  const int64_t steps = step_ - first_step_;
  if (steps <= 0) return "";
  const double each = before_step_ / steps;
  const double left = each * (total_steps_ - step_ + 1) - (since_first_.seconds() - before_step_);
  return fmt::format("{} left", duration_text(std::max(0.0, left)));
}

/// "step 3/100  rollout 312/1024  1.2k tok/s  rollout 0:40 left  2:03:10 left"
std::string TerminalProgress::phase_text(int64_t done, int64_t total) const {
  const double here = since_phase_.seconds();
  std::string text = step_ > 0 ? fmt::format("step {}/{}  ", step_, total_steps_) : "";
  text += fmt::format("{} {}/{}", phase_name(phase_), done, total);
  if (here > 0.2) text += fmt::format("  {} tok/s", count_text(tokens_ / here));
  if (done > 0 && here > 0.5)
    text += fmt::format("  {} {} left", phase_name(phase_), duration_text(here * (total - done) / done));
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
    log_.append(stamped(text));  // if the disk is full, it is written with the next line
  else
    early_ += stamped(text);
}

void TerminalProgress::log_to(const std::string& path, AppendFile::Start start) {
  log_ = AppendFile(path, start);
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
