#include "cuda/launch.h"

#include <fmt/format.h>

#include <cstdlib>
#include <string_view>

#include "core/check.h"

namespace dapo {
namespace {

int exit_code(cudaError_t e) {
  switch (e) {
    case cudaErrorMemoryAllocation:
    case cudaErrorInitializationError:
    case cudaErrorInsufficientDriver:
    case cudaErrorDevicesUnavailable:
    case cudaErrorNoDevice:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorECCUncorrectable:
    case cudaErrorSystemNotReady:
      return kExitResources;
    default:
      return kExitInternal;
  }
}

}  // namespace

bool overlaps_kernels(const void* kernel) {
  // All kernels are compiled for the same architectures, so the first one answers for all.
  static const bool overlaps = [kernel] {
    const char* set = std::getenv("DAPO_CUDA_PDL");
    const std::string_view value = set == nullptr ? "1" : set;
    if (value != "0" && value != "1") fail_input("DAPO_CUDA_PDL={}: 0 or 1", value);
    if (value == "0") return false;
    int device = 0, major = 0;
    cuda_check(cudaGetDevice(&device), "cudaGetDevice");
    cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
    cudaFuncAttributes code{};
    cuda_check(cudaFuncGetAttributes(&code, kernel), "cudaFuncGetAttributes");
    return major >= 9 && code.ptxVersion >= 90;  // below, the wait is not compiled in
  }();
  return overlaps;
}

void cuda_failed(cudaError_t e, const char* what, std::source_location where) {
  fail(exit_code(e), "{}:{}: {}: {} ({})", where.file_name(), where.line(), what, cudaGetErrorString(e),
       cudaGetErrorName(e));
}

void launch_failed(cudaError_t e, const void* kernel, dim3 grid, dim3 block, std::size_t smem_bytes,
                   std::source_location where) {
  const std::string text = cudaGetErrorString(e);  // before the next call changes it
  const char* name = nullptr;
  if (cudaFuncGetName(&name, kernel) != cudaSuccess || !name) name = "kernel";
  fail(exit_code(e), "{}:{}: launch of {}, grid ({},{},{}), block ({},{},{}), {} bytes of shared memory: {} ({})",
       where.file_name(), where.line(), name, grid.x, grid.y, grid.z, block.x, block.y, block.z, smem_bytes, text,
       cudaGetErrorName(e));
}

}  // namespace dapo
