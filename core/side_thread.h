// A thread beside a rank's own, which does what it is given in order: how the CPU backend runs Backend::beside().
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace dapo {

/// Whether the calling thread is a SideThread. What it waits for is not where the rank is (core/heartbeat.h), and it must
/// leave the core to the rank while it waits.
inline thread_local bool works_beside = false;

class SideThread {
 public:
  SideThread() = default;
  ~SideThread();
  SideThread(const SideThread&) = delete;
  SideThread& operator=(const SideThread&) = delete;

  /// Queues work; returns its number, 1 for the first. The thread starts with the first. After an error the rest is
  /// dropped.
  uint64_t give(std::function<void()> work);
  /// Returns when work `number`, and all before it, is done. Throws the error of the first that failed, now and later.
  void wait(uint64_t number);
  /// Seconds spent on work that is done.
  double seconds();

 private:
  void run();
  std::mutex mutex_;
  std::condition_variable given_, changed_;
  std::deque<std::function<void()>> queue_;
  uint64_t count_ = 0, done_ = 0;
  bool stop_ = false;
  std::exception_ptr error_;
  double seconds_ = 0;
  std::thread thread_;
};

}  // namespace dapo
