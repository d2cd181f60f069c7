#include "core/host_comm.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace dapo {
namespace {

/// A sum goes through the ranks in chunks of this many bytes, which bounds the scratch memory.
constexpr int64_t kChunkBytes = 8 << 20;
/// Below, every rank adds everything: one exchange instead of two.
constexpr int64_t kSmallBytes = 16 << 10;

/// to = from[0] + from[1] + ..., in this order, each a row of n.
template <class T>
void add_rows(T* to, const T* from, int64_t rows, int64_t n) {
  std::copy_n(from, n, to);
  for (int64_t r = 1; r < rows; ++r)
    for (int64_t i = 0; i < n; ++i) to[i] += from[r * n + i];
}

template <class T>
void most_of_rows(T* to, const T* from, int64_t rows, int64_t n) {
  std::copy_n(from, n, to);
  for (int64_t r = 1; r < rows; ++r)
    for (int64_t i = 0; i < n; ++i) {
      const T value = from[r * n + i];
      if (value > to[i] || value != value) to[i] = value;  // once NaN, always NaN
    }
}

void expect_rows(const char* op, const Tensor& whole, const Tensor& row, int ranks) {
  if (whole.dtype != row.dtype || whole.numel() != row.numel() * ranks)
    fail(kExitInternal, "{}: {} is not {} times {}", op, whole.describe(), ranks, row.describe());
}

}  // namespace

/// What a rank is about to do; the same on all ranks.
struct HostComm::Header {
  std::array<char, 24> op{};
  uint64_t sequence = 0;
  int64_t count = 0;  ///< elements, or bytes
  int32_t dtype = 0, root = 0;

  bool same(const Header& other, bool lengths_differ) const {
    return op == other.op && sequence == other.sequence && dtype == other.dtype && root == other.root &&
           (lengths_differ || count == other.count);
  }
  std::string text() const {
    std::string what = fmt::format("{} of {} {}", op.data(), count, dtype_name(static_cast<DType>(dtype)));
    if (root >= 0) what += fmt::format(" with root {}", root);
    return what + fmt::format(", its call {}", sequence);
  }
};

HostComm::Header HostComm::header(const char* op, DType dtype, int64_t count, int root) const {
  Header h;
  std::strncpy(h.op.data(), op, h.op.size() - 1);
  h.sequence = sequence_;
  h.count = count;
  h.dtype = static_cast<int32_t>(dtype);
  h.root = root;
  return h;
}

/// All ranks meet and compare what they are about to do.
std::vector<HostComm::Header> HostComm::meet(const Header& mine, bool lengths_differ) {
  std::vector<Header> all(size_);
  Header sent = mine;
  exchange({reinterpret_cast<char*>(all.data()), sizeof(Header)}, {reinterpret_cast<char*>(&sent), 0}, sizeof(Header));
  for (const Header& h : all)
    if (!h.same(all[0], lengths_differ)) out_of_step(all, lengths_differ);
  return all;
}

/// Names the first rank that does not do what most do.
void HostComm::out_of_step(const std::vector<Header>& all, bool lengths_differ) const {
  const auto alike = [&](const Header& h) {
    return std::count_if(all.begin(), all.end(), [&](const Header& o) { return h.same(o, lengths_differ); });
  };
  size_t most = 0, odd = 0;
  for (size_t r = 1; r < all.size(); ++r)
    if (alike(all[r]) > alike(all[most])) most = r;
  while (all[odd].same(all[most], lengths_differ)) ++odd;
  throw AgreedError(kExitLostRank, fmt::format("the ranks are out of step: rank {} calls {}; rank {} calls {}",
                                               world_rank(static_cast<int>(odd)), all[odd].text(),
                                               world_rank(static_cast<int>(most)), all[most].text()));
}

std::unique_ptr<HostComm> HostComm::split(int group, Among ranks) {
  std::vector<int32_t> own = {group}, groups(static_cast<size_t>(size_));
  all_gather(Tensor::of(std::span(groups)), Tensor::of(std::span(own)));
  std::vector<int> members, names;
  for (int r = 0; r < size_; ++r)
    if (groups[r] == group) members.push_back(r), names.push_back(world_rank(r));
  std::unique_ptr<HostComm> part = of(members);
  part->names_ = std::move(names);
  part->heartbeat_ = heartbeat_;
  part->among_ = ranks;
  return part;
}

char* HostComm::scratch(size_t bytes) {
  if (scratch_.size() < bytes) scratch_.resize(bytes);
  return scratch_.data();
}

