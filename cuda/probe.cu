#include "cuda/cuda_backend.h"
#include "cuda/probe.h"
#include "cuda/products.h"

namespace dapo {
namespace {

template <class F>
auto visit(Backend& b, F f) {
  if (auto* half = dynamic_cast<cuda::CudaBackend<bf16>*>(&b)) return f(*half);
  auto* full = dynamic_cast<cuda::CudaBackend<float>*>(&b);
  CHECK(full != nullptr, "{} is no CUDA backend", b.describe());
  return f(*full);
}
cudaStream_t stream_of(Backend& b) {
  return visit(b, [](auto& c) { return c.stream(); });
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
  return 1e-3 * static_cast<double>(ms);
}

void* cuda_stream(Backend& cuda) {
  return stream_of(cuda);
}
size_t cuda_l2_bytes(Backend& cuda) {
  return visit(cuda, [](auto& c) { return static_cast<size_t>(c.properties().l2CacheSize); });
}
bool cuda_simulated() {
#ifdef __CUDACC__
  return false;
#else
  return true;
#endif
}
void cuda_library_products(Backend& cuda, bool library) {
  using cuda::Products;
  visit(cuda, [library](auto& c) { c.products().use(library ? Products::Kind::cublaslt : Products::Kind::own); });
}

}  // namespace dapo
