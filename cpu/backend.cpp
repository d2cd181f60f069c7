// Memory, order of execution, and the description of the machine.
#include <dnnl.h>
#include <omp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "cpu/cpu_backend.h"
#include "cpu/workspace.h"

namespace dapo {
namespace {

/// Bytes of a line "key: N kB" of /proc/meminfo.
size_t meminfo(const std::string& key) {
  std::ifstream in("/proc/meminfo");
  std::string name;
  size_t kb;
  for (std::string line; std::getline(in, line);)
    if (std::istringstream fields(line); fields >> name >> kb && name == key + ":") return kb * 1024;
  return SIZE_MAX;
}

/// The number in a control group's file; SIZE_MAX if it says "max" or does not exist.
size_t read_number(const std::string& path) {
  std::ifstream in(path);
  size_t n;
  return in >> n ? n : SIZE_MAX;
}

/// Bytes of file cache that the kernel reclaims for programs: a line of the control group's memory.stat.
size_t reclaimable(const std::string& folder, const char* key) {
  std::ifstream in(folder + "/memory.stat");
  std::string name;
  for (size_t n; in >> name >> n;)
    if (name == key) return n;
  return 0;
}

struct Limit {
  size_t total, available;
};

/// The tightest of the machine and the control groups (v2, or v1's memory controller) that this process is in.
Limit memory_limit() {
  Limit limit{meminfo("MemTotal"), meminfo("MemAvailable")};
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && controllers != "memory") continue;
    const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    for (std::string path = line.substr(second + 1);; path.erase(path.rfind('/'))) {
      const std::string folder = root + (path == "/" ? "" : path);
      const size_t most = read_number(folder + (v2 ? "/memory.max" : "/memory.limit_in_bytes"));
      size_t used = read_number(folder + (v2 ? "/memory.current" : "/memory.usage_in_bytes"));
      if (used != SIZE_MAX) used -= std::min(used, reclaimable(folder, v2 ? "inactive_file" : "total_inactive_file"));
      if (most < limit.total) limit.total = most;
      if (most != SIZE_MAX && used != SIZE_MAX)
        limit.available = std::min(limit.available, most - std::min(most, used));
      if (path.empty() || path == "/") break;
    }
  }
  limit.available = std::min(limit.available, limit.total);
  return limit;
}

void* map_pages(size_t bytes, const char* what) {
  if (bytes == 0) return nullptr;
  const size_t total = memory_limit().total;
  void* p = bytes > total
                ? MAP_FAILED
                : mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    fail(kExitResources, "{}: cannot allocate {:.2f} GiB: this machine (or its control group) has {:.2f} GiB", what,
         gib(bytes), gib(total));
  return p;
}

/// Calls part(begin, bytes) for the pieces of a range, on all threads if it is large.
template <class Part>
void in_pieces(size_t bytes, Part part) {
  constexpr size_t kPiece = size_t{1} << 20;
  const int64_t pieces = ceil_div(bytes, kPiece);
#pragma omp parallel for schedule(static) if (pieces > 1)
  for (int64_t i = 0; i < pieces; ++i) {
    const size_t begin = i * kPiece;
    part(begin, std::min(kPiece, bytes - begin));
  }
}

void copy_bytes(void* to, const void* from, size_t bytes) {
  in_pieces(bytes, [=](size_t begin, size_t n) {
    std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin, n);
  });
}

const char* instruction_set() {
#ifdef __AVX512F__
  return cpu_has_bf16() ? "AVX-512 with BF16" : "AVX-512";
#else
  return "AVX2";
#endif
}

std::string cpu_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "CPU";
}

}  // namespace

namespace {

/// oneDNN's AMX kernels are not batch-invariant (2.6, measured on a Xeon with amx_bf16: rollout and training differed
/// by .02 nats), so its products stay within AVX-512 unless the user sets another limit in the environment. This must
/// run before oneDNN's first use. Products are kept by us (matmul.cpp): one of a single row that oneDNN's own cache gave,
/// after a product of other strides, rounded otherwise than a new one (2.6).
void limit_instruction_set() {
  static const bool once = [] {
    dnnl_set_primitive_cache_capacity(0);
    if (std::getenv("ONEDNN_MAX_CPU_ISA") == nullptr && std::getenv("DNNL_MAX_CPU_ISA") == nullptr)
      dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_bf16);
    return true;
  }();
  (void)once;
}

}  // namespace

size_t host_memory_available() {
  return memory_limit().available;
}

bool cpu_has_bf16() {
  limit_instruction_set();
  constexpr unsigned want = dnnl_cpu_isa_avx512_core_bf16;
  return (static_cast<unsigned>(dnnl_get_effective_cpu_isa()) & want) == want;
}