/// data = fold over the ranks' data, which all ranks do for all elements.
template <class Fold>
void HostComm::gather_and_fold(char* data, size_t size, int64_t n, Fold&& fold) {
  char* all = scratch(size * n * size_);
  counted_exchange({all, size * n}, {data, 0}, size * n);
  fold(data, all, n);
}

/// Large: each rank adds its slice, and the sums are gathered.
template <class T>
void HostComm::sum(T* data, int64_t n) {
  const int64_t chunk = kChunkBytes / static_cast<int64_t>(sizeof(T));
  for (int64_t begin = 0; begin < n; begin += chunk) {
    T* const here = data + begin;
    const int64_t count = std::min(chunk, n - begin);
    const int64_t slice = count * static_cast<int64_t>(sizeof(T)) <= kSmallBytes ? 0 : count / size_;
    const size_t bytes = slice * sizeof(T);
    if (slice > 0) {
      char* const all = scratch(bytes * size_);
      T* const own = here + rank_ * slice;
      counted_exchange({all, bytes}, {reinterpret_cast<char*>(here), bytes}, bytes);
      add_rows(own, reinterpret_cast<const T*>(all), size_, slice);
      counted_exchange({reinterpret_cast<char*>(here), bytes}, {reinterpret_cast<char*>(own), 0}, bytes);
    }
    if (const int64_t rest = count - slice * size_; rest > 0)
      gather_and_fold(reinterpret_cast<char*>(here + slice * size_), sizeof(T), rest,
                      [&](char* to, const char* all, int64_t m) {
                        add_rows(reinterpret_cast<T*>(to), reinterpret_cast<const T*>(all), size_, m);
                      });
  }
}

void HostComm::all_reduce_sum(const Tensor& t) {
  ++sequence_;
  const Entered entered(heartbeat_, "all_reduce_sum", among_, sequence_);
  meet(header("all_reduce_sum", t.dtype, t.numel(), -1));
  with_summable("all_reduce_sum", t, [&](auto type) { sum(static_cast<decltype(type)*>(t.data), t.numel()); });
}

void HostComm::all_reduce_max(const Tensor& t) {
  ++sequence_;
  const Entered entered(heartbeat_, "all_reduce_max", among_, sequence_);
  meet(header("all_reduce_max", t.dtype, t.numel(), -1));
  with_summable("all_reduce_max", t, [&](auto type) {
    using T = decltype(type);
    const int64_t chunk = kChunkBytes / static_cast<int64_t>(sizeof(T)) / size_;
    for (int64_t begin = 0; begin < t.numel(); begin += chunk)
      gather_and_fold(static_cast<char*>(t.data) + begin * sizeof(T), sizeof(T), std::min(chunk, t.numel() - begin),
                      [&](char* to, const char* all, int64_t m) {
                        most_of_rows(reinterpret_cast<T*>(to), reinterpret_cast<const T*>(all), size_, m);
                      });
  });
}

void HostComm::all_gather(const Tensor& out, const Tensor& in) {
  ++sequence_;
  const Entered entered(heartbeat_, "all_gather", among_, sequence_);
  expect_rows("all_gather", out, in, size_);
  meet(header("all_gather", in.dtype, in.numel(), -1));
  counted_exchange({static_cast<char*>(out.data), in.bytes()}, {static_cast<char*>(in.data), 0}, in.bytes());
}

void HostComm::reduce_scatter(const Tensor& out, const Tensor& in) {
  ++sequence_;
  const Entered entered(heartbeat_, "reduce_scatter", among_, sequence_);
  expect_rows("reduce_scatter", in, out, size_);
  meet(header("reduce_scatter", out.dtype, out.numel(), -1));
  with_summable("reduce_scatter", in, [&](auto type) {
    using T = decltype(type);
    const int64_t chunk = kChunkBytes / static_cast<int64_t>(sizeof(T)) / size_, n = out.numel();
    for (int64_t begin = 0; begin < n; begin += chunk) {
      const int64_t count = std::min(chunk, n - begin);
      char* const all = scratch(count * sizeof(T) * size_);
      counted_exchange({all, count * sizeof(T)}, {static_cast<char*>(in.data) + begin * sizeof(T), n * sizeof(T)},
                       count * sizeof(T));
      add_rows(static_cast<T*>(out.data) + begin, reinterpret_cast<const T*>(all), size_, count);
    }
  });
}

