// cast and increment: a thread an element.
#include "core/op_checks.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/ptx.cuh"
#include "cuda/shape.h"
#include "cuda/vec.cuh"

namespace dapo::cuda {
namespace {

constexpr int kThreads = 256;

template <class To, class From>
__global__ void cast_kernel(To* to, const From* from, int64_t n) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) to[i] = from_float<To>(to_float(from[i]));
}
__global__ void increment_kernel(int32_t* t, int64_t n) {
  begin_overlapped();
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) t[i] += 1;
}

}  // namespace

template <class T>
void CudaBackend<T>::cast(const Tensor& to, const Tensor& from) {
  check_cast(to, from);
  const int64_t n = from.numel();
  if (n == 0) return;
  if (to.dtype == from.dtype) return copy(to, from);
  const LaunchConfig config{grid_of(ceil_div(n, kThreads)), dim3(kThreads), 0, stream_};
  if (to.dtype == DType::bf16)
    launch(cast_kernel<bf16, float>, config, to.as<bf16>(), from.as<const float>(), n);
  else
    launch(cast_kernel<float, bf16>, config, to.as<float>(), from.as<const bf16>(), n);
}

template <class T>
void CudaBackend<T>::increment(const Tensor& t) {
  check_increment(t);
  if (t.numel() == 0) return;
  launch_overlapped(increment_kernel, {grid_of(ceil_div(t.numel(), kThreads)), dim3(kThreads), 0, stream_},
                    t.as<int32_t>(), t.numel());
}

#define DAPO_INSTANTIATE(T)                                         \
  template void CudaBackend<T>::cast(const Tensor&, const Tensor&); \
  template void CudaBackend<T>::increment(const Tensor&);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
