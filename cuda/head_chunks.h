// Logits by chunks of rows, in the workspace: shared by training's head and by sampling.
#pragma once

#include <algorithm>

#include "core/backend.h"
#include "cuda/products.h"

namespace dapo::cuda {

/// Rows whose logits are held at once, a pure function of the shape.
int64_t head_chunk_rows(int64_t rows, int64_t vocab);

/// body(first row, rows, logits f32[rows, V]) for each chunk of x T[R, C] against head T[V, C].
template <class F>
void for_head_chunks(Products& products, Arena& workspace, const Tensor& x, const Tensor& head, const F& body) {
  const int64_t rows = x.dim(0), hidden = head.dim(1), vocab = head.dim(0);
  expect("head", head, x.dtype, {vocab, hidden});
  expect("x", x, x.dtype, {rows, hidden});
  if (rows == 0) return;
  const int64_t chunk = head_chunk_rows(rows, vocab);
  const ArenaScope scope(workspace);
  const Tensor logits = workspace.take("logits", DType::f32, {chunk, vocab});
  for (int64_t first = 0; first < rows; first += chunk) {
    const int64_t n = std::min(chunk, rows - first);
    products.run({n, vocab, hidden, x.dtype, x.dtype, DType::f32, false, true, hidden, hidden, vocab}, logits.data,
                 x.rows(first, n).data, head.data);
    body(first, n, logits.rows(0, n));
  }
}

}  // namespace dapo::cuda
