#include "core/side_thread.h"

#include <chrono>
#include <utility>

namespace dapo {

SideThread::~SideThread() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  given_.notify_all();
  thread_.join();
}

uint64_t SideThread::give(std::function<void()> work) {
  uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    number = ++count_;
  }
  given_.notify_all();
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  return number;
}

void SideThread::wait(uint64_t number) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_ >= number; });
  if (error_) std::rethrow_exception(error_);
}

double SideThread::seconds() {
  const std::lock_guard lock(mutex_);
  return seconds_;
}

void SideThread::run() {
  works_beside = true;
  for (std::unique_lock lock(mutex_);;) {
    given_.wait(lock, [&] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    const std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    if (!error_) {
      lock.unlock();
      const auto begin = std::chrono::steady_clock::now();
      std::exception_ptr error;
      try {
        work();
      } catch (...) {
        error = std::current_exception();
      }
      const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
      lock.lock();
      error_ = error;
      seconds_ += taken.count();
    }
    ++done_;
    changed_.notify_all();
  }
}

}  // namespace dapo