std::vector<CpuFeature> needed_cpu_features() {
  __builtin_cpu_init();
  return {
      {"avx2", __builtin_cpu_supports("avx2") != 0},
      {"fma", __builtin_cpu_supports("fma") != 0},
#ifdef __BMI2__
      {"bmi2", __builtin_cpu_supports("bmi2") != 0},
#endif
#ifdef __AVX512F__
      {"avx512f", __builtin_cpu_supports("avx512f") != 0},
#endif
#ifdef __AVX512BW__
      {"avx512bw", __builtin_cpu_supports("avx512bw") != 0},
#endif
#ifdef __AVX512DQ__
      {"avx512dq", __builtin_cpu_supports("avx512dq") != 0},
#endif
#ifdef __AVX512VL__
      {"avx512vl", __builtin_cpu_supports("avx512vl") != 0},
#endif
#ifdef __AVX512VBMI__
      {"avx512vbmi", __builtin_cpu_supports("avx512vbmi") != 0},
#endif
#ifdef __AVX512VNNI__
      {"avx512vnni", __builtin_cpu_supports("avx512vnni") != 0},
#endif
#ifdef __AVX512BF16__
      {"avx512bf16", __builtin_cpu_supports("avx512bf16") != 0},
#endif
  };
}

void check_cpu(const std::vector<CpuFeature>& needed) {
  std::string missing;
  for (const CpuFeature& f : needed)
    if (!f.have) missing += (missing.empty() ? "" : ", ") + std::string(f.name);
  if (!missing.empty())
    fail_input(
        "this CPU ({}) lacks {}, which this program was compiled for: build it here (make), or with `make "
        "ARCH=x86-64-v3` for any CPU with AVX2 and FMA",
        cpu_name(), missing);
}

std::unique_ptr<Backend> make_cpu_backend(DType dtype) {
  limit_instruction_set();
  check_cpu();
  if (dtype == DType::f32) return std::make_unique<cpu::CpuBackend<float>>();
  if (dtype == DType::bf16) {
    if (!cpu_has_bf16())
      fail_input("--dtype bf16: this CPU ({}) does not multiply bf16 (AVX512-BF16 or AMX): use --dtype f32",
                 cpu_name());
    return std::make_unique<cpu::CpuBackend<bf16>>();
  }
  fail_input("--dtype {}: expected f32 or bf16", dtype_name(dtype));
}

namespace cpu {

template <class T>
CpuBackend<T>::CpuBackend() = default;
template <class T>
CpuBackend<T>::~CpuBackend() = default;

template <class T>
std::string CpuBackend<T>::describe() const {
  const int threads = omp_get_max_threads();
  return fmt::format("cpu: {}, {} thread{}, {}, {:.1f} GiB, {}", cpu_name(), threads, threads == 1 ? "" : "s",
                     instruction_set(), gib(memory_total()), dtype_name(dtype()));
}
template <class T>
size_t CpuBackend<T>::memory_total() const {
  return memory_limit().total;
}
template <class T>
size_t CpuBackend<T>::memory_available() const {
  return host_memory_available();
}

template <class T>
void* CpuBackend<T>::allocate(size_t bytes, bool dense) {
  void* p = map_pages(bytes, "memory");
  if (dense && bytes >= size_t{32} << 20) madvise(p, bytes, MADV_HUGEPAGE);  // a refusal does no harm
  return p;
}
template <class T>
void CpuBackend<T>::release(void* p, size_t bytes) {
  if (p != nullptr) munmap(p, bytes);
}
template <class T>
void* CpuBackend<T>::allocate_host(size_t bytes) {
  return map_pages(bytes, "host memory");
}
template <class T>
void CpuBackend<T>::release_host(void* p, size_t bytes) {
  if (p != nullptr) munmap(p, bytes);
}

template <class T>
void CpuBackend<T>::copy_in(const Tensor& to, const void* from) {
  copy_bytes(to.data, from, to.bytes());
}
template <class T>
void CpuBackend<T>::copy_out(void* to, const Tensor& from) {
  copy_bytes(to, from.data, from.bytes());
}
template <class T>
void CpuBackend<T>::copy(const Tensor& to, const Tensor& from) {
  CHECK_EQ(to.bytes(), from.bytes(), "copy of {} to {}", from.describe(), to.describe());
  copy_bytes(to.data, from.data, to.bytes());
}
template <class T>
void CpuBackend<T>::zero(const Tensor& t) {
  in_pieces(t.bytes(), [&](size_t begin, size_t n) { std::memset(static_cast<char*>(t.data) + begin, 0, n); });
}

template <class T>
uint64_t CpuBackend<T>::beside(std::function<void()> work) {
  return side_.give([work = std::move(work)] {
    omp_set_num_threads(1);  // the others compute
    work();
  });
}
template <class T>
void CpuBackend<T>::join(uint64_t mark) {
  const auto begin = std::chrono::steady_clock::now();
  side_.wait(mark);
  waited_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

template <class T>
void CpuBackend<T>::replayable(uint64_t, const std::function<void()>& body) {
  body();
}

template <class T>
size_t CpuBackend<T>::workspace_bytes(const WorkspaceNeeds& needs) const {
  return std::max({attention_workspace_bytes(needs, dtype()), head_workspace_bytes(needs, dtype()),
                   rmsnorm_workspace_bytes(needs)});
}

template class CpuBackend<float>;
template class CpuBackend<bf16>;

}  // namespace cpu
}  // namespace dapo
