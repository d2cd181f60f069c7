// The line of a terminal that is rewritten while a phase runs, and how much time is left.
#pragma once

#include <cstdint>
#include <string>

namespace dapo {

/// Time left, from the durations of the steps done; recent ones weigh more, as steps become longer or shorter.
class Eta {
 public:
  /// A step took this long, with evaluations and saving after it.
  void add(double seconds);
  /// Of a step; 0 before the first.
  double each() const { return weight_ > 0 ? sum_ / weight_ : 0; }
  /// Seconds until `steps` steps are done, `elapsed` seconds into the first of them; its current phase takes at least
  /// `phase` more. 0 if unknown.
  double left(int64_t steps, double elapsed, double phase) const;

 private:
  double sum_ = 0, weight_ = 0;
};

/// How far a phase is.
struct PhaseState {
  int64_t step = 0, steps = 0;  ///< 0: before the first step
  const char* phase = "";
  int64_t done = 0, total = 0, tokens = 0;
  double seconds = 0;  ///< since the phase began
  /// Seconds until the phase ends; 0 if unknown.
  double left() const;
};

/// "step 3/100  rollout [=====>    ] 312/1024  1.2k tok/s  0:40 left  run 2:03:10 left", at most `width` columns; the bar
/// takes what the rest leaves. width 0: of any length, without a bar, for a log. `unicode`: draw the bar with line
/// characters. `run_left`: seconds, 0 if unknown.
std::string live_text(const PhaseState& p, double run_left, int width, bool unicode);

/// Columns of the terminal at this descriptor; 0 if it is none.
int terminal_width(int descriptor);
/// Whether the user's locale (LC_ALL, LC_CTYPE, LANG) is UTF-8.
bool utf8_locale();

}  // namespace dapo
