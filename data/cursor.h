// The order in which rows are visited: a new permutation each epoch, and a position in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace dapo {

/// The permutation of 0..n-1 for one epoch: Fisher-Yates with Philox, a pure function of its arguments.
/// n < 2^32.
std::vector<uint32_t> epoch_order(uint64_t seed, uint64_t epoch, size_t n);

/// A run's position in its data: all that a checkpoint needs. 0 <= offset < n.
struct CursorState {
  uint64_t epoch = 0;
  uint64_t offset = 0;
  bool operator==(const CursorState&) const = default;
};

/// Iterates over n rows epoch after epoch; each epoch visits every row exactly once. Restoring a state gives the same
/// rows as having iterated to it.
class Cursor {
 public:
  /// Error (exit 2) if n is 0. Without `shuffle`, rows come in file order every epoch.
  Cursor(uint64_t seed, size_t n, bool shuffle = true);

  /// The index of the next row.
  size_t next();

  CursorState state() const { return state_; }
  /// Error (exit 2) if the offset is beyond n: the state was saved with another dataset.
  void restore(CursorState state);

 private:
  void order();
  uint64_t seed_;
  size_t n_;
  bool shuffle_;
  CursorState state_;
  std::vector<uint32_t> order_;  ///< of state_.epoch; empty without shuffle
};

}  // namespace dapo
