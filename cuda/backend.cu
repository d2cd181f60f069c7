// The CUDA backend's memory, order and graphs. An error of the driver names the call and the reason.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <thread>
#include <vector>

#include "cuda/attention_choice.h"
#include "cuda/cuda_backend.h"
#include "cuda/device.h"
#include "cuda/products.h"
#include "cuda/shape.h"
#include "cuda/side_stream.h"
#include "cuda/workspace.h"

namespace dapo {
namespace cuda {

template <class T>
struct CudaBackend<T>::State {
  static constexpr int kMarks = 64;  // events in flight; record() uses them in turn
  std::vector<cudaEvent_t> events;
  uint64_t next = 1;
  /// A decode's graph holds about 300 launches, a megabyte of the driver's memory. Keys change as sequences end and
  /// grow; a key that was not used while 64 others were is unlikely to come back.
  static constexpr size_t kGraphs = 64;
  struct Recorded {
    cudaGraphExec_t graph;
    uint64_t used;
  };
  std::unordered_map<uint64_t, Recorded> graphs;
  uint64_t replays = 0;
  /// Of zeroed_counters(), the largest last: recorded graphs may hold the smaller ones.
  std::vector<unsigned*> counters;
  int64_t counted = 0;
  std::map<const char*, size_t> pinned;  ///< blocks of allocate_host()

  bool is_pinned(const void* p) const {
    const auto after = pinned.upper_bound(static_cast<const char*>(p));
    if (after == pinned.begin()) return false;
    const auto& [begin, bytes] = *std::prev(after);
    return static_cast<const char*>(p) < begin + bytes;
  }

