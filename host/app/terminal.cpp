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
    : live_(isatty(STDERR_FILENO) != 0), unicode_(utf8_locale()), will_log_(will_log), total_steps_(total_steps) {}

double TerminalProgress::left(bool done) const {
  if (step_ == 0) return 0;
  Eta eta = eta_;
  if (done) eta.add(since_step_.seconds());
  return eta.left(total_steps_ - step_ + (done ? 0 : 1), done ? 0 : since_step_.seconds(), done ? 0 : state_.left());
}

void TerminalProgress::report(Phase phase, int64_t done, int64_t total, int64_t tokens) {
  if (on_report) on_report(phase);
  if (phase != phase_ || tokens < state_.tokens) since_phase_ = {};
  phase_ = phase;
  state_ = {step_, total_steps_, phase_name(phase), done, total, tokens, since_phase_.seconds()};
  if (!live_) {
    if (since_shown_.seconds() < 60) return;
    since_shown_ = {};
    return line("  " + live_text(state_, left(), 0, false));
  }
  if (shown_ && since_shown_.seconds() < 0.1) return;
  since_shown_ = {};
  shown_ = true;
  std::fputs(("\r\x1b[K" + live_text(state_, left(), terminal_width(STDERR_FILENO), unicode_)).c_str(), stderr);
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
  if (step_ > 0) eta_.add(since_step_.seconds());
  since_step_ = {};
  step_ = step;
  phase_ = Phase::count;
  if (!live_) since_shown_ = {};
}

void TerminalProgress::step_line(const Fields& metrics) {
  const double left_now = left(true);
  const int width = terminal_width(STDOUT_FILENO);
  clear();
  if (table_lines_ == 0) log(step_head(total_steps_));
  if (table_lines_ == 0 || (width > 0 && table_lines_ % 20 == 0)) print(step_head(total_steps_, width));
  ++table_lines_;
  log(step_text(metrics, total_steps_, left_now));
  print(step_text(metrics, total_steps_, left_now, width));
}

}  // namespace dapo
