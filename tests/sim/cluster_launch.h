// Launches in clusters, for tests.
#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "cuda/launch.h"

namespace dapo {

template <class... P, class... A>
cudaError_t try_launch_clusters(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t smem, dim3 cluster,
                                A&&... args) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = cluster.x;
  attribute.val.clusterDim.y = cluster.y;
  attribute.val.clusterDim.z = cluster.z;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = smem;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, std::forward<A>(args)...);
}
template <class... P, class... A>
void launch_clusters(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t smem, dim3 cluster, A&&... args) {
  if (const cudaError_t e = try_launch_clusters(kernel, grid, block, smem, cluster, std::forward<A>(args)...))
    launch_failed(e, reinterpret_cast<const void*>(kernel), grid, block, smem, std::source_location::current());
}

}  // namespace dapo
