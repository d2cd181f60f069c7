// A thread of each rank that looks at the heartbeats of its machine. A rank whose process is gone ends the others within
// seconds; one that they wait for, and that shows no sign of life for the limit, does so too. What to do then is decided
// by look(), a function of what was seen, so that it is tested without processes.
#pragma once

#include <array>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "host/parallel/heartbeat_page.h"

namespace dapo {

/// What one look sees of a rank of this machine.
struct RankSeen {
  int rank = 0;
  bool here = false;  ///< it runs, or ran, on this machine
  bool running = false, stopped = false, inside = false, left = false;
  bool device = false;         ///< it waits for its device, which may be at work of its own
  bool busy = false;           ///< it has used the CPU since the last look, or waits for it, or for a disk
  Among among = Among::world;  ///< the ranks of the last collective
  std::array<uint64_t, kGroupings> calls{};  ///< by Among
  uint64_t beats = 0;
  /// How far it is among those ranks. A device waits for collectives that were begun (`begun`), not for what their ranks
  /// do since.
  std::pair<uint64_t, bool> place(Among a, bool begun) const {
    return {calls[static_cast<size_t>(a)], begun || (inside && among == a)};
  }
};

/// The rank that the others leave for, and why, as a clause.
struct Culprit {
  int rank = -1;  ///< -1: of another machine
  std::string why;
};

/// Judges one rank's view of the others, look by look. Time is counted in looks, so that a machine that was suspended
/// finds nobody late.
class Judge {
 public:
  /// limit: seconds without a sign of life after which a rank that others wait for hangs; a rank that computes gets
  /// kBusyTimes as long, and so do ranks of other machines, which are not seen.
  Judge(int me, double limit) : me_(me), limit_(limit) {}
  static constexpr double kBusyTimes = 10;
  static constexpr double kLeaveSeconds = 3;  ///< for ranks that leave one after another
  /// tp: ranks of a tensor group (core/grid.h).
  std::optional<Culprit> look(const std::vector<RankSeen>& ranks, double seconds_since_last, int tp = 1);

 private:
  std::optional<Culprit> late(const std::vector<RankSeen>& ranks, int tp) const;
  std::optional<Culprit> stuck(const std::vector<RankSeen>& ranks, const RankSeen& at, int tp) const;
  double still(const std::vector<RankSeen>& ranks, const RankSeen& r) const {
    return memory_[static_cast<size_t>(&r - ranks.data())].still;
  }
  struct Memory {
    uint64_t beats = 0;
    double still = 0, idle = 0, gone = 0;  ///< seconds without a beat; of these without CPU time; since it left
  };
  int me_;
  double limit_;
  std::vector<Memory> memory_;
};

class Watchdog {
 public:
  /// Calls `bite` (from its thread, once) with a line that names the culprit.
  Watchdog(const HeartbeatPage& page, int me, double limit, std::function<void(const Culprit&)> bite);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  std::vector<RankSeen> see();
  const HeartbeatPage& page_;
  std::vector<double> cpu_;
  std::mutex mutex_;
  std::condition_variable stopping_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace dapo
