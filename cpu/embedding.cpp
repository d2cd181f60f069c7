// embedding, embedding_backward, gather_rows, sum_rows: rows copied or summed by index.
#include <cstring>

#include "core/op_checks.h"
#include "cpu/cpu_backend.h"
#include "cpu/parallel.h"
#include "cpu/vec.h"

namespace dapo::cpu {
namespace {

/// to[0..n) (+)= the sum of from's rows index[0..count), added in that order.
template <class To, class From>
void add_rows(To* to, const From* from, const int32_t* index, int64_t count, int64_t width, bool accumulate) {
  each_part(width, [&](int64_t c, auto n) {
    f32x16 s = accumulate ? load_part(to + c, n) : f32x16{};
    for (int64_t j = 0; j < count; ++j) s += load_part(from + index[j] * width + c, n);
    store_part(to + c, s, n);
  });
}

}  // namespace

template <class T>
void CpuBackend<T>::embedding(const Tensor& x, const Tensor& table, const Tensor& ids, int32_t first_id) {
  check_embedding(dtype(), x, table, ids);
  const int64_t rows = ids.dim(0), vocab = table.dim(0), width = table.dim(1);
  if (rows == 0) return;
  float* to = x.as<float>();
  const T* from = table.as<T>();
  const int32_t* id = ids.as<int32_t>();
#pragma omp parallel for if (rows * width > kParallelFrom)
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t local = int64_t{id[r]} - first_id;
    const bool here = local >= 0 && local < vocab;
    each_part(width, [&](int64_t c, auto n) {
      store_part(to + r * width + c, here ? load_part(from + local * width + c, n) : f32x16{}, n);
    });
  }
}

template <class T>
void CpuBackend<T>::embedding_backward(const Tensor& dtable, const Tensor& dx, const Tensor& unique,
                                       const Tensor& offsets, const Tensor& rows) {
  check_embedding_backward(dtype(), dtable, dx, unique, offsets, rows);
  const int64_t count = unique.dim(0), width = dtable.dim(1);
  if (count == 0) return;
  float* to = dtable.as<float>();
  const T* from = dx.as<T>();
  const int32_t *id = unique.as<int32_t>(), *begin = offsets.as<int32_t>(), *row = rows.as<int32_t>();
#pragma omp parallel for schedule(dynamic, 8) if (rows.dim(0) * width > kParallelFrom)
  for (int64_t u = 0; u < count; ++u)
    add_rows(to + id[u] * width, from, row + begin[u], begin[u + 1] - begin[u], width, true);
}

template <class T>
void CpuBackend<T>::gather_rows(const Tensor& y, const Tensor& x, const Tensor& index) {
  check_gather_rows(dtype(), y, x, index);
  const int64_t rows = index.dim(0), width = x.dim(1);
  if (rows == 0) return;
  auto* to = static_cast<char*>(y.data);
  const auto* from = static_cast<const char*>(x.data);
  const int32_t* row = index.as<int32_t>();
  const int64_t bytes = width * int64_t(dtype_size(x.dtype));
#pragma omp parallel for if (rows * width > kParallelFrom)
  for (int64_t r = 0; r < rows; ++r) std::memcpy(to + r * bytes, from + row[r] * bytes, bytes);
}

template <class T>
void CpuBackend<T>::sum_rows(const Tensor& dx, const Tensor& dy, const Tensor& offsets, const Tensor& rows) {
  check_sum_rows(dtype(), dx, dy, offsets, rows);
  const int64_t count = dx.dim(0), width = dx.dim(1);
  if (count == 0) return;
  T* to = dx.as<T>();
  const T* from = dy.as<T>();
  const int32_t *begin = offsets.as<int32_t>(), *row = rows.as<int32_t>();
#pragma omp parallel for if ((count + rows.dim(0)) * width > kParallelFrom)
  for (int64_t n = 0; n < count; ++n)
    add_rows(to + n * width, from, row + begin[n], begin[n + 1] - begin[n], width, false);
}

template class CpuBackend<float>;
template class CpuBackend<bf16>;

}  // namespace dapo::cpu
