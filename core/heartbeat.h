// What a rank writes about itself into memory that the other processes of its machine read (host/parallel/watchdog.h):
// where it is, and that it moves. Cheap enough for every collective.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "core/side_thread.h"

namespace dapo {

/// A short text that one process writes and others read at any time.
class SharedWord {
 public:
  void set(std::string_view text) {
    std::array<uint64_t, 3> parts{};
    std::memcpy(parts.data(), text.data(), std::min(text.size(), sizeof parts));
    for (size_t i = 0; i < parts.size(); ++i) parts_[i].store(parts[i], std::memory_order_relaxed);
  }
  std::string text() const {
    std::array<char, sizeof parts_ + 1> chars{};
    for (size_t i = 0; i < parts_.size(); ++i) {
      const uint64_t part = parts_[i].load(std::memory_order_relaxed);
      std::memcpy(chars.data() + i * sizeof part, &part, sizeof part);
    }
    return chars.data();
  }

 private:
  std::array<std::atomic<uint64_t>, 3> parts_{};
};

/// The ranks of a collective (core/grid.h).
enum class Among : uint8_t {
  world,   ///< all
  tensor,  ///< those that share one copy of the weights
  data     ///< those that hold the same part of it
};
inline constexpr int kGroupings = 3;

struct Heartbeat {
  std::atomic<int32_t> pid{0};  ///< 0: not begun
  std::atomic<uint64_t> started{
      0};  ///< of the process, as /proc tells it: a number that is used again is another process
  std::atomic<uint64_t> beats{0};                         ///< grows while the rank moves
  std::array<std::atomic<uint64_t>, kGroupings> calls{};  ///< collectives begun, the one under way included: by Among
  std::atomic<Among> among{Among::world};                 ///< the ranks of the last one
  std::atomic<bool> inside{false};                        ///< which has not been left
  std::atomic<bool> device{false};  ///< what it is inside of is a wait for its device, whose own work may be long
  std::atomic<bool> left{false};    ///< the rank is done, and leaves
  SharedWord op, phase;

  uint64_t calls_of(Among a) const { return calls[static_cast<size_t>(a)].load(); }
  void beat() { beats.fetch_add(1, std::memory_order_relaxed); }
  void count(Among ranks, uint64_t call) {
    calls[static_cast<size_t>(ranks)].store(call, std::memory_order_relaxed);
    beat();
  }
  void enter(std::string_view name, Among ranks, uint64_t call, bool waits_for_device = false) {
    count(ranks, call);
    enter_wait(name, ranks, waits_for_device);
  }
  /// Inside what is counted elsewhere: by a SideThread of the rank.
  void enter_wait(std::string_view name, Among ranks, bool waits_for_device = false) {
    op.set(name);
    among.store(ranks, std::memory_order_relaxed);
    device.store(waits_for_device, std::memory_order_relaxed);
    inside.store(true, std::memory_order_release);
    beat();
  }
  void leave() {
    inside.store(false, std::memory_order_release);
    beat();
  }
};
static_assert(std::atomic<uint64_t>::is_always_lock_free, "a lock would be the process's own");

/// The heartbeat says that the rank is inside a collective, or waits for its device after one. Of a SideThread it counts
/// the calls alone: the rank itself is elsewhere.
class Entered {
 public:
  Entered(Heartbeat* heartbeat, std::string_view op, Among ranks, uint64_t call, bool waits_for_device = false)
      : heartbeat_(heartbeat) {
    if (!heartbeat_) return;
    if (works_beside)
      heartbeat_->count(ranks, call);
    else
      heartbeat_->enter(op, ranks, call, waits_for_device);
  }
  ~Entered() {
    if (!heartbeat_) return;
    if (works_beside)
      heartbeat_->beat();
    else
      heartbeat_->leave();
  }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;

 private:
  Heartbeat* heartbeat_;
};

}  // namespace dapo
