// Collectives on host memory, above a transport that only moves bytes: the order of sums, the checks that all ranks call
// the same, and the heartbeat are the same for processes (host/parallel/mpi_comm.h) and threads (tests/thread_comm.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/comm.h"
#include "core/heartbeat.h"

namespace dapo {

/// Calls f with a value of the type that the tensor has, one of those that ranks sum.
template <class F>
void with_summable(const char* op, const Tensor& t, F&& f) {
  switch (t.dtype) {
    case DType::f32:
      return f(float{});
    case DType::f64:
      return f(double{});
    case DType::i32:
      return f(int32_t{});
    case DType::i64:
      return f(int64_t{});
    default:
      fail(kExitInternal, "{}: {} is not f32, f64, i32 or i64", op, t.describe());
  }
}

class HostComm : public Comm {
 public:
  int rank() const final { return rank_; }
  int size() const final { return size_; }
  int world_rank(int rank) const final { return names_.empty() ? rank : names_[static_cast<size_t>(rank)]; }
  void all_reduce_sum(const Tensor& t) final;
  void all_reduce_max(const Tensor& t) final;
  void all_gather(const Tensor& out, const Tensor& in) final;
  void reduce_scatter(const Tensor& out, const Tensor& in) final;
  void all_to_all(const Tensor& out, const Tensor& in) final;
  void broadcast(const Tensor& t, int root) final;
  void send(const Tensor& t, int to) final;
  void recv(const Tensor& t, int from) final;
  void barrier() final;
  void wait_for_others(const std::function<void()>& wait) final;
  std::vector<std::string> all_gather_bytes(std::string_view bytes) final;
  std::string broadcast_bytes(std::string bytes, int root) final;

  /// What every collective does first: all ranks meet, and throw the same Error unless they are about to do the same.
  /// For communicators of other memory. `count`: elements; root -1: none.
  void meet_for(const char* op, DType dtype, int64_t count, int root = -1);

  /// The communicator of the ranks that pass the same `group`, in the order that they have here. All ranks call it. It
  /// counts calls of its own, which the heartbeat shows as those among `ranks`, and errors call its ranks what they are
  /// called here.
  std::unique_ptr<HostComm> split(int group, Among ranks);

  /// Where this rank tells what it does; none by default.
  void report_to(Heartbeat* heartbeat) { heartbeat_ = heartbeat; }
  Heartbeat* heartbeat() const { return heartbeat_; }
  Among among() const { return among_; }
  /// Collectives begun.
  uint64_t sequence() const { return sequence_; }

 protected:
  HostComm(int rank, int size) : rank_(rank), size_(size) {}

  /// Blocks of `bytes` bytes at a distance; a distance of 0: each is the same block.
  struct Blocks {
    char* data;
    size_t distance;
  };
  /// Block r of `out` = block rank() of rank r's `in`, for all r. Block rank() of both may be the same memory.
  virtual void exchange(Blocks out, Blocks in, size_t bytes) = 0;
  virtual void spread(char* data, size_t bytes, int root) = 0;
  virtual void put(const char* data, size_t bytes, int to) = 0;
  virtual void take(char* data, size_t bytes, int from) = 0;
  /// The communicator of these ranks, of which this is one; every rank calls it with those of its group.
  virtual std::unique_ptr<HostComm> of(const std::vector<int>& members) = 0;

 private:
  struct Header;
  Header header(const char* op, DType dtype, int64_t count, int root) const;
  std::vector<Header> meet(const Header& mine, bool lengths_differ = false);
  void counted_exchange(Blocks out, Blocks in, size_t bytes) {
    count_sent(bytes);
    exchange(out, in, bytes);
  }
  [[noreturn]] void out_of_step(const std::vector<Header>& all, bool lengths_differ) const;
  template <class T>
  void sum(T* data, int64_t n);
  template <class Fold>
  void gather_and_fold(char* data, size_t size, int64_t n, Fold&& fold);
  char* scratch(size_t bytes);

  int rank_, size_;
  uint64_t sequence_ = 0;
  Heartbeat* heartbeat_ = nullptr;
  Among among_ = Among::world;
  std::vector<int> names_;  // of a part: its ranks in the world
  std::vector<char> scratch_;
};

}  // namespace dapo
