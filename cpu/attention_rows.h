// The forward of attention for a block of query rows that share a KV head: the one definition that training, prefill
// and decode call, tile by tile (flash attention: Dao et al. 2022, with the online softmax of Milakov and
// Gimelshein 2018).
#pragma once

#include <cmath>

#include "cpu/attention_kernel.h"

namespace dapo::cpu {

/// A block of up to kQueryBlock queries times the heads of one KV head. Row r is query r / group, head r % group.
class AttentionRows {
 public:
  static int64_t scratch_floats(const AttentionDims& dims) {
    AttentionRows rows(nullptr, dims);
    return rows.floats_;
  }
  AttentionRows(float* scratch, const AttentionDims& dims)
      : dim_(dims.head_dim), width_(padded(dims.head_dim)), group_(dims.heads / dims.kv_heads) {
    Carver carver(scratch);
    const int64_t rows = kQueryBlock * group_;
    q_ = carver.take(rows * width_);
    out_ = carver.take(rows * width_);
    max_ = carver.take(rows);
    sum_ = carver.take(rows * kLanes);
    scores_ = carver.take(kMaxRows * kKvTile);
    keys_ = carver.take(width_ * kKvTile);
    values_ = carver.take(width_ * kKvTile);
    floats_ = carver.used();
  }

  /// Loads `count` queries; the first is number `first_query` of its segment. q[i * ld] is row i's first head.
  template <class T>
  void begin(const T* q, int64_t ld, int64_t count, int64_t first_query);
  /// Adds one tile of n keys: keys [dim, kKvTile] transposed, values [n, ldv] readable in whole vectors. first: index
  /// of the tile's first key in the queries' own segment, or -1 for a tile of the prefix.
  template <class E>
  void visit(const E* keys, const E* values, int64_t ldv, int64_t n, int64_t first);
  /// The same, from rows of keys and values, `ld` apart.
  template <class T>
  void visit_rows(const T* k, const T* v, int64_t ld, int64_t n, int64_t first) {
    read_transposed(keys_, k, ld, n, dim_);
    read_rows(values_, v, ld, n, dim_);
    visit(keys_, values_, width_, n, first);
  }
  /// The same, from transposed keys and rows of values that must not be read beyond their end.
  template <class E>
  void visit_narrow(const E* keys, const E* values, int64_t ldv, int64_t n, int64_t first) {
    if (dim_ % kLanes == 0) return visit(keys, values, ldv, n, first);
    for (int64_t i = 0; i < dim_ * kKvTile; i += kLanes) store(keys_ + i, load(keys + i));
    read_rows(values_, values, ldv, n, dim_);
    visit(keys_, values_, width_, n, first);
  }
  /// Writes the rows, laid out as begin() read them; lse (rows ld_lse apart) may be null.
  template <class T>
  void finish(T* out, int64_t ld, float* lse, int64_t ld_lse);

 private:
  int64_t dim_, width_, group_, floats_, rows_ = 0, first_query_ = 0;
  float *q_, *out_, *max_, *sum_, *scores_, *keys_, *values_;
};

/// Scores of one row become exp(score - max); maximum, sums (one a lane) and the output so far are rescaled to the new
/// maximum. Scores from `visible` on are masked; `vectors` cover all that the block's product will read.
[[gnu::noinline]] inline void online_softmax(float* scores, int64_t visible, int64_t vectors, float* max, float* sum,
                                             float* out, int64_t width) {
  const f32x16 none = splat(-__builtin_inff());
  f32x16 top = none;
  for (int64_t v = 0; v < vectors; ++v) {
    const int left = visible - v * kLanes;
    f32x16 s = load(scores + v * kLanes);
    if (left < kLanes) s = select(kLaneIndex < left, s, none);
    store(scores + v * kLanes, s);
    top = vmax(s, top);
  }
  const float old_max = *max, new_max = std::max(old_max, max_lanes(top));
  f32x16 total{};
  for (int64_t v = 0; v < vectors; ++v) {
    const f32x16 p = vexp(load(scores + v * kLanes) - new_max);
    store(scores + v * kLanes, p);
    total += p;
  }
  f32x16 scale = splat(1.0f);
  if (new_max > old_max) {
    scale = vexp(splat(old_max - new_max));
    *max = new_max;
    for (int64_t j = 0; j < width; j += kLanes) store(out + j, load(out + j) * scale);
  }
  store(sum, fma(load(sum), scale, total));
}

template <class T>
[[gnu::noinline]] void finish_row(T* out, const float* from, int64_t dim, float sum) {
  const float scale = 1.0f / sum;
  const int64_t whole = dim / kLanes * kLanes;
  for (int64_t j = 0; j < whole; j += kLanes) store(out + j, load(from + j) * scale);
  if (whole < dim) store_part(out + whole, load(from + whole) * scale, dim - whole);
}

template <class T>
void AttentionRows::begin(const T* q, int64_t ld, int64_t count, int64_t first_query) {
  rows_ = count * group_;
  first_query_ = first_query;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim_));
  for (int64_t i = 0; i < count; ++i) read_rows(q_ + i * group_ * width_, q + i * ld, dim_, group_, dim_);
  for (int64_t j = 0; j < rows_ * width_; j += kLanes) store(q_ + j, load(q_ + j) * scale);
  std::fill_n(out_, rows_ * width_, 0.0f);
  std::fill_n(sum_, rows_ * kLanes, 0.0f);
  std::fill_n(max_, rows_, -__builtin_inff());
}

template <class E>
void AttentionRows::visit(const E* keys, const E* values, int64_t ldv, int64_t n, int64_t first) {
  for (int64_t r = 0, rows = 0; r < rows_; r += rows) {
    rows = next_rows(rows_ - r);
    const int64_t reach = visible(first_query_ + (r + rows - 1) / group_, first, n);
    if (reach == 0) continue;
    const int64_t vectors = ceil_div(reach, kLanes);
    small_product(scores_, kKvTile, {q_ + r * width_, width_, 1}, keys, kKvTile, rows, vectors, dim_, false);
    for (int64_t i = 0; i < rows; ++i)
      online_softmax(scores_ + i * kKvTile, visible(first_query_ + (r + i) / group_, first, n), vectors, max_ + r + i,
                     sum_ + (r + i) * kLanes, out_ + (r + i) * width_, width_);
    small_product(out_ + r * width_, width_, {scores_, kKvTile, 1}, values, ldv, rows, width_ / kLanes, reach, true);
  }
}

template <class T>
void AttentionRows::finish(T* out, int64_t ld, float* lse, int64_t ld_lse) {
  for (int64_t r = 0; r < rows_; ++r) {
    const int64_t i = r / group_, g = r % group_;
    const float sum = sum_lanes(load(sum_ + r * kLanes));
    finish_row(out + i * ld + g * dim_, out_ + r * width_, dim_, sum);
    if (lse != nullptr) lse[i * ld_lse + g] = max_[r] + std::log(sum);
  }
}

}  // namespace dapo::cpu
