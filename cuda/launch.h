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

/// Whether this card and the code compiled for it overlap kernels (launch_overlapped); DAPO_CUDA_PDL=0 forbids it.
bool overlaps_kernels(const void* kernel);

template <class... P, class... A>
void launch_as(bool overlapped, void (*kernel)(P...), const LaunchConfig& c, A&&... args) {
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
    cudaLaunchAttribute overlap{};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    if (overlapped && overlaps_kernels(f)) {
      config.attrs = &overlap;
      config.numAttrs = 1;
    }
    e = cudaLaunchKernelEx(&config, kernel, std::forward<A>(args)...);
  }
  if (e != cudaSuccess) launch_failed(e, f, c.grid, c.block, c.smem_bytes, c.where);
}

/// Launches kernel(args...) in stream order; throws Error, naming the kernel, if the launch is refused.
template <class... P, class... A>
void launch(void (*kernel)(P...), const LaunchConfig& c, A&&... args) {
  launch_as(false, kernel, c, std::forward<A>(args)...);
}
/// The same for a kernel that calls wait_for_previous_kernel() (ptx.cuh): its blocks may start while the last ones of
/// the kernel ahead run, which hides the launch (programmatic dependent launch). A decode step is made of these.
template <class... P, class... A>
void launch_overlapped(void (*kernel)(P...), const LaunchConfig& c, A&&... args) {
  launch_as(true, kernel, c, std::forward<A>(args)...);
}

}  // namespace dapo
