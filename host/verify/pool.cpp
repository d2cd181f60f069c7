#include "host/verify/pool.h"

#include <algorithm>
#include <chrono>

#include "core/check.h"

namespace dapo {

struct VerifierPool::Batch {
  std::vector<VerifyItem> items;
  std::vector<Verdict> verdicts;
  std::promise<std::vector<Verdict>> done;
  size_t left = 0;  // guarded by the pool's mutex
};

VerifierPool::VerifierPool(std::shared_ptr<const Verifier> verifier, int threads, double slow_seconds)
    : verifier_(std::move(verifier)), slow_seconds_(slow_seconds) {
  CHECK(verifier_ != nullptr);
  CHECK_GT(threads, 0);
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

VerifierPool::~VerifierPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    queue_.clear();
  }
  ready_.notify_all();
  verifier_->cancel();
  for (std::thread& t : threads_) t.join();
}

std::future<std::vector<Verdict>> VerifierPool::submit(std::vector<VerifyItem> items) {
  const size_t piece = verifier_->items_at_once();
  auto batch = std::make_shared<Batch>();
  batch->items = std::move(items);
  batch->left = batch->items.size();
  batch->verdicts.resize(batch->left);
  auto result = batch->done.get_future();
  if (batch->left == 0) {
    batch->done.set_value({});
    return result;
  }
  {
    const std::lock_guard lock(mutex_);
    CHECK(!stopping_);
    for (size_t begin = 0; begin < batch->items.size(); begin += piece)
      queue_.push_back({batch, begin, std::min(begin + piece, batch->items.size())});
  }
  ready_.notify_all();
  return result;
}

void VerifierPool::work() {
  using Clock = std::chrono::steady_clock;
  for (;;) {
    Piece piece;
    {
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      piece = std::move(queue_.front());
      queue_.pop_front();
    }
    VerifierCounters local;
    for (size_t i = piece.begin; i < piece.end; ++i) {
      const VerifyItem& item = piece.batch->items[i];
      const auto start = Clock::now();
      Verdict v = verifier_->verify(item);
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      local.right += v.acc;
      local.found += v.found;
      local.errors += v.error;
      local.slow += seconds > slow_seconds_;
      local.seconds += seconds;
      local.worst_seconds = std::max(local.worst_seconds, seconds);
      piece.batch->verdicts[i] = std::move(v);
    }
    const std::lock_guard lock(mutex_);
    counters_.items += piece.end - piece.begin;
    counters_.right += local.right;
    counters_.found += local.found;
    counters_.errors += local.errors;
    counters_.slow += local.slow;
    counters_.seconds += local.seconds;
    counters_.worst_seconds = std::max(counters_.worst_seconds, local.worst_seconds);
    piece.batch->left -= piece.end - piece.begin;
    if (piece.batch->left == 0) piece.batch->done.set_value(std::move(piece.batch->verdicts));
  }
}

VerifierCounters VerifierPool::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

}  // namespace dapo
