#include "cuda/launch.h"

#include <fmt/format.h>

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
