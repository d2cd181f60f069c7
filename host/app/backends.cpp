#include "host/app/backends.h"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "core/check.h"
#include "core/choices.h"
#include "core/host_comm.h"
#include "core/staged_comm.h"
#include "cpu/cpu_backend.h"
#ifdef DAPO_CUDA
#include "cuda/cuda_device.h"
#include "cuda/nccl_comm.h"
#endif

namespace dapo {
namespace {

#ifdef DAPO_CUDA
std::string no_gpu() {
  return cuda_unsuitable();
}
std::unique_ptr<Backend> make_gpu(DType dtype, const GpuShare& share) {
  return make_cuda_backend(dtype, std::max(share.gpu, 0), share.ranks);
}
std::vector<VisibleGpu> list_gpus() {
  std::vector<VisibleGpu> gpus;
  for (CudaGpu& gpu : cuda_gpus()) gpus.push_back({std::move(gpu.uuid), std::move(gpu.pci)});
  return gpus;
}
std::unique_ptr<Comm> make_gpu_comm(Backend& backend, HostComm& hosts) {
  return make_nccl_comm(backend, hosts);
}
constexpr bool kBuilt = true;
#else
std::string no_gpu() {
  return "this program was built without CUDA";
}
std::unique_ptr<Backend> make_gpu(DType, const GpuShare&) {
  return nullptr;
}
std::vector<VisibleGpu> list_gpus() {
  return {};
}
std::unique_ptr<Comm> make_gpu_comm(Backend&, HostComm&) {
  return nullptr;
}
constexpr bool kBuilt = false;
#endif

}  // namespace

ChosenBackend make_backend(std::string_view device, std::string_view dtype, int threads) {
  return make_backend(parse_choice<DeviceChoice>("--device", device), parse_choice<DTypeChoice>("--dtype", dtype),
                      threads);
}

ChosenBackend make_backend(DeviceChoice device, DTypeChoice dtype, int threads, const GpuShare& share) {
  const int most = std::max(256, 4 * omp_get_num_procs());
  if (threads < 0 || threads > most)
    fail_input("model.threads (--threads) = {}: must be 0 (all cores) to {} on this machine with {} cores", threads,
               most, omp_get_num_procs());
  const std::string why_not = device == DeviceChoice::automatic ? no_gpu() : "";
  const bool gpu = device == DeviceChoice::cuda || (device == DeviceChoice::automatic && why_not.empty());
  if (gpu && !kBuilt)
    fail_input(
        "--device cuda: this program was built without CUDA; use --device cpu, or install the CUDA toolkit and run "
        "make again");
  check_cpu();
  if (threads > 0) omp_set_num_threads(threads);

  const bool native = gpu || cpu_has_bf16();
  const DType type =
      dtype == DTypeChoice::bf16 || (dtype == DTypeChoice::automatic && native) ? DType::bf16 : DType::f32;
  ChosenBackend chosen;
  chosen.backend = gpu ? make_gpu(type, share) : make_cpu_backend(type);
  chosen.why = chosen.backend->describe();
  if (device == DeviceChoice::automatic && !gpu) chosen.why += "; no GPU in use: " + why_not;
  if (dtype == DTypeChoice::automatic)
    chosen.why += native ? "" : "; f32, because this CPU has no native bf16 multiplication";
  if (dtype == DTypeChoice::bf16 && !native) chosen.why += "; bf16 is emulated here and slow, --dtype f32 is faster";
  return chosen;
}

bool built_with_cuda() {
  return kBuilt;
}

std::vector<VisibleGpu> visible_gpus(DeviceChoice device) {
  return device == DeviceChoice::cpu ? std::vector<VisibleGpu>() : list_gpus();
}

std::shared_ptr<Comm> make_device_comm(Backend& backend, Comm& hosts, Transport transport) {
  if (hosts.size() == 1) return make_single_comm(backend);
  if (backend.device() == Device::cpu) return {std::shared_ptr<Comm>(), &hosts};
  auto* const host_memory = dynamic_cast<HostComm*>(&hosts);
  CHECK(host_memory != nullptr, "the ranks' communicator is not one of host memory");
  if (transport == Transport::host) return std::make_shared<StagedComm>(backend, *host_memory);
  return make_gpu_comm(backend, *host_memory);
}

std::unique_ptr<Comm> make_single_comm(Backend& backend) {
  return std::make_unique<SingleComm>(
      [](void* context, const Tensor& to, const Tensor& from) { static_cast<Backend*>(context)->copy(to, from); },
      &backend);
}

namespace {

/// The best of several products of width x width matrices, FLOP/s; `seconds`: how long that one took.
double measure_product(Backend& backend, int64_t width, double& seconds) {
  WorkspaceNeeds needs{};
  needs.attention = {8, 8, 128};
  needs.hidden = needs.ffn = needs.vocab = width;
  needs.max_tokens = needs.max_rows = width;
  needs.max_segments = needs.max_head_rows = needs.max_batch = 1;
  needs.max_length = 1;
  const WeightShape weight{width, width, false, false};
  backend.prepare_products({&weight, 1}, width);
  const size_t scratch = backend.workspace_bytes(needs);
  const size_t matrix = static_cast<size_t>(width * width) * dtype_size(backend.dtype());
  const size_t bytes = scratch + 3 * (matrix + Arena::kAlign);
  void* memory = backend.allocate(bytes);
  Arena tensors("measure", memory, bytes - scratch);
  Arena workspace("measure", static_cast<char*>(memory) + (bytes - scratch), scratch);
  const Tensor y = tensors.take("y", backend.dtype(), {width, width}), x = tensors.take("x", y.dtype, {width, width}),
               w = tensors.take("w", y.dtype, {width, width});
  backend.set_workspace(&workspace);
  backend.zero(x);
  backend.zero(w);
  seconds = 1e9;
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::steady_clock::now() - start; };
  // The first call warms up caches and threads; the others go on for a while, since another program may hold a core.
  for (int i = 0; i < 6 || (i < 100 && elapsed() < std::chrono::milliseconds(200)); ++i) {
    backend.synchronize();
    const auto begin = std::chrono::steady_clock::now();
    backend.matmul(y, x, w, {});
    backend.synchronize();
    seconds = std::min(seconds, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  backend.set_workspace(nullptr);
  backend.release(memory, bytes);
  return 2.0 * static_cast<double>(width) * static_cast<double>(width) * static_cast<double>(width) / seconds;
}

}  // namespace

double measure_flops(Backend& backend) {
  double best = 0, seconds = 0;
  for (int64_t width = 1024; width <= 8192; width *= 2) {  // what takes a millisecond is bound by the product itself
    best = std::max(best, measure_product(backend, width, seconds));
    if (seconds > 1e-3) break;
  }
  return best;
}

void settle_threads(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("GOMP_SPINCOUNT", "1000", 0);
  execv("/proc/self/exe", argv);  // if that fails, threads spin
}

}  // namespace dapo