  void keep(uint64_t key, cudaGraphExec_t graph) {
    if (graphs.size() >= kGraphs) {
      const auto oldest = std::min_element(graphs.begin(), graphs.end(),
                                           [](auto& a, auto& b) { return a.second.used < b.second.used; });
      cudaGraphExecDestroy(oldest->second.graph);  // one that is running is freed when it ends
      graphs.erase(oldest);
    }
    graphs.emplace(key, Recorded{graph, ++replays});
  }
  void drop_graphs() {
    for (auto& [key, recorded] : graphs) cudaGraphExecDestroy(recorded.graph);
    graphs.clear();
  }
};

/// The heartbeat of this rank says that it waits, while this lives.
template <class T>
class CudaBackend<T>::Waiting {
 public:
  explicit Waiting(const CudaBackend& backend) : watch_(backend.watches_.empty() ? nullptr : backend.watches_.back()) {
    if (watch_ != nullptr) watch_->begin_wait();
  }
  ~Waiting() {
    if (watch_ != nullptr) watch_->end_wait();
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  DeviceWatch* watch_;
};

template <class T>
CudaBackend<T>::CudaBackend(const cudaDeviceProp& properties, int ranks)
    : properties_(properties), device_(used_device()), ranks_(ranks), state_(std::make_unique<State>()) {}

template <class T>
CudaBackend<T>::CudaBackend(int ranks) : CudaBackend(check_device(), ranks) {
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  state_->events.resize(State::kMarks);
  for (cudaEvent_t& e : state_->events) CUDA_CHECK(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
  products_ = std::make_unique<Products>(stream_, properties_);
  attention_choice_ = std::make_unique<AttentionChoice>(properties_);
}

template <class T>
CudaBackend<T>::~CudaBackend() {
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  side_.reset();
  products_.reset();
  state_->drop_graphs();
  for (unsigned* c : state_->counters) cudaFree(c);
  for (cudaEvent_t e : state_->events)
    if (e != nullptr) cudaEventDestroy(e);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

template <class T>
std::string CudaBackend<T>::describe() const {
  return fmt::format("cuda: {} (sm_{}{}, {} SMs, {:.1f} GB), {}", properties_.name, properties_.major,
                     properties_.minor, properties_.multiProcessorCount, gb(properties_.totalGlobalMem),
                     dtype_name(dtype()));
}

template <class T>
size_t CudaBackend<T>::memory_total() const {
  return properties_.totalGlobalMem / static_cast<size_t>(ranks_);
}
template <class T>
size_t CudaBackend<T>::memory_available() const {
  use_device();
  size_t available = 0, total = 0;
  CUDA_CHECK(cudaMemGetInfo(&available, &total));
  if (ranks_ == 1) return available;
  // What is free now, the others are about to take. A sixteenth is for the processes' contexts.
  const size_t part = memory_total() / 16 * 15;
  return std::min(available, part - std::min(part, allocated_));
}

template <class T>
void* CudaBackend<T>::allocate(size_t bytes, bool) {
  void* p = nullptr;
  if (bytes == 0) return p;
  use_device();
  const cudaError_t e = cudaMalloc(&p, bytes);
  if (e == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail(kExitResources,
         "device cuda: cannot allocate {:.2f} GB ({:.2f} of {:.2f} GB free; nvidia-smi shows other processes)",
         gb(bytes), gb(memory_available()), gb(memory_total()));
  }
  cuda_check(e, "cudaMalloc");
  const cudaError_t zeroed = cudaMemsetAsync(p, 0, bytes, stream_);
  if (zeroed != cudaSuccess) cudaFree(p);
  cuda_check(zeroed, "cudaMemsetAsync of new memory");
  allocated_ += bytes;
  return p;
}
template <class T>
void CudaBackend<T>::release(void* p, size_t bytes) {
  if (p == nullptr) return;
  cudaFree(p);
  allocated_ -= bytes;
}
template <class T>
void* CudaBackend<T>::allocate_host(size_t bytes) {
  void* p = nullptr;
  if (bytes == 0) return p;
  use_device();
  const cudaError_t e = cudaMallocHost(&p, bytes);
  if (e == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail(kExitResources, "device cuda: cudaMallocHost: {:.2f} GB of the host's memory cannot be pinned", gb(bytes));
  }
  cuda_check(e, "cudaMallocHost");
  state_->pinned[static_cast<const char*>(p)] = bytes;
  return p;
}
template <class T>
void CudaBackend<T>::release_host(void* p, size_t) {
  if (p == nullptr) return;
  state_->pinned.erase(static_cast<const char*>(p));
  cudaFreeHost(p);
}

/// Tensors may lie in pinned memory, which kernels read and write over the bus.
template <class T>
void CudaBackend<T>::copy_on_host(void* to, const void* from, size_t bytes) {
  synchronize();
  std::memcpy(to, from, bytes);
}

template <class T>
void CudaBackend<T>::copy_in(const Tensor& to, const void* from) {
  if (to.bytes() == 0) return;
  if (state_->is_pinned(to.data)) return copy_on_host(to.data, from, to.bytes());
  use_device();
  const Waiting waiting(*this);  // for memory that is not pinned
  CUDA_CHECK(cudaMemcpyAsync(to.data, from, to.bytes(), cudaMemcpyHostToDevice, stream_));
}
template <class T>
void CudaBackend<T>::copy_out(void* to, const Tensor& from) {
  if (from.bytes() == 0) return;
  if (state_->is_pinned(from.data)) return copy_on_host(to, from.data, from.bytes());
  use_device();
  const Waiting waiting(*this);
  CUDA_CHECK(cudaMemcpyAsync(to, from.data, from.bytes(), cudaMemcpyDeviceToHost, stream_));
}
template <class T>
void CudaBackend<T>::copy(const Tensor& to, const Tensor& from) {
  CHECK_EQ(to.bytes(), from.bytes(), "copy {} to {}", from.describe(), to.describe());
  if (to.bytes() > 0) CUDA_CHECK(cudaMemcpyAsync(to.data, from.data, to.bytes(), cudaMemcpyDeviceToDevice, stream_));
}
template <class T>
void CudaBackend<T>::zero(const Tensor& t) {
  if (t.bytes() > 0) CUDA_CHECK(cudaMemsetAsync(t.data, 0, t.bytes(), stream_));
}

template <class T>
uint64_t CudaBackend<T>::record() {
  use_device();
  const uint64_t mark = state_->next++;
  CUDA_CHECK(cudaEventRecord(state_->events[mark % State::kMarks], stream_));
  return mark;
}
template <class T>
bool CudaBackend<T>::done(uint64_t mark) {
  CHECK(mark < state_->next, "mark {} was never recorded", mark);
  // An event that was reused marks a later point: waiting for it is late, never early.
  const cudaError_t e = cudaEventQuery(state_->events[mark % State::kMarks]);
  if (e == cudaErrorNotReady) return false;
  cuda_check(e, "cudaEventQuery");
  return true;
}
template <class T>
void CudaBackend<T>::wait(uint64_t mark) {
  CHECK(mark < state_->next, "mark {} was never recorded", mark);
  wait_for(state_->events[mark % State::kMarks]);
}
template <class T>
void CudaBackend<T>::wait_for(cudaEvent_t event) {
  if (watches_.empty())
    CUDA_CHECK(cudaEventSynchronize(event));
  else
    wait_until("cudaEventQuery", [&] { return cudaEventQuery(event); });
}
template <class T>
void CudaBackend<T>::synchronize() {
  if (watches_.empty())
    CUDA_CHECK(cudaStreamSynchronize(stream_));
  else
    wait_until("cudaStreamQuery", [&] { return cudaStreamQuery(stream_); });
}

template <class T>
template <class Done>
void CudaBackend<T>::wait_until(const char* call, Done&& done) {
  const Waiting waiting(*this);
  auto asked = std::chrono::steady_clock::now();
  for (cudaError_t e; (e = done()) != cudaSuccess;) {
    if (e != cudaErrorNotReady) cuda_check(e, call);
    std::this_thread::yield();
    const auto now = std::chrono::steady_clock::now();
    if (now - asked < std::chrono::milliseconds(1)) continue;
    asked = now;
    for (DeviceWatch* w : watches_) w->check();
  }
}

template <class T>
void CudaBackend<T>::use_device() const {
  cuda::use_device(device_);
}

template <class T>
void CudaBackend<T>::unwatch(DeviceWatch* w) {
  std::erase(watches_, w);
  state_->drop_graphs();
}

template <class T>
void CudaBackend<T>::replayable(uint64_t key, const std::function<void()>& body) {
  auto found = state_->graphs.find(key);
  if (found == state_->graphs.end()) {
    // The first run goes straight to the stream, since cuBLASLt picks its plans then; the same is then recorded without
    // running, for the next time.
    body();
    cudaGraph_t graph = nullptr;
    CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    try {
      body();
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      throw;
    }
    CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
    cudaGraphExec_t ready = nullptr;
    const cudaError_t e = cudaGraphInstantiate(&ready, graph, 0);
    cudaGraphDestroy(graph);
    cuda_check(e, "cudaGraphInstantiate");
    state_->keep(key, ready);
    return;
  }
  found->second.used = ++state_->replays;
  const Waiting waiting(*this);  // where the stream's queue is full
  CUDA_CHECK(cudaGraphLaunch(found->second.graph, stream_));
}

template <class T>
unsigned* CudaBackend<T>::zeroed_counters(int64_t n) {
  if (n > state_->counted) {
    const int64_t count = std::max<int64_t>(2 * n, 1024);
    auto* p = static_cast<unsigned*>(allocate(static_cast<size_t>(count) * sizeof(unsigned), true));
    state_->counters.push_back(p);
    state_->counted = count;
  }
  return state_->counters.back();
}

template <class T>
size_t CudaBackend<T>::workspace_bytes(const WorkspaceNeeds& needs) const {
  // Only one op holds scratch at a time.
  size_t most = std::max({rmsnorm_workspace(needs), squares_workspace(), matmul_workspace(needs)});
  most = std::max(most, attention_workspace(needs, dtype()));
  return std::max(most, head_workspace(needs, dtype()));
}

template class CudaBackend<float>;
template class CudaBackend<bf16>;

}  // namespace cuda

std::unique_ptr<Backend> make_cuda_backend(DType dtype, int index, int ranks) {
  CHECK(dtype == DType::f32 || dtype == DType::bf16);
  cuda::use_device(index);
  if (dtype == DType::bf16) return std::make_unique<cuda::CudaBackend<bf16>>(ranks);
  return std::make_unique<cuda::CudaBackend<float>>(ranks);
}

}  // namespace dapo
