#include "data/cursor.h"

#include <limits>
#include <numeric>
#include <utility>

#include "core/check.h"
#include "data/random.h"

namespace dapo {

std::vector<uint32_t> epoch_order(uint64_t seed, uint64_t epoch, size_t n) {
  CHECK_LE(n, size_t{std::numeric_limits<uint32_t>::max()});
  std::vector<uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  Rng rng(seed, epoch);
  for (size_t i = n; i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
  return order;
}

Cursor::Cursor(uint64_t seed, size_t n, bool shuffle) : seed_(seed), n_(n), shuffle_(shuffle) {
  if (n == 0) fail_input("dataset: no rows left to draw from");
  order();
}

void Cursor::order() {
  if (shuffle_) order_ = epoch_order(seed_, state_.epoch, n_);
}

size_t Cursor::next() {
  const size_t row = shuffle_ ? order_[state_.offset] : state_.offset;
  if (++state_.offset == n_) {
    state_ = {state_.epoch + 1, 0};
    order();
  }
  return row;
}

void Cursor::restore(CursorState state) {
  if (state.offset >= n_)
    fail_input("data cursor: offset {} is beyond the dataset's {} rows: it was saved with another dataset",
               state.offset, n_);
  state_ = state;
  order();
}

}  // namespace dapo
