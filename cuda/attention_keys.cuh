// Where the keys of a sequence are: in the rows of a training pack, or in pages.
#pragma once

#include <cuda_runtime.h>

#include "core/sizes.h"
#include "cuda/cuda_backend.h"

namespace dapo::cuda {

/// Rows of one sequence.
struct AttentionWork {
  int rows;         ///< new tokens
  int first_own;    ///< index of the first new token among the sequence's own tokens
  int prefix, own;  ///< tokens of each; own counts the new ones
  int64_t row0;     ///< first row in qkv and out
};

/// tile(): the first key and value of tile t (kKvTile tokens) of the prefix or of the sequence's own tokens, rows `ld`
/// apart.
template <class T>
struct PackKeys {
  const T* qkv;
  const int32_t* segments;  ///< i32[S, 3]: begin, length, prefix
  int64_t width;
  int heads, kv_heads;
  __device__ AttentionWork work(int s) const {
    const int prefix = segments[3 * s + 2], length = segments[3 * s + 1];
    return {length, 0, prefix < 0 ? 0 : segments[3 * prefix + 1], length, segments[3 * s]};
  }
  __device__ void tile(int s, int kv_head, bool prefix, int t, int d, const T*& k, const T*& v, int64_t& ld) const {
    const int64_t begin = segments[3 * (prefix ? segments[3 * s + 2] : s)];
    k = qkv + (begin + int64_t{t} * kKvTile) * width + int64_t{heads + kv_head} * d;
    v = k + int64_t{kv_heads} * d;
    ld = width;
  }
};

template <class T>
struct PageKeys {
  const T* cache;  ///< [pages, 2, K, page_size, D]
  const int32_t *row_begin, *prefix_length, *own_length, *pages;
  int max_pages, page_size, kv_heads;
  __device__ AttentionWork work(int b) const {
    const int rows = row_begin[b + 1] - row_begin[b];
    return {rows, own_length[b] - rows, prefix_length[b], own_length[b], row_begin[b]};
  }
  /// First element of the page's slot of token `at` (of the prefix, or of the sequence's own tokens).
  __device__ int64_t key_offset(int b, int kv_head, bool prefix, int at, int d) const {
    const int skipped = prefix ? 0 : ceil_div(prefix_length[b], page_size);
    const int64_t page = pages[int64_t{b} * max_pages + skipped + at / page_size];
    return ((page * 2 * kv_heads + kv_head) * page_size + at % page_size) * d;
  }
  __device__ int64_t value_step(int d) const { return int64_t{kv_heads} * page_size * d; }
  __device__ void tile(int b, int kv_head, bool prefix, int t, int d, const T*& k, const T*& v, int64_t& ld) const {
    k = cache + key_offset(b, kv_head, prefix, t * kKvTile, d);
    v = k + value_step(d);
    ld = d;
  }
};

}  // namespace dapo::cuda
