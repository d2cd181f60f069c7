// How a time grows with its input: for tests that a reader of hostile text is linear, or n log n.
#pragma once
#include <algorithm>
#include <ctime>

namespace dapo {

/// What is measured with a whole and a part of it. Over one doubling, a cache that only the part fits in is taken for a
/// quadratic term; over 16 times, such a term has grown by 256 and the cache still is a quarter.
constexpr int kGrowthParts = 16;
constexpr double kGrowthBound = 32;  // 16^1.25

/// Processor time of f(), in seconds.
template <typename F>
double thread_seconds(F&& f) {
  timespec a{}, b{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
  f();
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
  return static_cast<double>(b.tv_sec - a.tv_sec) + 1e-9 * static_cast<double>(b.tv_nsec - a.tv_nsec);
}

struct Growth {
  double ratio = 1e9, seconds = 1e9;
};
/// Time of whole() over that of part(), and that of whole(); of least times: other programs only ever add to one. Tried
/// again until it is below kGrowthBound: what is not linear shows each time. Below `shortest` the clock says nothing:
/// 0.
template <typename Whole, typename Part>
Growth growth(Whole&& whole, Part&& part, double shortest = 0) {
  Growth g;
  double least_part = 1e9;
  for (int attempt = 0; attempt < 20 && g.ratio >= kGrowthBound; ++attempt) {
    g.seconds = std::min(g.seconds, thread_seconds(whole));
    least_part = std::min(least_part, thread_seconds(part));
    g.ratio = g.seconds < shortest ? 0 : g.seconds / least_part;
  }
  return g;
}

}  // namespace dapo
