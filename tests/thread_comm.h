// A group of ranks as threads of one process, so that what runs on several ranks is tested without MPI.
#pragma once

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/host_comm.h"

namespace dapo {

/// How long a rank is waited for: longer than the slowest test under sanitizers on a busy machine.
constexpr std::chrono::seconds kThreadLimit{1200};

/// What the threads share. A rank that fails, or does not come within the limit, makes the others' calls fail.
class ThreadGroup {
 public:
  explicit ThreadGroup(int size, std::chrono::seconds limit = kThreadLimit)
      : size_(size), limit_(limit), blocks_(size) {}
  int size() const { return size_; }

  void leave_broken() {
    const std::lock_guard lock(mutex_);
    broken_ = true;
    changed_.notify_all();
    for (const std::weak_ptr<ThreadGroup>& part : parts_)
      if (const std::shared_ptr<ThreadGroup> group = part.lock()) group->leave_broken();
  }

 private:
  friend class ThreadComm;
  template <class Ready>
  void wait(std::unique_lock<std::mutex>& lock, Ready&& ready) {
    if (!changed_.wait_for(lock, limit_, [&] { return broken_ || ready(); })) {
      broken_ = true;
      changed_.notify_all();
    }
    if (broken_) fail(kExitLostRank, "another rank of the group has failed, or did not come");
  }
  void meet() {
    std::unique_lock lock(mutex_);
    const uint64_t now = round_;
    if (++come_ == size_) {
      come_ = 0;
      ++round_;
      changed_.notify_all();
    }
    wait(lock, [&] { return round_ != now; });
  }

  const int size_;
  const std::chrono::seconds limit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int come_ = 0;
  uint64_t round_ = 0;
  bool broken_ = false;
  std::vector<std::weak_ptr<ThreadGroup>> parts_;
  struct View {
    const char* data;
    size_t distance;
  };
  std::vector<View> blocks_;
  std::map<std::pair<int, int>, std::deque<std::string>> messages_;
};

class ThreadComm final : public HostComm {
 public:
  ThreadComm(ThreadGroup& group, int rank) : HostComm(rank, group.size()), group_(group) {}
  ThreadComm(std::shared_ptr<ThreadGroup> group, int rank) : ThreadComm(*group, rank) { own_ = std::move(group); }

 private:
  void exchange(Blocks out, Blocks in, size_t bytes) override {
    group_.blocks_[rank()] = {in.data, in.distance};
    group_.meet();
    for (int r = 0; bytes > 0 && r < size(); ++r) {
      const ThreadGroup::View& from = group_.blocks_[r];
      std::memmove(out.data + r * out.distance, from.data + rank() * from.distance, bytes);
    }
    group_.meet();
  }
  void spread(char* data, size_t bytes, int root) override {
    group_.blocks_[rank()] = {data, 0};
    group_.meet();
    if (bytes > 0 && rank() != root) std::memcpy(data, group_.blocks_[root].data, bytes);
    group_.meet();
  }
  void put(const char* data, size_t bytes, int to) override {
    const std::lock_guard lock(group_.mutex_);
    group_.messages_[{rank(), to}].emplace_back(data, bytes);
    group_.changed_.notify_all();
  }
  void take(char* data, size_t bytes, int from) override {
    std::unique_lock lock(group_.mutex_);
    auto& queue = group_.messages_[{from, rank()}];
    group_.wait(lock, [&] { return !queue.empty(); });
    std::memcpy(data, queue.front().data(), bytes);
    queue.pop_front();
  }
  /// The first rank of a part makes what its threads share, and the others copy its pointer before they part.
  std::unique_ptr<HostComm> of(const std::vector<int>& members) override {
    const bool first = members.front() == rank();
    std::shared_ptr<ThreadGroup> part;
    if (first) {
      part = std::make_shared<ThreadGroup>(static_cast<int>(members.size()), group_.limit_);
      const std::lock_guard lock(group_.mutex_);
      group_.parts_.push_back(part);
    }
    const auto address = reinterpret_cast<uintptr_t>(&part);
    const std::vector<std::string> all = all_gather_bytes({reinterpret_cast<const char*>(&address), sizeof address});
    if (!first) {
      uintptr_t theirs = 0;
      std::memcpy(&theirs, all[static_cast<size_t>(members.front())].data(), sizeof theirs);
      part = *reinterpret_cast<const std::shared_ptr<ThreadGroup>*>(theirs);
    }
    barrier();
    const auto own = std::find(members.begin(), members.end(), rank()) - members.begin();
    return std::make_unique<ThreadComm>(std::move(part), static_cast<int>(own));
  }
  std::shared_ptr<ThreadGroup> own_;
  ThreadGroup& group_;
};

/// Runs rank(comm) on `size` threads, which share the cores. Throws what the first rank to fail threw.
inline void run_ranks(int size, const std::function<void(HostComm&)>& rank, std::chrono::seconds limit = kThreadLimit) {
  ThreadGroup group(size, limit);
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r)
    threads.emplace_back([&, r] {
      omp_set_num_threads(std::max(1, omp_get_num_procs() / size));
      ThreadComm comm(group, r);
      try {
        rank(comm);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
        group.leave_broken();
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace dapo
