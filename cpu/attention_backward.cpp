// Attention over packed segments, backward. With p = exp(s - lse), dp = dout v^T and delta = sum(dout * out):
// ds = p * (dp - delta), dv = p^T dout, dq = ds k / sqrt(D), dk = ds^T q / sqrt(D). A thread owns a prefix with all
// segments that use it, for one KV head, so that every sum has one order.
#include <omp.h>

#include <cmath>

#include "core/op_checks.h"
#include "cpu/attention_kernel.h"
#include "cpu/attention_work.h"
#include "cpu/cpu_backend.h"

namespace dapo::cpu {
namespace {

constexpr int64_t kRows = 48;  // rows whose p and ds stay in the L1 cache between their four uses

/// p = exp(p - lse) where the row sees the key, else 0; ds = p * (ds - delta), from dp.
[[gnu::noinline]] void softmax_backward(float* p, float* ds, float lse, float delta, int64_t visible, int64_t vectors) {
  for (int64_t v = 0; v < vectors; ++v) {
    const int left = visible - v * kLanes;
    const f32x16 x = select(kLaneIndex < left, vexp(load(p + v * kLanes) - lse), f32x16{});
    const f32x16 dx = x * (load(ds + v * kLanes) - delta);
    store(p + v * kLanes, x);
    store(ds + v * kLanes, select(kLaneIndex < left, dx, f32x16{}));
  }
}

template <class T>
float dot(const T* a, const T* b, int64_t n) {
  f32x16 sum{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sum = fma(load(a + i), load(b + i), sum);
  if (i < n) sum = fma(load_part(a + i, n - i), load_part(b + i, n - i), sum);
  return sum_lanes(sum);
}

template <class T>
struct Pack {
  const T *qkv = nullptr, *out = nullptr, *dout = nullptr;
  T* dqkv = nullptr;
  const float* lse = nullptr;
  std::span<const Segment> segments;
  AttentionDims dims{};
};

/// The gradients of one KV head over a family: a segment without a prefix, and all segments that use it as theirs.
template <class T>
class Family {
 public:
  static int64_t scratch_floats(const AttentionDims& dims) {
    Pack<T> pack;
    pack.dims = dims;
    return Family(pack, 0, nullptr, nullptr).floats_;
  }
  /// dkv: f32[N, 2, width] of this KV head.
  Family(const Pack<T>& pack, int64_t kv_head, float* dkv, float* scratch)
      : pack_(pack),
        dim_(pack.dims.head_dim),
        width_(padded(dim_)),
        group_(pack.dims.heads / pack.dims.kv_heads),
        head_(kv_head * group_),
        ld_(pack.dims.qkv_width()),
        keys_at_(pack.dims.q_width() + kv_head * dim_),
        scale_(1.0f / std::sqrt(static_cast<float>(dim_))),
        dkv_(dkv) {
    Carver carver(scratch);
    const int64_t rows = kQueryBlock * group_;
    q_ = carver.take(rows * width_);
    dout_ = carver.take(rows * width_);
    dq_ = carver.take(rows * width_);
    lse_ = carver.take(rows);
    delta_ = carver.take(rows);
    p_ = carver.take(kRows * kKvTile);
    ds_ = carver.take(kRows * kKvTile);
    k_ = carver.take(kKvTile * width_);
    kt_ = carver.take(kKvTile * width_);
    vt_ = carver.take(kKvTile * width_);
    floats_ = carver.used();
  }

  void run(size_t root) {
    for (size_t s = root; s < pack_.segments.size(); ++s)
      if (belongs(s, root)) add_segment(pack_.segments[s]);
    for (size_t s = root; s < pack_.segments.size(); ++s)
      if (belongs(s, root)) write_dkv(pack_.segments[s]);
  }

 private:
  bool belongs(size_t s, size_t root) const {
    return s == root || pack_.segments[s].prefix == static_cast<int32_t>(root);
  }

  void add_segment(const Segment& segment) {
    std::fill_n(dkv_ + int64_t{segment.begin} * 2 * width_, int64_t{segment.length} * 2 * width_, 0.0f);
    for (int64_t first = 0; first < segment.length; first += kQueryBlock) {
      const int64_t queries = std::min<int64_t>(kQueryBlock, segment.length - first);
      begin_queries(segment.begin + first, queries);
      if (segment.prefix >= 0) {
        const Segment prefix = pack_.segments[segment.prefix];
        for (int64_t j = 0; j < prefix.length; j += kKvTile)
          visit(prefix.begin + j, std::min<int64_t>(kKvTile, prefix.length - j), first, -1);
      }
      for (int64_t j = 0; j < first + queries; j += kKvTile)
        visit(segment.begin + j, std::min<int64_t>(kKvTile, first + queries - j), first, j);
      write_dq(segment.begin + first, queries);
    }
  }

  void begin_queries(int64_t row, int64_t queries) {
    rows_ = queries * group_;
    for (int64_t i = 0; i < queries; ++i) {
      const int64_t at = (row + i) * pack_.dims.q_width() + head_ * dim_, r = i * group_;
      read_rows(q_ + r * width_, pack_.qkv + (row + i) * ld_ + head_ * dim_, dim_, group_, dim_);
      read_rows(dout_ + r * width_, pack_.dout + at, dim_, group_, dim_);
      for (int64_t g = 0; g < group_; ++g) {
        delta_[r + g] = dot(pack_.dout + at + g * dim_, pack_.out + at + g * dim_, dim_);
        lse_[r + g] = pack_.lse[(row + i) * pack_.dims.heads + head_ + g];
      }
    }
    for (int64_t j = 0; j < rows_ * width_; j += kLanes) store(q_ + j, load(q_ + j) * scale_);
    std::fill_n(dq_, rows_ * width_, 0.0f);
  }

  /// One tile of n keys, packed rows [key_row, +n), against all queries; `first` as in visible().
  void visit(int64_t key_row, int64_t n, int64_t first_query, int64_t first) {
    const T* k = pack_.qkv + key_row * ld_ + keys_at_;
    read_rows(k_, k, ld_, n, dim_);
    read_transposed(kt_, k, ld_, n, dim_);
    read_transposed(vt_, k + pack_.dims.kv_width(), ld_, n, dim_);
    float* dk = dkv_ + key_row * 2 * width_;
    float* dv = dk + width_;
    const int64_t columns = width_ / kLanes;
    for (int64_t r = 0; r < rows_; r += kRows) {
      const int64_t rows = std::min(kRows, rows_ - r);
      const int64_t reach = visible(first_query + (r + rows - 1) / group_, first, n);
      if (reach == 0) continue;
      const int64_t vectors = ceil_div(reach, kLanes);
      const float *q = q_ + r * width_, *dout = dout_ + r * width_;
      small_product(p_, kKvTile, {q, width_, 1}, kt_, kKvTile, rows, vectors, dim_, false);
      small_product(ds_, kKvTile, {dout, width_, 1}, vt_, kKvTile, rows, vectors, dim_, false);
      for (int64_t i = 0; i < rows; ++i)
        softmax_backward(p_ + i * kKvTile, ds_ + i * kKvTile, lse_[r + i], delta_[r + i],
                         visible(first_query + (r + i) / group_, first, n), vectors);
      small_product(dq_ + r * width_, width_, {ds_, kKvTile, 1}, k_, width_, rows, columns, reach, true);
      small_product(dk, 2 * width_, {ds_, 1, kKvTile}, q, width_, reach, columns, rows, true);
      small_product(dv, 2 * width_, {p_, 1, kKvTile}, dout, width_, reach, columns, rows, true);
    }
  }

  void write_row(T* to, const float* from, float scale) const {
    int64_t j = 0;
    for (; j + kLanes <= dim_; j += kLanes) store(to + j, load(from + j) * scale);
    if (j < dim_) store_part(to + j, load(from + j) * scale, dim_ - j);
  }
  void write_dq(int64_t row, int64_t queries) const {
    for (int64_t i = 0; i < queries; ++i)
      for (int64_t g = 0; g < group_; ++g)
        write_row(pack_.dqkv + (row + i) * ld_ + (head_ + g) * dim_, dq_ + (i * group_ + g) * width_, scale_);
  }
  void write_dkv(const Segment& segment) const {
    for (int64_t row = segment.begin; row < segment.begin + segment.length; ++row) {
      T* to = pack_.dqkv + row * ld_ + keys_at_;
      write_row(to, dkv_ + row * 2 * width_, 1.0f);
      write_row(to + pack_.dims.kv_width(), dkv_ + row * 2 * width_ + width_, 1.0f);
    }
  }

  const Pack<T>& pack_;
  int64_t dim_, width_, group_, head_, ld_, keys_at_, floats_, rows_ = 0;
  float scale_;
  float *dkv_, *q_, *dout_, *dq_, *lse_, *delta_, *p_, *ds_, *k_, *kt_, *vt_;
};

}  // namespace

int64_t attention_backward_floats(const AttentionDims& dims) {
  return Family<float>::scratch_floats(dims);
}

template <class T>
void CpuBackend<T>::attention_backward(const Tensor& dqkv, const Tensor& dout, const Tensor& qkv, const Tensor& out,
                                       const Tensor& lse, const Segments& segments, const AttentionDims& dims) {
  check_attention_backward(dtype(), dqkv, dout, qkv, out, lse, segments, dims);
  const int64_t n = qkv.dim(0), count = std::ssize(segments.host);
  const ArenaScope scope(workspace());
  const int64_t width = padded(dims.head_dim);
  const Tensor dkv = workspace().take("dk, dv", DType::f32, {dims.kv_heads, n, 2, width});
  const Tensor scratch = workspace().take("rows", DType::f32, {omp_get_max_threads(), attention_backward_floats(dims)});
  const Pack<T> pack{qkv.as<T>(), out.as<T>(), dout.as<T>(), dqkv.as<T>(), lse.as<float>(), segments.host, dims};
#pragma omp parallel for schedule(dynamic) if (count * dims.kv_heads > 1)
  for (int64_t item = 0; item < count * dims.kv_heads; ++item) {
    const size_t root = item / dims.kv_heads;
    const int64_t kv_head = item % dims.kv_heads;
    if (segments.host[root].prefix >= 0) continue;
    Family<T>(pack, kv_head, dkv.as<float>() + kv_head * n * 2 * width,
              scratch.as<float>() + omp_get_thread_num() * scratch.dim(1))
        .run(root);
  }
}

template class CpuBackend<float>;
template class CpuBackend<bf16>;

}  // namespace dapo::cpu
