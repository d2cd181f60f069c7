#include "cuda/device.h"

#include "cuda/cuda_backend.h"

namespace dapo {
namespace cuda {
namespace {

/// A driver runs programs of its own major version of CUDA, or of an older one.
constexpr int kMinimumDriver = CUDART_VERSION / 1000 * 1000;

/// Reason why no CUDA device can be used, as a clause for an error message; empty if one can.
std::string unsuitable(cudaDeviceProp* properties) {
  int driver = 0, devices = 0, device = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    return "no NVIDIA driver is loaded (install one, see nvidia-smi)";
  if (driver < kMinimumDriver)
    return fmt::format("the driver supports CUDA {}.{}, {}.{} is needed: update the driver", driver / 1000,
                       driver % 1000 / 10, kMinimumDriver / 1000, kMinimumDriver % 1000 / 10);
  const cudaError_t counted = cudaGetDeviceCount(&devices);
  cudaGetLastError();
  if (counted == cudaErrorNoDevice || (counted == cudaSuccess && devices == 0))
    return "the driver shows no GPU (CUDA_VISIBLE_DEVICES?)";
  if (counted != cudaSuccess)
    fail(kExitResources,
         "device cuda: the driver cannot list its GPUs: {}; repair it (nvidia-smi), or use --device cpu",
         cudaGetErrorString(counted));
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaGetDeviceProperties(properties, device));
  if (properties->major < 8)
    return fmt::format("{} is sm_{}{}, sm_80 (A100) or later is needed", properties->name, properties->major,
                       properties->minor);
  return "";
}

}  // namespace

cudaDeviceProp check_device() {
  cudaDeviceProp properties{};
  if (const std::string why = unsuitable(&properties); !why.empty())
    fail_input("device cuda: {}; or use --device cpu", why);
  int device = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  const cudaError_t first = cudaSetDevice(device);
  if (first != cudaSuccess)
    fail(kExitResources, "device cuda: {} does not start: {}; another process may hold it exclusively (nvidia-smi)",
         properties.name, cudaGetErrorString(first));
  return properties;
}

namespace {
/// The GPU of each thread is its own; a new thread has the first.
thread_local int thread_device = 0;
}  // namespace

int used_device() {
  return thread_device;
}
void use_device(int device) {
  if (device == thread_device) return;
  CUDA_CHECK(cudaSetDevice(device));
  thread_device = device;
}

}  // namespace cuda

std::string cuda_unsuitable() {
  cudaDeviceProp properties{};
  return cuda::unsuitable(&properties);
}

std::vector<CudaGpu> cuda_gpus() {
  std::vector<CudaGpu> gpus;
  if (!cuda_unsuitable().empty()) return gpus;
  int count = 0;
  CUDA_CHECK(cudaGetDeviceCount(&count));
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p{};
    CUDA_CHECK(cudaGetDeviceProperties(&p, i));
    std::string uuid = "GPU";
    for (int b = 0; b < 16; ++b)
      uuid += fmt::format("{}{:02x}", b == 0 || b == 4 || b == 6 || b == 8 || b == 10 ? "-" : "",
                          static_cast<unsigned>(static_cast<unsigned char>(p.uuid.bytes[b])));
    gpus.push_back({uuid, fmt::format("{:04x}:{:02x}:{:02x}.0", p.pciDomainID, p.pciBusID, p.pciDeviceID)});
  }
  return gpus;
}

}  // namespace dapo
