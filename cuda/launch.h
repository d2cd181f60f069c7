// How kernels are launched and runtime calls are checked: the only place with launch attributes.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <source_location>
#include <string>
#include <utility>

namespace dapo {

/// Throws Error: code 3 if the device, its driver or its memory is at fault, else 70. The message names the call.
[[noreturn]] void cuda_failed(cudaError_t error, const char* what, std::source_location where);
[[noreturn]] void launch_failed(cudaError_t error, const void* kernel, dim3 grid, dim3 block, std::size_t smem_bytes,
                                std::source_location where);

/// cuda_check(cudaMalloc(&p, bytes), "cudaMalloc of the weights")
inline void cuda_check(cudaError_t error, const char* what,
                       std::source_location where = std::source_location::current()) {
  if (error != cudaSuccess) cuda_failed(error, what, where);
}

/// Dynamic shared memory that any kernel may use: 48 KB less its static arrays, which are below 16 KB in every kernel.
inline constexpr std::size_t kSmemFree = 32u << 10;

struct LaunchConfig {
  dim3 grid, block;
  std::size_t smem_bytes = 0;  ///< dynamic shared memory; above kSmemFree the limit is raised first
  cudaStream_t stream = nullptr;
  std::source_location where = std::source_location::current();  ///< of the launcher, for messages
};

/// Launches kernel(args...) in stream order; throws Error, naming the kernel, if the launch is refused.
template <class... P, class... A>
void launch(void (*kernel)(P...), const LaunchConfig& c, A&&... args) {
  const void* f = reinterpret_cast<const void*>(kernel);
  cudaError_t e = cudaSuccess;
  if (c.smem_bytes > kSmemFree)
    e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(c.smem_bytes));
  if (e == cudaSuccess) {
    cudaLaunchConfig_t config{};
    config.gridDim = c.grid;
    config.blockDim = c.block;
    config.dynamicSmemBytes = c.smem_bytes;
    config.stream = c.stream;
    e = cudaLaunchKernelEx(&config, kernel, std::forward<A>(args)...);
  }
  if (e != cudaSuccess) launch_failed(e, f, c.grid, c.block, c.smem_bytes, c.where);
}

}  // namespace dapo