void HostComm::all_to_all(const Tensor& out, const Tensor& in) {
  ++sequence_;
  const Entered entered(heartbeat_, "all_to_all", among_, sequence_);
  if (out.dtype != in.dtype || out.numel() != in.numel() || in.numel() % size_ != 0 ||
      (out.data == in.data && in.bytes() > 0))
    fail(kExitInternal, "all_to_all: {} and {} are not two tensors of one size that {} ranks divide", out.describe(),
         in.describe(), size_);
  meet(header("all_to_all", in.dtype, in.numel(), -1));
  const size_t block = in.bytes() / size_;
  counted_exchange({static_cast<char*>(out.data), block}, {static_cast<char*>(in.data), block}, block);
}

void HostComm::broadcast(const Tensor& t, int root) {
  ++sequence_;
  const Entered entered(heartbeat_, "broadcast", among_, sequence_);
  CHECK(root >= 0 && root < size_, "root {} of {} ranks", root, size_);
  meet(header("broadcast", t.dtype, t.numel(), root));
  if (rank_ == root) count_sent(t.bytes());
  spread(static_cast<char*>(t.data), t.bytes(), root);
}

void HostComm::send(const Tensor& t, int to) {
  const Entered entered(heartbeat_, "send", among_, sequence_);
  CHECK(to >= 0 && to < size_ && to != rank_, "rank {} sends to rank {} of {}", rank_, to, size_);
  const Header h = header("send", t.dtype, t.numel(), to);
  put(reinterpret_cast<const char*>(&h), sizeof h, to);
  count_message(t.bytes());
  put(static_cast<const char*>(t.data), t.bytes(), to);
}

void HostComm::recv(const Tensor& t, int from) {
  const Entered entered(heartbeat_, "recv", among_, sequence_);
  CHECK(from >= 0 && from < size_ && from != rank_, "rank {} receives from rank {} of {}", rank_, from, size_);
  Header h;
  take(reinterpret_cast<char*>(&h), sizeof h, from);
  if (h.dtype != static_cast<int32_t>(t.dtype) || h.count != t.numel())
    fail(kExitLostRank, "the ranks are out of step: rank {} sends {} {}, rank {} expects {} {}", world_rank(from),
         h.count, dtype_name(static_cast<DType>(h.dtype)), world_rank(rank_), t.numel(), dtype_name(t.dtype));
  take(static_cast<char*>(t.data), t.bytes(), from);
}

void HostComm::meet_for(const char* op, DType dtype, int64_t count, int root) {
  ++sequence_;
  const Entered entered(heartbeat_, op, among_, sequence_);
  meet(header(op, dtype, count, root));
}

void HostComm::barrier() {
  ++sequence_;
  const Entered entered(heartbeat_, "barrier", among_, sequence_);
  meet(header("barrier", DType::u8, 0, -1));
}

void HostComm::wait_for_others(const std::function<void()>& wait) {
  if (heartbeat_ == nullptr) return wait();
  struct Left {
    Heartbeat& heartbeat;
    ~Left() { heartbeat.leave(); }
  } const left{*heartbeat_};
  heartbeat_->enter_wait("exchange of gradients", among_);
  wait();
}

std::vector<std::string> HostComm::all_gather_bytes(std::string_view bytes) {
  ++sequence_;
  const Entered entered(heartbeat_, "all_gather_bytes", among_, sequence_);
  const std::vector<Header> all = meet(header("all_gather_bytes", DType::u8, std::ssize(bytes), -1), true);
  int64_t most = 0;
  for (const Header& h : all) most = std::max(most, h.count);
  std::string mine(bytes), got(most * size_, '\0');
  mine.resize(most);
  counted_exchange({got.data(), static_cast<size_t>(most)}, {mine.data(), 0}, most);
  std::vector<std::string> out;
  out.reserve(size_);
  for (int r = 0; r < size_; ++r) out.push_back(got.substr(r * most, all[r].count));
  return out;
}

std::string HostComm::broadcast_bytes(std::string bytes, int root) {
  ++sequence_;
  const Entered entered(heartbeat_, "broadcast_bytes", among_, sequence_);
  CHECK(root >= 0 && root < size_, "root {} of {} ranks", root, size_);
  const std::vector<Header> all =
      meet(header("broadcast_bytes", DType::u8, rank_ == root ? std::ssize(bytes) : 0, root), true);
  bytes.resize(all[root].count);
  if (rank_ == root) count_sent(bytes.size());
  spread(bytes.data(), bytes.size(), root);
  return bytes;
}

}  // namespace dapo
