// Scores responses on worker threads while generation continues.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "host/verify/verify.h"

namespace dapo {

/// Counts since the pool was made.
struct VerifierCounters {
  uint64_t items = 0;
  uint64_t right = 0;
  uint64_t found = 0;
  uint64_t errors = 0;
  uint64_t slow = 0;         ///< items that took longer than the limit
  double seconds = 0;        ///< total worker time
  double worst_seconds = 0;  ///< the slowest item
};

/// Any number of threads may submit. Verdicts do not depend on the number of workers.
class VerifierPool {
 public:
  /// `slow_seconds`: an item that takes longer is counted as slow. (The built-in verifiers are linear in time and
  /// cannot hang; the count shows when a response is unreasonably long.)
  VerifierPool(std::shared_ptr<const Verifier> verifier, int threads, double slow_seconds = 1);
  /// Drops what is submitted but not begun (its futures fail), and cancels the verifier.
  ~VerifierPool();
  VerifierPool(const VerifierPool&) = delete;
  VerifierPool& operator=(const VerifierPool&) = delete;

  /// Verdicts in the order of the items.
  std::future<std::vector<Verdict>> submit(std::vector<VerifyItem> items);
  VerifierCounters counters() const;

 private:
  struct Batch;
  struct Piece {
    std::shared_ptr<Batch> batch;
    size_t begin, end;
  };
  void work();

  const std::shared_ptr<const Verifier> verifier_;
  const double slow_seconds_;
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Piece> queue_;    // guarded by mutex_
  VerifierCounters counters_;  // guarded by mutex_
  bool stopping_ = false;      // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace dapo
