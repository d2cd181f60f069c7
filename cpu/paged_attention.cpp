// Attention on KV pages. A page [page_size, D] of keys holds tiles of kKvTile tokens, each transposed: [D, kKvTile];
// one of values holds its rows as they are.
#include <omp.h>

#include <algorithm>
#include <numeric>

#include "core/op_checks.h"
#include "cpu/attention_rows.h"
#include "cpu/attention_work.h"
#include "cpu/cpu_backend.h"

namespace dapo::cpu {
namespace {

/// One sequence of a call, and where its tokens are.
struct Sequence {
  int64_t row, rows, prefix, own;
  const int32_t* prefix_pages;
  const int32_t* own_pages;
};

class Sequences {
 public:
  Sequences(const PagedSequences& s, const Tensor& cache, int64_t n)
      : row_begin_(s.row_begin.as<int32_t>()),
        prefix_(s.prefix_length.as<int32_t>()),
        own_(s.own_length.as<int32_t>()),
        pages_(s.pages.as<int32_t>()),
        count_(s.prefix_length.dim(0)),
        max_pages_(s.pages.dim(1)),
        page_size_(s.page_size) {
    for (int64_t b = 0; b < count_; ++b) {
      const Sequence q = (*this)[b];
      if (q.rows == 0) continue;
      const int64_t pages = q.own_pages - q.prefix_pages + ceil_div(q.own, page_size_);
      CHECK(q.row >= 0 && q.rows > 0 && q.row + q.rows <= n && q.prefix >= 0 && q.own >= q.rows && pages <= max_pages_,
            "sequence {}: rows [{}, +{}) of {}, prefix {}, own {}, {} of {} pages", b, q.row, q.rows, n, q.prefix,
            q.own, pages, max_pages_);
      for (int64_t p = 0; p < pages; ++p)
        CHECK(q.prefix_pages[p] >= 0 && q.prefix_pages[p] < cache.dim(0), "sequence {}: page {} is {} of {}", b, p,
              q.prefix_pages[p], cache.dim(0));
    }
  }
  int64_t count() const { return count_; }
  Sequence operator[](int64_t b) const {
    const int32_t* pages = pages_ + b * max_pages_;
    return {row_begin_[b], row_begin_[b + 1] - row_begin_[b],       prefix_[b], own_[b],
            pages,         pages + ceil_div(prefix_[b], page_size_)};
  }

 private:
  const int32_t *row_begin_, *prefix_, *own_, *pages_;
  int64_t count_, max_pages_, page_size_;
};

}  // namespace

template <class T>
void CpuBackend<T>::rope_kv_write(const Tensor& cache, const Tensor& qkv, const Tensor& table,
                                  const PagedSequences& seqs, const AttentionDims& dims) {
  check_rope_kv_write(dtype(), cache, qkv, table, seqs, dims);
  const int64_t n = qkv.dim(0), ld = dims.qkv_width(), d = dims.head_dim, page_size = seqs.page_size;
  const Sequences sequences(seqs, cache, n);
  if (table) {
    const ArenaScope scope(workspace());
    const Tensor positions = workspace().take("positions", DType::i32, {n});
    int32_t* const position = positions.as<int32_t>();
    std::fill_n(position, n, 0);  // of rows that no sequence has
    for (int64_t b = 0; b < sequences.count(); ++b) {
      const Sequence s = sequences[b];
      std::iota(position + s.row, position + s.row + s.rows, static_cast<int32_t>(s.prefix + s.own - s.rows));
    }
    rope(qkv, table, positions, dims, false);
  }
  T* const pages = cache.as<T>();
  const T* const rows = qkv.as<T>() + dims.q_width();
#pragma omp parallel for collapse(2) if (n * dims.kv_width() > 1 << 13)
  for (int64_t b = 0; b < sequences.count(); ++b)
    for (int64_t h = 0; h < dims.kv_heads; ++h) {
      const Sequence s = sequences[b];
      for (int64_t i = 0; i < s.rows; ++i) {
        const int64_t own = s.own - s.rows + i, at = own % page_size;
        T* k = pages + (int64_t{s.own_pages[own / page_size]} * 2 * dims.kv_heads + h) * page_size * d;
        T* v = k + dims.kv_heads * page_size * d + at * d;
        const T* from = rows + (s.row + i) * ld + h * d;
        k += at / kKvTile * kKvTile * d + at % kKvTile;
        for (int64_t c = 0; c < d; ++c) k[c * kKvTile] = from[c];
        std::copy_n(from + dims.kv_width(), d, v);
      }
    }
}

template <class T>
void CpuBackend<T>::paged_attention(const Tensor& out, const Tensor& qkv, const Tensor& cache,
                                    const PagedSequences& seqs, const AttentionDims& dims) {
  check_paged_attention(dtype(), out, qkv, cache, seqs, dims);
  const int64_t n = qkv.dim(0), ld = dims.qkv_width(), d = dims.head_dim, page_size = seqs.page_size;
  const Sequences sequences(seqs, cache, n);
  const ArenaScope scope(workspace());
  const Tensor items = workspace().take("items", DType::i32, {n, 2});
  const Tensor scratch =
      workspace().take("rows", DType::f32, {omp_get_max_threads(), AttentionRows::scratch_floats(dims)});
  QueryBlock* blocks = reinterpret_cast<QueryBlock*>(items.as<int32_t>());
  int64_t count = 0, sums = 0;
  for (int32_t b = 0; b < sequences.count(); ++b) {
    const Sequence s = sequences[b];
    for (int32_t q = 0; q < s.rows; q += kQueryBlock) blocks[count++] = {b, q};
    sums += s.rows * (s.prefix + s.own) * dims.q_width();
  }

  const int64_t group = dims.heads / dims.kv_heads;
#pragma omp parallel for schedule(dynamic) if (sums > kParallelSums)
  for (int64_t item = count * dims.kv_heads - 1; item >= 0; --item) {
    const QueryBlock block = blocks[item / dims.kv_heads];
    const int64_t kv_head = item % dims.kv_heads, head = kv_head * group;
    const Sequence s = sequences[block.sequence];
    const auto visit = [&](AttentionRows& rows, const int32_t* pages, int64_t length, bool own) {
      for (int64_t j = 0; j < length; j += kKvTile) {
        const T* k = cache.as<T>() + (int64_t{pages[j / page_size]} * 2 * dims.kv_heads + kv_head) * page_size * d;
        const T* v = k + dims.kv_heads * page_size * d;
        const int64_t at = j % page_size * d;
        rows.visit_narrow(k + at, v + at, d, std::min<int64_t>(kKvTile, length - j), own ? j : -1);
      }
    };
    const int64_t first = s.own - s.rows + block.first, row = s.row + block.first;
    const int64_t queries = std::min<int64_t>(kQueryBlock, s.rows - block.first);
    AttentionRows rows(scratch.as<float>() + omp_get_thread_num() * scratch.dim(1), dims);
    rows.begin(qkv.as<T>() + row * ld + head * d, ld, queries, first);
    visit(rows, s.prefix_pages, s.prefix, false);
    visit(rows, s.own_pages, first + queries, true);
    rows.finish(out.as<T>() + row * dims.q_width() + head * d, dims.q_width(), nullptr, 0);
  }
}

template class CpuBackend<float>;
template class CpuBackend<bf16>;

}  // namespace dapo::cpu
