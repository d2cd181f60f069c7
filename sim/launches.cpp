// Kernels: their attributes, and launches.
#include <algorithm>
#include <map>
#include <mutex>
#include <set>

#include "cuda_streams.h"
#include "engine.h"

using sim::keep;

namespace {
struct Limits {
  std::mutex mutex;
  std::map<const void*, std::size_t> smem;  // limits that were raised
  std::set<const void*> large_clusters;     // kernels that may have more than 8 blocks
};
Limits& limits() {
  static auto* l = new Limits;
  return *l;
}
/// Without cudaFuncSetAttribute a card grants 48 KB less the kernel's static arrays. Those are not known here: a kernel
/// that requests more than this may fail there, so it fails here.
constexpr std::size_t kSmemFree = std::size_t{32} << 10;

/// Dynamic shared memory that a kernel may request.
std::size_t smem_limit(const void* f) {
  std::lock_guard lock(limits().mutex);
  const auto it = limits().smem.find(f);
  return it == limits().smem.end() ? kSmemFree : it->second;
}
bool may_be_large(const void* f) {
  std::lock_guard lock(limits().mutex);
  return limits().large_clusters.contains(f);
}

dim3 cluster_of(const cudaLaunchConfig_t& c) {
  for (unsigned i = 0; i < c.numAttrs; ++i)
    if (c.attrs[i].id == cudaLaunchAttributeClusterDimension) {
      const auto& d = c.attrs[i].val.clusterDim;
      return dim3(d.x, d.y, d.z);
    }
  return dim3(1);
}
}  // namespace

cudaError_t sim_func_set_attribute(const void* f, cudaFuncAttribute a, int value) {
  ENTER("cudaFuncSetAttribute");
  if (a == cudaFuncAttributeNonPortableClusterSizeAllowed && value) {
    std::lock_guard lock(limits().mutex);
    limits().large_clusters.insert(f);
  }
  if (a != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<std::size_t>(value) > sim::device_properties().sharedMemPerBlockOptin)
    return keep(cudaErrorInvalidValue);
  std::lock_guard lock(limits().mutex);
  limits().smem[f] = static_cast<std::size_t>(value);
  return cudaSuccess;
}
cudaError_t sim_func_get_attributes(cudaFuncAttributes* a, const void* f) {
  ENTER("cudaFuncGetAttributes");
  *a = {};
  a->maxThreadsPerBlock = 1024;
  const cudaDeviceProp p = sim::device_properties();
  a->ptxVersion = a->binaryVersion = p.major >= 9 ? 90 : 80;
  a->maxDynamicSharedSizeBytes = static_cast<int>(smem_limit(f));
  return cudaSuccess;
}
cudaError_t sim_occupancy(int* blocks, const void*, int threads, std::size_t smem) {
  ENTER("cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  const cudaDeviceProp p = sim::device_properties();
  const int warps = (threads + 31) / 32 * 32;
  *blocks = std::min(p.maxThreadsPerMultiProcessor / std::max(warps, 32), p.maxBlocksPerMultiProcessor);
  *blocks =
      std::min<int>(*blocks, static_cast<int>(p.sharedMemPerMultiprocessor / (smem + p.reservedSharedMemPerBlock)));
  return cudaSuccess;
}
/// An upper bound: a card's processors are in groups of 16 or 18, of which large clusters leave some unused.
cudaError_t sim_occupancy_clusters(int* clusters, const void* f, const cudaLaunchConfig_t* c) {
  ENTER("cudaOccupancyMaxActiveClusters");
  const dim3 size = cluster_of(*c), b = c->blockDim;
  const int blocks = static_cast<int>(size.x * size.y * size.z);
  int each = 0;
  if (const cudaError_t e = sim_occupancy(&each, f, static_cast<int>(b.x * b.y * b.z), c->dynamicSmemBytes)) return e;
  *clusters = sim::device_properties().multiProcessorCount * each / blocks;
  return cudaSuccess;
}
cudaError_t cudaFuncGetName(const char** name, const void* f) {
  static std::mutex mutex;
  static auto* names = new std::map<const void*, std::string>;
  std::lock_guard lock(mutex);
  *name = names->try_emplace(f, sim::function_name(f)).first->second.c_str();
  return cudaSuccess;
}

cudaError_t sim_launch(const cudaLaunchConfig_t* c, const void* f, void (*call)(void*),
                       std::shared_ptr<void> arguments) {
  ENTER("cudaLaunchKernel");
  const cudaDeviceProp p = sim::device_properties();
  const dim3 g = c->gridDim, b = c->blockDim;
  const auto beyond = [](unsigned n, int most) { return n == 0 || n > static_cast<unsigned>(most); };
  if (beyond(g.x, p.maxGridSize[0]) || beyond(g.y, p.maxGridSize[1]) || beyond(g.z, p.maxGridSize[2]) ||
      beyond(b.x, p.maxThreadsDim[0]) || beyond(b.y, p.maxThreadsDim[1]) || beyond(b.z, p.maxThreadsDim[2]) ||
      b.x * b.y * b.z > static_cast<unsigned>(p.maxThreadsPerBlock))
    return keep(cudaErrorInvalidConfiguration);
  if (c->dynamicSmemBytes > std::max(smem_limit(f), kSmemFree)) return keep(cudaErrorInvalidValue);
  bool overlaps = false;
  for (unsigned i = 0; i < c->numAttrs; ++i) {
    const cudaLaunchAttribute& a = c->attrs[i];
    if (a.id == cudaLaunchAttributeCooperative) return keep(cudaErrorNotSupported);
    if (a.id == cudaLaunchAttributeProgrammaticStreamSerialization)
      overlaps = a.val.programmaticStreamSerializationAllowed != 0;
  }
  const dim3 cluster = cluster_of(*c);
  const unsigned blocks = cluster.x * cluster.y * cluster.z;
  if (blocks > 1 && p.major < 9) return keep(cudaErrorNotSupported);
  if (blocks == 0 || g.x % cluster.x || g.y % cluster.y || g.z % cluster.z) return keep(cudaErrorInvalidConfiguration);
  if (blocks > (may_be_large(f) ? 16u : 8u)) return keep(cudaErrorInvalidClusterSize);
  return sim::submit(c->stream, [launch = sim::Launch{f, call, std::move(arguments), g, b, cluster, c->dynamicSmemBytes,
                                                      0, 0, overlaps}] {
    return sim::run_grid(launch) ? cudaSuccess : cudaErrorLaunchFailure;
  });
}
