#include "model/upload.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "model/owned_block.h"

namespace dapo {
namespace {

/// body(i) for i in [0, count) on several threads; the first error is thrown again.
void run_jobs(size_t count, const std::function<void(size_t)>& body) {
  const size_t threads = std::clamp<size_t>(std::thread::hardware_concurrency(), 1, std::max<size_t>(count, 1));
  std::atomic<size_t> next{0};
  std::exception_ptr error;
  std::mutex mutex;
  const auto work = [&] {
    try {
      for (size_t i; (i = next++) < count;) body(i);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
      next = count;
    }
  };
  std::vector<std::thread> pool;
  for (size_t i = 1; i < threads; ++i) pool.emplace_back(work);
  work();
  for (std::thread& t : pool) t.join();
  if (error) std::rethrow_exception(error);
}

/// A few pinned buffers, so that some are filled while others are being copied. Called from several threads.
class Staging {
 public:
  Staging(Backend& backend, size_t bytes) : backend_(backend) {
    for (Buffer& b : buffers_) {
      b.memory = std::make_unique<OwnedBlock>(backend, bytes, OwnedBlock::pinned);
      free_.push_back(&b);
    }
  }
  ~Staging() {
    try {
      backend_.synchronize();
    } catch (const Error&) {  // already thrown where it happened
    }
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// write(p) writes the tensor's bytes to p.
  void send(const Tensor& to, const std::function<void(void*)>& write) {
    Buffer* b = acquire();
    try {
      CHECK_LE(to.bytes(), b->memory->bytes());
      write(b->memory->data());
      const std::lock_guard lock(mutex_);
      backend_.copy_in(to, b->memory->data());
      b->mark = backend_.record();
      b->sent = true;
    } catch (...) {
      give_back(b);
      throw;
    }
    give_back(b);
  }

 private:
  struct Buffer {
    std::unique_ptr<OwnedBlock> memory;
    uint64_t mark = 0;
    bool sent = false;  ///< copied from before; done when the stream has passed `mark`
  };
  Buffer* acquire() {
    std::unique_lock lock(mutex_);
    available_.wait(lock, [this] { return !free_.empty(); });
    Buffer* b = free_.front();
    free_.erase(free_.begin());
    try {
      if (b->sent) backend_.wait(b->mark);
    } catch (...) {
      free_.push_back(b);
      available_.notify_one();
      throw;
    }
    return b;
  }
  void give_back(Buffer* b) {
    const std::lock_guard lock(mutex_);
    free_.push_back(b);
    available_.notify_one();
  }

  Backend& backend_;
  std::array<Buffer, 4> buffers_;
  std::vector<Buffer*> free_;  // oldest first, since its copy is most likely done
  std::mutex mutex_;           // only one thread at a time may call the backend
  std::condition_variable available_;
};

}  // namespace

void upload(Backend& backend, std::span<const Tensor> to, const std::function<void(size_t i, void* p)>& fill) {
  if (to.empty()) return;
  size_t most_bytes = 0;
  for (const Tensor& t : to) most_bytes = std::max(most_bytes, t.bytes());
  const std::unique_ptr<Staging> staging =
      backend.host_view(to[0]) != nullptr ? nullptr : std::make_unique<Staging>(backend, most_bytes);
  run_jobs(to.size(), [&](size_t i) {
    if (staging)
      staging->send(to[i], [&](void* p) { fill(i, p); });
    else
      fill(i, backend.host_view(to[i]));
  });
  backend.synchronize();
}

}  // namespace dapo
