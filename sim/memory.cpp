// Device and pinned memory, the device's properties, injected errors.
#include "memory.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "runtime.h"

namespace sim {
namespace {

struct Device {
  std::mutex mutex;
  cudaDeviceProp properties;
  int count = 1, driver = 13000;
  std::size_t total = std::size_t{80} << 30;
  std::map<const char*, std::size_t> device, pinned;  // begin -> bytes
  std::size_t used = 0;
  bool protect = std::getenv("DAPO_SIM_PROTECT") != nullptr;
  int open = 0;  // DeviceOpen alive
};

std::size_t pages(std::size_t bytes) {
  return (bytes + 4095) / 4096 * 4096;
}

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

Device& device() {
  static Device* d = [] {
    auto* made = new Device;
    made->properties = h100();
    return made;
  }();
  return *d;
}

struct Injection {
  std::mutex mutex;
  long calls = 0, countdown = 0;
  int error = 0;
  std::string only;
  bool given = false;
  Injection() {
    if (const char* v = std::getenv("DAPO_SIM_FAIL")) {
      char name[64] = {};
      if (std::sscanf(v, "%ld:%d:%63s", &countdown, &error, name) < 2) countdown = 0;
      only = name;
    }
  }
};
Injection& injection() {
  static auto* i = new Injection;
  return *i;
}

std::atomic<long> handles{0};

bool inside(const std::map<const char*, std::size_t>& ranges, const void* p, std::size_t bytes) {
  const char* c = static_cast<const char*>(p);
  auto it = ranges.upper_bound(c);
  if (it == ranges.begin()) return false;
  --it;
  return c + bytes <= it->first + it->second;
}

cudaError_t allocate(void** p, std::size_t bytes, std::map<const char*, std::size_t>& ranges, bool on_device) {
  if (!p) return keep(cudaErrorInvalidValue);
  *p = nullptr;
  if (bytes == 0) return cudaSuccess;
  Device& d = device();
  std::lock_guard lock(d.mutex);
  if (on_device && (bytes > d.total || d.used + bytes > d.total)) return keep(cudaErrorMemoryAllocation);
  void* q = nullptr;
  if (on_device && d.protect) {
    q = mmap(nullptr, pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (q == MAP_FAILED) return keep(cudaErrorMemoryAllocation);
  } else if (posix_memalign(&q, 256, bytes)) {
    return keep(cudaErrorMemoryAllocation);
  }
  std::memset(q, 0xFF, bytes);  // NaN in fp32 and bf16
  if (on_device && d.protect && d.open == 0) mprotect(q, pages(bytes), PROT_NONE);
  ranges.emplace(static_cast<const char*>(q), bytes);
  if (on_device) d.used += bytes;
  *p = q;
  return cudaSuccess;
}

cudaError_t release(void* p, std::map<const char*, std::size_t>& ranges, bool on_device) {
  if (!p) return cudaSuccess;
  Device& d = device();
  std::lock_guard lock(d.mutex);
  const auto it = ranges.find(static_cast<const char*>(p));
  if (it == ranges.end()) return keep(cudaErrorInvalidValue);
  const std::size_t bytes = it->second;
  if (on_device) d.used -= bytes;
  ranges.erase(it);
  if (on_device && d.protect)
    munmap(p, pages(bytes));
  else
    std::free(p);
  return cudaSuccess;
}

void protect_all(Device& d, int access) {
  for (const auto& [begin, bytes] : d.device) mprotect(const_cast<char*>(begin), pages(bytes), access);
}

}  // namespace

DeviceOpen::DeviceOpen() {
  Device& d = device();
  if (!d.protect) return;
  std::lock_guard lock(d.mutex);
  if (d.open++ == 0) protect_all(d, PROT_READ | PROT_WRITE);
}
DeviceOpen::~DeviceOpen() {
  Device& d = device();
  if (!d.protect) return;
  std::lock_guard lock(d.mutex);
  if (--d.open == 0) protect_all(d, PROT_NONE);
}

int enter(const char* name) {
  Injection& i = injection();
  std::lock_guard lock(i.mutex);
  ++i.calls;
  if (i.countdown <= 0 || (!i.only.empty() && i.only != name)) return 0;
  if (--i.countdown > 0) return 0;
  i.given = true;
  return i.error;
}

void fail_call(long n, int error, const char* only) {
  Injection& i = injection();
  std::lock_guard lock(i.mutex);
  i.countdown = n;
  i.error = error;
  i.only = only ? only : "";
  i.given = false;
}

long calls() {
  std::lock_guard lock(injection().mutex);
  return injection().calls;
}

bool failed() {
  std::lock_guard lock(injection().mutex);
  return injection().given;
}

void count_handles(long change) {
  handles += change;
}

void count_memory(Live& live) {
  Device& d = device();
  std::lock_guard lock(d.mutex);
  live.allocations = static_cast<long>(d.device.size());
  live.pinned = static_cast<long>(d.pinned.size());
  live.bytes = d.used;
  live.handles = handles;
}

bool is_device(const void* p, std::size_t bytes) {
  std::lock_guard lock(device().mutex);
  return inside(device().device, p, bytes);
}

bool is_pinned(const void* p, std::size_t bytes) {
  std::lock_guard lock(device().mutex);
  return inside(device().pinned, p, bytes);
}

void set_device_properties(const cudaDeviceProp& p) {
  device().properties = p;
  device().total = p.totalGlobalMem;
}
cudaDeviceProp device_properties() {
  return device().properties;
}
void set_device_count(int count) {
  device().count = count;
}
void set_total_memory(std::size_t bytes) {
  device().total = device().properties.totalGlobalMem = bytes;
}
void set_driver_version(int version) {
  device().driver = version;
}
void reset_device() {
  set_library_other_bits(0);
  set_library_version(130000);
  set_device_properties(h100());
  set_device_count(1);
  set_driver_version(13000);
  fail_call(0, 0);
  take_fault();
}

}  // namespace sim

cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  ENTER("cudaMalloc");
  if (sim::capturing()) return sim::keep(cudaErrorStreamCaptureUnsupported);
  return sim::allocate(p, bytes, sim::device().device, true);
}
// What gives back does so even when it answers an error: on a device that error is an earlier one.
cudaError_t cudaFree(void* p) {
  sim::catch_up_device();
  const cudaError_t e = sim::release(p, sim::device().device, true);
  ENTER("cudaFree");
  return e;
}
cudaError_t cudaMallocHost(void** p, std::size_t bytes, unsigned) {
  ENTER("cudaMallocHost");
  return sim::allocate(p, bytes, sim::device().pinned, false);
}
cudaError_t cudaHostAlloc(void** p, std::size_t bytes, unsigned) {
  return cudaMallocHost(p, bytes);
}
cudaError_t cudaFreeHost(void* p) {
  sim::catch_up_device();
  const cudaError_t e = sim::release(p, sim::device().pinned, false);
  ENTER("cudaFreeHost");
  return e;
}
cudaError_t cudaHostRegister(void* p, std::size_t bytes, unsigned) {
  ENTER("cudaHostRegister");
  std::lock_guard lock(sim::device().mutex);
  sim::device().pinned.emplace(static_cast<const char*>(p), bytes);
  return cudaSuccess;
}
cudaError_t cudaHostUnregister(void* p) {
  std::lock_guard lock(sim::device().mutex);
  const bool known = sim::device().pinned.erase(static_cast<const char*>(p));
  ENTER("cudaHostUnregister");
  return known ? cudaSuccess : sim::keep(cudaErrorInvalidValue);
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  ENTER("cudaPointerGetAttributes");
  *a = {sim::is_device(p)      ? cudaMemoryTypeDevice
        : sim::is_pinned(p, 1) ? cudaMemoryTypeHost
                               : cudaMemoryTypeUnregistered,
        0, sim::is_device(p) ? const_cast<void*>(p) : nullptr, sim::is_device(p) ? nullptr : const_cast<void*>(p)};
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  ENTER("cudaGetDeviceCount");
  *count = sim::device().count;
  if (sim::device().driver < CUDART_VERSION / 1000 * 1000) return sim::keep(cudaErrorInsufficientDriver);
  return *count > 0 ? cudaSuccess : sim::keep(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int i) {
  ENTER("cudaSetDevice");
  return i >= 0 && i < sim::device().count ? cudaSuccess : sim::keep(cudaErrorInvalidDevice);
}
cudaError_t cudaGetDevice(int* i) {
  ENTER("cudaGetDevice");
  *i = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int i) {
  ENTER("cudaGetDeviceProperties");
  if (i < 0 || i >= sim::device().count) return sim::keep(cudaErrorInvalidDevice);
  *p = sim::device().properties;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr a, int i) {
  ENTER("cudaDeviceGetAttribute");
  if (i < 0 || i >= sim::device().count) return sim::keep(cudaErrorInvalidDevice);
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
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  ENTER("cudaMemGetInfo");
  std::lock_guard lock(sim::device().mutex);
  *total = sim::device().total;
  *free = *total - std::min(sim::device().used, *total);
  return cudaSuccess;
}
