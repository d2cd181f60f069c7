// Tensor maps for tests, by way of the driver's entry point.
#pragma once

#include <cuda.h>

#include <vector>

#include "cuda/launch.h"

namespace dapo {

/// `dims` and `box` innermost first; rows of `row` bytes (0: packed); swizzle 0, 32, 64, 128.
inline CUresult try_tensor_map(CUtensorMap* map, void* base, std::size_t element, const std::vector<long>& dims,
                               const std::vector<long>& box, unsigned swizzle, bool nan_fill, long row = 0) {
  void* f = nullptr;
  cuda_check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, nullptr),
             "cuTensorMapEncodeTiled");
  std::vector<cuuint64_t> d, strides;
  std::vector<cuuint32_t> b, steps(dims.size(), 1);
  for (long x : dims) d.push_back(static_cast<cuuint64_t>(x));
  for (long x : box) b.push_back(static_cast<cuuint32_t>(x));
  strides.push_back(row ? static_cast<cuuint64_t>(row) : d[0] * element);
  for (std::size_t i = 1; i + 1 < d.size(); ++i) strides.push_back(strides.back() * d[i]);
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(f)(
      map, element == 2 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
      static_cast<cuuint32_t>(dims.size()), base, d.data(), strides.data(), b.data(), steps.data(),
      CU_TENSOR_MAP_INTERLEAVE_NONE,
      swizzle == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
      : swizzle == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
      : swizzle == 32 ? CU_TENSOR_MAP_SWIZZLE_32B
                      : CU_TENSOR_MAP_SWIZZLE_NONE,
      CU_TENSOR_MAP_L2_PROMOTION_NONE,
      nan_fill ? CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA : CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}
inline CUtensorMap tensor_map(void* base, std::size_t element, const std::vector<long>& dims,
                              const std::vector<long>& box, unsigned swizzle, bool nan_fill = false) {
  CUtensorMap map;
  if (try_tensor_map(&map, base, element, dims, box, swizzle, nan_fill) != CUDA_SUCCESS)
    cuda_check(cudaErrorInvalidValue, "a test's tensor map");
  return map;
}

}  // namespace dapo
