// Random integers for shuffles and synthetic tasks: consecutive Philox blocks, so a stream is a pure function of
// (seed, stream) on every machine. Also the 64-bit hash that identifies rows.
#pragma once

#include <string_view>

#include "core/philox.h"

namespace dapo {

/// A sequence of draws keyed by (seed, stream). Copyable; two copies draw the same numbers.
class Rng {
 public:
  explicit Rng(uint64_t seed, uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  uint64_t bits() {
    if (half_ == 0) {
      block_ = philox(seed_, {{static_cast<uint32_t>(count_), static_cast<uint32_t>(count_ >> 32),
                               static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)}});
      ++count_;
    }
    const uint64_t v = block_.x[2 * half_] | uint64_t{block_.x[2 * half_ + 1]} << 32;
    half_ ^= 1;
    return v;
  }

  /// Uniform in [0, n), n > 0, without bias: the few draws that would favour small results are rejected (Lemire).
  uint64_t below(uint64_t n) {
    for (;;) {
      const Wide product = static_cast<Wide>(bits()) * n;
      const auto low = static_cast<uint64_t>(product);
      if (low >= n || low >= (0 - n) % n) return static_cast<uint64_t>(product >> 64);
    }
  }

  /// Uniform in [low, high], both included.
  int between(int low, int high) {
    return low + static_cast<int>(below(static_cast<uint64_t>(int64_t{high} - low + 1)));
  }

  /// Uniform in [0, 1), 53 bits.
  double real() { return static_cast<double>(bits() >> 11) * 0x1p-53; }

 private:
  __extension__ typedef unsigned __int128 Wide;
  uint64_t seed_, stream_, count_ = 0;
  Philox4 block_{};
  uint32_t half_ = 0;
};

/// FNV-1a, continued from `h`. Must never change: row ids and dataset fingerprints are stored in checkpoints.
inline uint64_t hash64(std::string_view text, uint64_t h = 0xcbf29ce484222325u) {
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

}  // namespace dapo
