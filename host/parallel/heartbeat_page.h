// The heartbeats of the ranks on one machine: a page of memory that they and the program that started them share. No
// network, and no file that stays: it is unlinked as soon as all have opened it.
#pragma once

#include <span>
#include <string>

#include "core/heartbeat.h"

namespace dapo {

class HeartbeatPage {
 public:
  HeartbeatPage() = default;
  /// Opens /dev/shm/NAME, or creates it, for `ranks` ranks of the whole run. Error (exit 3) if that fails.
  HeartbeatPage(const std::string& name, int ranks);
  ~HeartbeatPage();
  HeartbeatPage(HeartbeatPage&& other) noexcept;
  HeartbeatPage& operator=(HeartbeatPage&& other) noexcept;

  /// Whatever is open stays so.
  static void unlink(const std::string& name);
  static std::string new_name();

  /// By rank. Those of other machines have pid 0.
  std::span<Heartbeat> ranks() const {
    return {reinterpret_cast<Heartbeat*>(shared_ + 1), static_cast<size_t>(count_)};
  }
  /// Ranks of a tensor group, once they are known; until then ranks meet only as one world.
  int tensor_ranks() const { return shared_->tensor_ranks.load() > 0 ? shared_->tensor_ranks.load() : 1; }
  void set_tensor_ranks(int ranks) const { shared_->tensor_ranks.store(ranks); }
  /// True once, for the first process that asks: it prints what is wrong. `code`: the run's exit code, not 0.
  bool first_to_report(int code) const {
    int32_t none = 0;
    return shared_->reported.compare_exchange_strong(none, code);
  }
  /// The exit code of the one who has reported; 0: nobody has.
  int reported() const { return shared_->reported.load(); }

 private:
  struct alignas(Heartbeat) Shared {  // the heartbeats follow
    std::atomic<int32_t> reported, tensor_ranks;
  };
  Shared* shared_ = nullptr;
  size_t bytes_ = 0;
  int count_ = 0;
};

/// A process as /proc shows it.
struct ProcessState {
  char state = 0;        ///< 'R', 'S', 'T' (stopped), ...; 0: there is no such process
  uint64_t started = 0;  ///< with the pid, names a process for ever
  double cpu_seconds = 0;
  bool alive() const { return state != 0 && state != 'Z' && state != 'X'; }
};
ProcessState process_state(int pid);
/// Whether the rank's process runs.
bool alive(const Heartbeat& rank);
/// This process is the rank.
void begin_heartbeat(Heartbeat& rank);
/// "rank 1 (pid 123), in phase rollout, in all_reduce_sum, its call 17".
std::string rank_text(int rank, const Heartbeat& heartbeat);

}  // namespace dapo
