// The device as programs see it: its properties, how many there are, the driver's version. Tests change them.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "allocations.h"
#include "calls.h"

namespace sim {
namespace {

cudaDeviceProp h100() {
  cudaDeviceProp p{};
  std::snprintf(p.name, sizeof p.name, "NVIDIA H100 80GB HBM3 (simulated)");
  p.totalGlobalMem = std::size_t{80} << 30;
  p.sharedMemPerBlock = 48 << 10;
  p.regsPerBlock = p.regsPerMultiprocessor = 65536;
  p.warpSize = 32;
  p.maxThreadsPerBlock = p.maxThreadsDim[0] = p.maxThreadsDim[1] = 1024;
  p.maxThreadsDim[2] = 64;
  p.maxGridSize[0] = 2147483647;
  p.maxGridSize[1] = p.maxGridSize[2] = 65535;
  p.totalConstMem = 64 << 10;
  p.major = 9;
  p.multiProcessorCount = 132;
  p.ECCEnabled = 1;
  p.pciBusID = 1;
  p.memoryBusWidth = 5120;
  p.l2CacheSize = 50 << 20;
  p.maxThreadsPerMultiProcessor = 2048;
  p.sharedMemPerMultiprocessor = 228 << 10;
  p.sharedMemPerBlockOptin = 227 << 10;
  p.maxBlocksPerMultiProcessor = 32;
  p.reservedSharedMemPerBlock = 1 << 10;
  return p;
}

struct Device {
  cudaDeviceProp properties = h100();
  int count = -1, driver = 13000;  // -1: those that are visible
};
Device& device() {
  static auto* d = new Device;
  return *d;
}

/// The machine's GPUs that this process sees: DAPO_SIM_DEVICES of them (1), or those that CUDA_VISIBLE_DEVICES counts up.
const std::vector<int>& visible() {
  static const auto* seen = [] {
    const char* const devices = std::getenv("DAPO_SIM_DEVICES");
    const int all = devices ? std::atoi(devices) : 1;
    auto* list = new std::vector<int>;
    if (const char* at = std::getenv("CUDA_VISIBLE_DEVICES")) {
      for (int n = 0, i = 0; std::sscanf(at, "%d%n", &i, &n) == 1 && i >= 0 && i < all; at += *at == ',') {
        list->push_back(i);
        at += n;
      }
    } else {
      for (int i = 0; i < all; ++i) list->push_back(i);
    }
    return list;
  }();
  return *seen;
}
int device_count() {
  return device().count >= 0 ? device().count : static_cast<int>(visible().size());
}
thread_local int current = 0;

}  // namespace

void set_device_properties(const cudaDeviceProp& p) {
  device().properties = p;
  limit_memory(p.totalGlobalMem);
}
cudaDeviceProp device_properties() {
  return device().properties;
}
void set_device_count(int count) {
  device().count = count;
}
void set_total_memory(std::size_t bytes) {
  device().properties.totalGlobalMem = bytes;
  limit_memory(bytes);
}
void set_driver_version(int version) {
  device().driver = version;
}
void reset_device() {
  set_library_other_bits(0);
  set_library_version(130000);
  set_device_properties(h100());
  set_device_count(-1);
  set_driver_version(13000);
  fail_call(0, 0);
  take_fault();
}

}  // namespace sim

cudaError_t cudaGetDeviceCount(int* count) {
  ENTER("cudaGetDeviceCount");
  *count = sim::device_count();
  if (sim::device().driver < CUDART_VERSION / 1000 * 1000) return sim::keep(cudaErrorInsufficientDriver);
  return *count > 0 ? cudaSuccess : sim::keep(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int i) {
  ENTER("cudaSetDevice");
  if (i < 0 || i >= sim::device_count()) return sim::keep(cudaErrorInvalidDevice);
  sim::current = i;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* i) {
  ENTER("cudaGetDevice");
  *i = sim::current;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int i) {
  ENTER("cudaGetDeviceProperties");
  if (i < 0 || i >= sim::device_count()) return sim::keep(cudaErrorInvalidDevice);
  *p = sim::device().properties;
  const int physical = i < static_cast<int>(sim::visible().size()) ? sim::visible()[static_cast<std::size_t>(i)] : i;
  p->uuid.bytes[15] = static_cast<char>(physical + 1);
  p->pciBusID += physical;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr a, int i) {
  ENTER("cudaDeviceGetAttribute");
  if (i < 0 || i >= sim::device_count()) return sim::keep(cudaErrorInvalidDevice);
  const cudaDeviceProp& p = sim::device().properties;
  switch (a) {
    case cudaDevAttrMaxThreadsPerBlock:
      *v = p.maxThreadsPerBlock;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *v = static_cast<int>(p.sharedMemPerBlock);
      break;
    case cudaDevAttrWarpSize:
      *v = p.warpSize;
      break;
    case cudaDevAttrMultiProcessorCount:
      *v = p.multiProcessorCount;
      break;
    case cudaDevAttrClockRate:
      *v = 1980000;
      break;
    case cudaDevAttrMemoryClockRate:
      *v = 2619000;
      break;
    case cudaDevAttrGlobalMemoryBusWidth:
      *v = p.memoryBusWidth;
      break;
    case cudaDevAttrL2CacheSize:
      *v = p.l2CacheSize;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *v = p.maxThreadsPerMultiProcessor;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *v = p.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *v = p.minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *v = static_cast<int>(p.sharedMemPerMultiprocessor);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *v = static_cast<int>(p.sharedMemPerBlockOptin);
      break;
    default:
      return sim::keep(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int) {
  ENTER("cudaDeviceGetPCIBusId");
  std::snprintf(id, static_cast<std::size_t>(length), "0000:01:00.0");
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  ENTER("cudaDeviceCanAccessPeer");
  *can = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceReset() {
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* v) {
  ENTER("cudaDriverGetVersion");
  *v = sim::device().driver;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* v) {
  *v = CUDART_VERSION;
  return cudaSuccess;
}
