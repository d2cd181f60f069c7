#include "host/app/live_line.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "host/train/step_text.h"

namespace dapo {
namespace {

/// `cells` columns, of which done / total are filled.
std::string bar(int cells, int64_t done, int64_t total, bool unicode) {
  const int full = total > 0 ? static_cast<int>(std::min<int64_t>(done * cells / total, cells)) : 0;
  std::string out;
  for (int i = 0; i < cells; ++i)
    if (unicode)
      out += i < full ? "\u2501" : "\u2500";  // heavy and light line
    else
      out += i < full ? '=' : i == full ? '>' : ' ';
  return unicode ? out : "[" + out + "]";
}

}  // namespace

void Eta::add(double seconds) {
  constexpr double kKeep = 0.85;  // a step weighs half after four more
  sum_ = kKeep * sum_ + seconds;
  weight_ = kKeep * weight_ + 1;
}

double Eta::left(int64_t steps, double elapsed, double phase) const {
  if (weight_ == 0 || steps <= 0) return 0;
  return std::max(each() - elapsed, phase) + each() * static_cast<double>(steps - 1);
}

double PhaseState::left() const {
  return done > 0 && seconds > 0.5 ? seconds * static_cast<double>(total - done) / static_cast<double>(done) : 0;
}

std::string live_text(const PhaseState& p, double run_left, int width, bool unicode) {
  const std::string step = p.step > 0 ? fmt::format("step {}/{}  ", p.step, p.steps) : "";
  const std::string head = step + p.phase + " ", count = fmt::format("{}/{}", p.done, p.total);
  std::string speed, left;
  if (p.seconds > 0.2) speed = fmt::format("  {} tok/s", count_text(static_cast<double>(p.tokens) / p.seconds));
  if (const std::string text = left_text(p.left()); !text.empty()) left = "  " + text;
  const std::string run = run_left > 0 ? "  run " + left_text(run_left) : "";
  if (width <= 0) return head + count + speed + left + run;

  constexpr int kLeastBar = 8, kMostBar = 30;
  const auto room = [&](const std::string& rest) { return width - 1 - std::ssize(head) - std::ssize(rest); };
  std::string rest = count + speed + left + run;
  for (const std::string& shorter : {count + left + run, count + run, count})
    if (room(rest) < kLeastBar + 3) rest = shorter;
  const int cells = static_cast<int>(std::min<std::ptrdiff_t>(room(rest) - (unicode ? 1 : 3), kMostBar));
  if (cells >= kLeastBar) return head + bar(cells, p.done, p.total, unicode) + " " + rest;
  return (head + rest).substr(0, static_cast<size_t>(std::max(width - 1, 0)));
}

int terminal_width(int descriptor) {
  winsize size{};
  if (isatty(descriptor) == 0) return 0;
  return ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

bool utf8_locale() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"})
    if (const char* value = std::getenv(name); value != nullptr && *value != 0) {
      std::string text = value;
      std::ranges::transform(text, text.begin(), [](unsigned char c) { return std::tolower(c); });
      return text.find("utf-8") != text.npos || text.find("utf8") != text.npos;
    }
  return false;
}

}  // namespace dapo
