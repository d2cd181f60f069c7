#include <algorithm>

#include "cuda/attention_choice.h"
#include "cuda/cuda_backend.h"
#include "cuda/probe.h"
#include "cuda/products.h"
#include "cuda/shape.h"
#include "cuda/vec.cuh"

namespace dapo {
namespace {

template <class F>
auto visit(Backend& b, F f) {
  if (auto* half = dynamic_cast<cuda::CudaBackend<bf16>*>(&b)) return f(*half);
  auto* full = dynamic_cast<cuda::CudaBackend<float>*>(&b);
  CHECK(full != nullptr, "not a CUDA backend: {}", b.describe());
  return f(*full);
}
cudaStream_t stream_of(Backend& b) {
  return visit(b, [](auto& c) { return c.stream(); });
}

constexpr int kThreads = 512, kLoads = 4;
using Chunk = cuda::Vec<uint32_t>;

/// Each block visits pieces of kThreads * kLoads chunks of 16 bytes, gridDim pieces apart; n is a multiple of a piece.
template <bool kWrite>
__global__ void __launch_bounds__(kThreads) memory_kernel(Chunk* to, const Chunk* from, int64_t n) {
  uint32_t sum = 0;
  for (int64_t at = int64_t{blockIdx.x} * kThreads * kLoads + threadIdx.x; at < n;
       at += int64_t{gridDim.x} * kThreads * kLoads) {
    Chunk v[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) v[i] = from[at + i * kThreads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      if constexpr (kWrite)
        to[at + i * kThreads] = v[i];
      else
        sum += v[i].v[0] ^ v[i].v[1] ^ v[i].v[2] ^ v[i].v[3];
    }
  }
  if constexpr (!kWrite)
    to->v[threadIdx.x % 4] = sum;  // a race without effect: the sum only must not be optimised away
}

}  // namespace

struct CudaClock::Events {
  cudaStream_t stream;
  cudaEvent_t start = nullptr, stop = nullptr;
  explicit Events(cudaStream_t s) : stream(s) {}
  ~Events() {
    if (start != nullptr) cudaEventDestroy(start);
    if (stop != nullptr) cudaEventDestroy(stop);
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;
};

CudaClock::CudaClock(Backend& cuda) : events_(std::make_unique<Events>(stream_of(cuda))) {
  CUDA_CHECK(cudaEventCreate(&events_->start));
  CUDA_CHECK(cudaEventCreate(&events_->stop));
}
CudaClock::~CudaClock() = default;
void CudaClock::start() {
  CUDA_CHECK(cudaEventRecord(events_->start, events_->stream));
}
void CudaClock::stop() {
  CUDA_CHECK(cudaEventRecord(events_->stop, events_->stream));
}
double CudaClock::seconds() {
  float ms = 0;
  CUDA_CHECK(cudaEventSynchronize(events_->stop));
  CUDA_CHECK(cudaEventElapsedTime(&ms, events_->start, events_->stop));
  return 1e-3 * ms;
}

void* cuda_stream(Backend& cuda) {
  return stream_of(cuda);
}
size_t cuda_l2_bytes(Backend& cuda) {
  return visit(cuda, [](auto& c) { return static_cast<size_t>(c.properties().l2CacheSize); });
}
bool cuda_has_wgmma_attention(Backend& cuda, int head_dim) {
  return cuda::has_wgmma_attention(head_dim) && visit(cuda, [](auto& c) { return c.attention_choice().on_hopper(); });
}
bool cuda_simulated() {
#ifdef __CUDACC__
  return false;
#else
  return true;
#endif
}
CudaProducts cuda_products(Backend& cuda) {
  return static_cast<CudaProducts>(visit(cuda, [](auto& c) { return c.products().kind(); }));
}
void set_cuda_products(Backend& cuda, CudaProducts kind) {
  using Kind = cuda::Products::Kind;
  static_assert(static_cast<int>(CudaProducts::own) == static_cast<int>(Kind::own) &&
                static_cast<int>(CudaProducts::cublaslt) == static_cast<int>(Kind::cublaslt) &&
                static_cast<int>(CudaProducts::automatic) == static_cast<int>(Kind::automatic));
  visit(cuda, [kind](auto& c) { c.products().use(static_cast<Kind>(kind)); });
}

CudaAttention cuda_attention(Backend& cuda) {
  return static_cast<CudaAttention>(visit(cuda, [](auto& c) { return c.attention_choice().kind(); }));
}
void set_cuda_attention(Backend& cuda, CudaAttention kind) {
  using Kind = cuda::AttentionKernel;
  static_assert(static_cast<int>(CudaAttention::mma) == static_cast<int>(Kind::mma) &&
                static_cast<int>(CudaAttention::wgmma) == static_cast<int>(Kind::wgmma) &&
                static_cast<int>(CudaAttention::automatic) == static_cast<int>(Kind::automatic));
  visit(cuda, [kind](auto& c) { c.attention_choice().use(static_cast<Kind>(kind)); });
}

CudaMemoryRates cuda_memory_rates(Backend& cuda, void* to, const void* from, size_t bytes) {
  constexpr int64_t kPiece = kThreads * kLoads;
  const int64_t n = static_cast<int64_t>(bytes / sizeof(Chunk)) / kPiece * kPiece;
  CHECK(n > 0, "{} bytes", bytes);
  const int sms = visit(cuda, [](auto& c) { return c.properties().multiProcessorCount; });
  const dim3 grid = cuda::grid_of(std::min<int64_t>(n / kPiece, int64_t{sms} * 4));
  const auto rate = [&](auto kernel, double moved) {
    CudaClock clock(cuda);
    const auto issue = [&](int runs) {
      for (int i = 0; i < runs; ++i)
        launch(kernel, {grid, dim3(kThreads), 0, stream_of(cuda)}, static_cast<Chunk*>(to),
               static_cast<const Chunk*>(from), n);
    };
    const auto seconds = [&](int runs) {
      clock.start();
      issue(runs);
      clock.stop();
      return clock.seconds();
    };
    issue(1);
    double best = 0;
    const int runs = cuda_simulated() ? 1 : std::clamp(static_cast<int>(0.02 / std::max(seconds(1), 1e-6)), 1, 1000);
    for (int i = 0; i < (cuda_simulated() ? 1 : 3); ++i) best = std::max(best, moved * runs / seconds(runs));
    return best;
  };
  const double read = static_cast<double>(n) * sizeof(Chunk);
  return {rate(memory_kernel<true>, 2 * read), rate(memory_kernel<false>, read)};
}

}  // namespace dapo
