// Memory that the simulator's NCCL ranks share, threads or processes: a lane from each to each.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace sim {

/// Bytes from one rank to another, in order: one writer, one reader.
template <std::size_t kBytes>
struct Pipe {
  alignas(64) std::atomic<std::uint64_t> written;
  alignas(64) std::atomic<std::uint64_t> read;
  alignas(64) char data[kBytes];

  /// As much as there is room for, or as there is.
  std::size_t put(const char* from, std::size_t bytes) {
    const std::uint64_t w = written.load(std::memory_order_relaxed);
    const std::size_t n = std::min<std::size_t>(bytes, kBytes - (w - read.load(std::memory_order_acquire)));
    if (n == 0) return 0;
    const std::size_t first = std::min(n, kBytes - w % kBytes);
    std::memcpy(data + w % kBytes, from, first);
    std::memcpy(data, from + first, n - first);
    written.store(w + n, std::memory_order_release);
    return n;
  }
  /// to: null drops them.
  std::size_t take(char* to, std::size_t bytes) {
    const std::uint64_t r = read.load(std::memory_order_relaxed);
    const std::size_t n = std::min<std::size_t>(bytes, written.load(std::memory_order_acquire) - r);
    const std::size_t first = std::min(n, kBytes - r % kBytes);
    if (to) {
      std::memcpy(to, data + r % kBytes, first);
      std::memcpy(to + first, data, n - first);
    }
    read.store(r + n, std::memory_order_release);
    return n;
  }
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "a lock would be the process's own");

/// From one rank to another: what it sends, and whether it found what it received as expected.
struct Lane {
  Pipe<std::size_t{128} << 10> sent;
  Pipe<4096> answers;
};
struct Shared {  // the lanes follow: [from][to]
  std::atomic<std::uint32_t> ranks, here, aborted;
  alignas(64) char lanes[64];
  Lane& lane(std::size_t from, std::size_t to) { return reinterpret_cast<Lane*>(lanes)[from * ranks + to]; }
  static std::size_t bytes(int count) {
    const auto n = static_cast<std::size_t>(count);
    return sizeof(Shared) + n * n * sizeof(Lane);
  }
};

/// Maps the file, of the size for so many ranks; null if that fails.
Shared* map_shared(int file, int ranks);

/// What the two ends of a transfer must agree on.
struct Header {
  std::uint32_t kind, type, op, root;
  std::uint64_t count, bytes;  ///< bytes: that follow
  bool operator==(const Header&) const = default;
};

/// Transfers between ranks, of any of this thread's groups, that go on together.
class Exchange {
 public:
  enum class Result : std::uint8_t { done, wrong, aborted };
  /// One end: this rank sends, or receives. Both ends of a lane pass theirs in the same order.
  void pass(Shared* group, std::size_t from, std::size_t to, bool sends, const Header& header, void* data);
  /// Until all is done, or a rank has given up. wrong: two ends do not agree.
  Result run();

 private:
  struct Transfer;
  bool step();
  std::vector<std::shared_ptr<Transfer>> all_;
  /// Of each lane, and end: those that have not moved; those that have, and are not answered.
  std::map<std::pair<Lane*, bool>, std::pair<std::deque<Transfer*>, std::deque<Transfer*>>> open_;
  std::vector<const Shared*> groups_;
};

}  // namespace sim
