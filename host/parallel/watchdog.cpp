#include "host/parallel/watchdog.h"

#include <algorithm>
#include <chrono>

#include "core/check.h"

namespace dapo {
namespace {
constexpr auto kLook = std::chrono::milliseconds(500);
constexpr double kBusySeconds = 0.05;  ///< of CPU time in a look; the watchdog itself takes less

/// Whether two ranks take part in the same collectives among `a`.
bool meet(int one, int other, Among a, int tp) {
  return a == Among::world || (a == Among::tensor ? one / tp == other / tp : one % tp == other % tp);
}
}  // namespace

std::optional<Culprit> Judge::look(const std::vector<RankSeen>& ranks, double seconds_since_last, int tp) {
  memory_.resize(ranks.size());
  // A pause longer than a look means that this process, or the machine, stood still: the others get their time anew.
  const double passed = std::min(seconds_since_last, 2.0);
  for (size_t i = 0; i < ranks.size(); ++i) {
    const RankSeen& r = ranks[i];
    Memory& m = memory_[i];
    const bool moved = r.beats != m.beats;
    m.beats = r.beats;
    m.still = moved ? 0 : m.still + passed;
    m.idle = moved || r.busy ? 0 : m.idle + passed;
    m.gone = r.here && r.left ? m.gone + passed : 0;
  }
  const auto& me = *std::find_if(ranks.begin(), ranks.end(), [&](const RankSeen& r) { return r.rank == me_; });
  if (me.left) return std::nullopt;
  for (size_t i = 0; i < ranks.size(); ++i) {
    const RankSeen& r = ranks[i];
    if (!r.here || r.rank == me_) continue;
    if (!r.left && !r.running) return Culprit{r.rank, "has died"};
    const auto among = static_cast<size_t>(me.among);
    if (me.inside && r.left && meet(r.rank, me_, me.among, tp) && r.calls[among] < me.calls[among] &&
        memory_[i].gone >= kLeaveSeconds)
      return Culprit{r.rank, fmt::format("has left, and does not come to call {}", me.calls[among])};
  }
  return late(ranks, tp);
}

/// Whom this rank waits for: the one of its collective that is furthest behind; where that waits among other ranks, the
/// one that it waits for.
std::optional<Culprit> Judge::late(const std::vector<RankSeen>& ranks, int tp) const {
  const RankSeen* at = &*std::ranges::find(ranks, me_, &RankSeen::rank);
  if (!at->inside || still(ranks, *at) < limit_) return std::nullopt;
  for (size_t hops = 0;; ++hops) {
    const Among among = at->among;
    const bool device = at->device;
    const RankSeen* behind = at;
    for (const RankSeen& r : ranks)
      if (r.here && !r.left && meet(r.rank, at->rank, among, tp) &&
          r.place(among, device) < behind->place(among, device))
        behind = &r;
    if (behind == at || hops > ranks.size()) return stuck(ranks, *at, tp);
    at = behind;
    if (!at->inside || at->among == among) break;
  }
  const Memory& m = memory_[static_cast<size_t>(at - ranks.data())];
  if (at->stopped && m.still >= limit_)
    return Culprit{at->rank, fmt::format("is stopped (a SIGSTOP, for {:.0f} s)", m.still)};
  if (m.idle >= limit_ || m.still >= limit_ * kBusyTimes)
    return Culprit{at->rank, fmt::format("hangs: no sign of life for {:.0f} s", m.still)};
  return std::nullopt;
}

/// All ranks of a collective that are seen wait in it, among them `at`.
std::optional<Culprit> Judge::stuck(const std::vector<RankSeen>& ranks, const RankSeen& at, int tp) const {
  const double waited = still(ranks, at);
  if (waited < limit_) return std::nullopt;
  bool elsewhere = false, works = false;
  for (const RankSeen& r : ranks) {
    if (!meet(r.rank, at.rank, at.among, tp)) continue;
    elsewhere = elsewhere || !r.here;
    works = works || (r.here && r.device);
    // A stopped rank looks as if it waited like the others.
    if (r.here && r.stopped && still(ranks, r) >= limit_)
      return Culprit{r.rank, fmt::format("is stopped (a SIGSTOP, for {:.0f} s)", still(ranks, r))};
  }
  if ((elsewhere || works) && waited < limit_ * kBusyTimes) return std::nullopt;
  return Culprit{-1, fmt::format("a rank {} has not come for {:.0f} s",
                                 elsewhere ? "of another machine" : "that waits as well", waited)};
}

Watchdog::Watchdog(const HeartbeatPage& page, int me, double limit, std::function<void(const Culprit&)> bite)
    : page_(page), cpu_(page.ranks().size()), thread_([this, me, limit, bite = std::move(bite)] {
        Judge judge(me, limit);
        auto last = std::chrono::steady_clock::now();
        for (std::unique_lock lock(mutex_); !stopping_.wait_for(lock, kLook, [&] { return stop_; });) {
          const auto now = std::chrono::steady_clock::now();
          const double passed = std::chrono::duration<double>(now - last).count();
          last = now;
          if (const auto culprit = judge.look(see(), passed, page_.tensor_ranks())) {
            bite(*culprit);
            return;
          }
        }
      }) {}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stopping_.notify_all();
  thread_.join();
}

std::vector<RankSeen> Watchdog::see() {
  std::vector<RankSeen> seen;
  for (int r = 0; r < std::ssize(page_.ranks()); ++r) {
    const Heartbeat& h = page_.ranks()[r];
    RankSeen s;
    s.rank = r;
    s.here = h.pid.load() != 0;
    if (s.here) {
      // First the process: one that is gone has said before whether it has left.
      const ProcessState p = process_state(h.pid.load());
      s.running = p.alive() && p.started == h.started.load();
      s.left = h.left.load();
      s.inside = h.inside.load();
      s.device = s.inside && h.device.load();
      s.among = h.among.load();
      for (size_t a = 0; a < s.calls.size(); ++a) s.calls[a] = h.calls[a].load();
      s.beats = h.beats.load();
      s.stopped = p.state == 'T' || p.state == 't';
      s.busy = p.state == 'D' || p.state == 'R' || p.cpu_seconds > cpu_[r] + kBusySeconds;
      cpu_[r] = p.cpu_seconds;
    }
    seen.push_back(s);
  }
  return seen;
}

}  // namespace dapo
