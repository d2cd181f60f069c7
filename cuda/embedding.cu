// embedding, embedding_backward, gather_rows, sum_rows: rows of C elements moved or summed by index.
#include "core/op_checks.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/ptx.cuh"
#include "cuda/shape.h"
#include "cuda/thread.cuh"
#include "cuda/vec.cuh"

namespace dapo::cuda {
namespace {

/// to[n] = from[index[n] - first], or zero if that is outside [0, from_rows). One block for each row.
template <class O, class T, int W>
__global__ void gather_kernel(O* to, const T* from, const int32_t* index, int32_t first, int32_t from_rows,
                              int columns) {
  begin_overlapped();
  const int64_t n = blockIdx.x;
  const int32_t source = index[n] - first;
  const bool here = source >= 0 && source < from_rows;
  for (int c = thread_x() * W; c < columns; c += block_width() * W) {
    float x[W] = {};
    if (here) load_floats<W>(x, from + int64_t{source} * columns + c);
    store_floats<W>(to + n * columns + c, x);
  }
}
template <class O, class T>
void gather(cudaStream_t stream, const Tensor& to, const Tensor& from, const Tensor& index, int32_t first) {
  const int columns = narrow(from.dim(1));
  if (to.dim(0) == 0) return;
  with_width<T>(columns, [&]<int W>() {
    launch_overlapped(gather_kernel<O, T, W>, {grid_of(to.dim(0)), row_threads(columns, W), 0, stream}, to.as<O>(),
                      from.as<const T>(), index.as<const int32_t>(), first, narrow(from.dim(0)), columns);
  });
}

/// Sum over j in [offsets[n], offsets[n + 1]) of from[rows[j]], in that order: added to the f32 row unique[n] of a
/// gradient, or written as row n. One block for each row.
template <class T, class O, int W, bool kAdd>
__global__ void sum_rows_kernel(O* to, const T* from, const int32_t* unique, const int32_t* offsets,
                                const int32_t* rows, int columns) {
  const int n = block_x();
  const int begin = offsets[n], end = offsets[n + 1];
  O* out = to + int64_t{kAdd ? unique[n] : n} * columns;
  for (int c = thread_x() * W; c < columns; c += block_width() * W) {
    float sum[W] = {};
    for (int j = begin; j < end; ++j) {
      float x[W];
      load_floats<W>(x, from + int64_t{rows[j]} * columns + c);
#pragma unroll
      for (int i = 0; i < W; ++i) sum[i] += x[i];
    }
    if constexpr (kAdd) {
#pragma unroll
      for (int i = 0; i < W; ++i) out[c + i] += sum[i];
    } else {
      store_floats<W>(out + c, sum);
    }
  }
}

}  // namespace

template <class T>
void CudaBackend<T>::embedding(const Tensor& x, const Tensor& table, const Tensor& ids, int32_t first_id) {
  check_embedding(dtype(), x, table, ids);
  gather<float, T>(stream_, x, table, ids, first_id);
}

template <class T>
void CudaBackend<T>::gather_rows(const Tensor& y, const Tensor& x, const Tensor& index) {
  check_gather_rows(dtype(), y, x, index);
  if (x.dtype == DType::f32)
    gather<float, float>(stream_, y, x, index, 0);
  else
    gather<T, T>(stream_, y, x, index, 0);
}

template <class T>
void CudaBackend<T>::embedding_backward(const Tensor& dtable, const Tensor& dx, const Tensor& unique,
                                        const Tensor& offsets, const Tensor& rows) {
  check_embedding_backward(dtype(), dtable, dx, unique, offsets, rows);
  const int columns = narrow(dx.dim(1));
  if (unique.numel() == 0) return;
  with_width<T>(columns, [&]<int W>() {
    launch(sum_rows_kernel<T, float, W, true>, {grid_of(unique.numel()), row_threads(columns, W), 0, stream_},
           dtable.as<float>(), dx.as<const T>(), unique.as<const int32_t>(), offsets.as<const int32_t>(),
           rows.as<const int32_t>(), columns);
  });
}

template <class T>
void CudaBackend<T>::sum_rows(const Tensor& dx, const Tensor& dy, const Tensor& offsets, const Tensor& rows) {
  check_sum_rows(dtype(), dx, dy, offsets, rows);
  const int columns = narrow(dy.dim(1));
  if (dx.dim(0) == 0) return;
  with_width<T>(columns, [&]<int W>() {
    launch(sum_rows_kernel<T, T, W, false>, {grid_of(dx.dim(0)), row_threads(columns, W), 0, stream_}, dx.as<T>(),
           dy.as<const T>(), static_cast<const int32_t*>(nullptr), offsets.as<const int32_t>(),
           rows.as<const int32_t>(), columns);
  });
}

#define DAPO_INSTANTIATE(T)                                                                                    \
  template void CudaBackend<T>::embedding(const Tensor&, const Tensor&, const Tensor&, int32_t);               \
  template void CudaBackend<T>::gather_rows(const Tensor&, const Tensor&, const Tensor&);                      \
  template void CudaBackend<T>::embedding_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, \
                                                   const Tensor&);                                             \
  template void CudaBackend<T>::sum_rows(const Tensor&, const Tensor&, const Tensor&, const Tensor&);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
