#include "host/app/backends.h"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "core/check.h"
#include "core/choices.h"
#include "cpu/cpu_backend.h"
#ifdef DAPO_CUDA
#include "cuda/cuda_device.h"
#endif

namespace dapo {
namespace {

#ifdef DAPO_CUDA
std::string no_gpu() {
  return cuda_unsuitable();
}
std::unique_ptr<Backend> make_gpu(DType dtype) {
  return make_cuda_backend(dtype);
}
constexpr bool kBuilt = true;
#else
std::string no_gpu() {
  return "this program was built without CUDA";
}
std::unique_ptr<Backend> make_gpu(DType) {
  return nullptr;
}
constexpr bool kBuilt = false;
#endif

}  // namespace

ChosenBackend make_backend(std::string_view device, std::string_view dtype, int threads) {
  return make_backend(parse_choice<DeviceChoice>("--device", device), parse_choice<DTypeChoice>("--dtype", dtype),
                      threads);
}

ChosenBackend make_backend(DeviceChoice device, DTypeChoice dtype, int threads) {
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
  chosen.backend = gpu ? make_gpu(type) : make_cpu_backend(type);
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

std::unique_ptr<Comm> make_single_comm(Backend& backend) {
  return std::make_unique<SingleComm>(
      [](void* context, const Tensor& to, const Tensor& from) { static_cast<Backend*>(context)->copy(to, from); },
      &backend);
}

double measure_flops(Backend& backend) {
  constexpr int64_t kRows = 1024, kWidth = 1024;
  WorkspaceNeeds needs{};
  needs.attention = {8, 8, 128};
  needs.hidden = needs.ffn = needs.vocab = kWidth;
  needs.max_tokens = needs.max_rows = kRows;
  needs.max_segments = needs.max_head_rows = needs.max_batch = 1;
  needs.max_length = 1;
  const WeightShape weight{kWidth, kWidth, false, false};
  backend.prepare_products({&weight, 1}, kRows);
  const size_t scratch = backend.workspace_bytes(needs);
  const size_t matrix = kRows * kWidth * dtype_size(backend.dtype());
  const size_t bytes = scratch + 3 * (matrix + Arena::kAlign);
  void* memory = backend.allocate(bytes);
  Arena tensors("measure", memory, bytes - scratch);
  Arena workspace("measure", static_cast<char*>(memory) + (bytes - scratch), scratch);
  const Tensor y = tensors.take("y", backend.dtype(), {kRows, kWidth}), x = tensors.take("x", y.dtype, {kRows, kWidth}),
               w = tensors.take("w", y.dtype, {kWidth, kWidth});
  backend.set_workspace(&workspace);
  backend.zero(x);
  backend.zero(w);
  double best = 0;
  for (int i = 0; i < 6; ++i) {  // the first call warms up caches and threads
    backend.synchronize();
    const auto begin = std::chrono::steady_clock::now();
    backend.matmul(y, x, w, {});
    backend.synchronize();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    best = std::max(best, 2.0 * kRows * kWidth * kWidth / seconds);
  }
  backend.set_workspace(nullptr);
  backend.release(memory, bytes);
  return best;
}

void settle_threads(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("GOMP_SPINCOUNT", "1000", 0);
  execv("/proc/self/exe", argv);  // if that fails, threads spin
}

}  // namespace dapo
