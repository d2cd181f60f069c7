// What benchmarks and tests need from a CUDA backend beyond the contract. Needs no header of the toolkit.
#pragma once

#include <memory>

#include "core/backend.h"

namespace dapo {

/// Time measured by the GPU: events in the backend's stream before and after all that is issued between start() and
/// stop().
class CudaClock {
 public:
  explicit CudaClock(Backend& cuda);
  ~CudaClock();
  CudaClock(const CudaClock&) = delete;
  CudaClock& operator=(const CudaClock&) = delete;
  void start();
  void stop();
  double seconds();  ///< between the two; waits for stop()

 private:
  struct Events;
  std::unique_ptr<Events> events_;
};

void* cuda_stream(Backend& cuda);     ///< its cudaStream_t
size_t cuda_l2_bytes(Backend& cuda);  ///< of the device
bool cuda_simulated();                ///< whether this build's CUDA is the simulator
bool cuda_has_wgmma_attention(Backend& cuda, int head_dim);
/// How products run (cuda/products.h).
enum class CudaProducts : uint8_t { own, cublaslt, automatic };
CudaProducts cuda_products(Backend& cuda);
/// Error (exit 2): cublaslt, and the library cannot be used.
void set_cuda_products(Backend& cuda, CudaProducts kind);
/// Which kernel runs attention's forward pass (cuda/attention_choice.h).
enum class CudaAttention : uint8_t { mma, wgmma, automatic };
CudaAttention cuda_attention(Backend& cuda);
/// Error (exit 2): wgmma, and the device does not have it.
void set_cuda_attention(Backend& cuda, CudaAttention kind);
/// Bytes/s of kernels with 16-byte accesses and four loads in flight per thread: of a copy (reads and writes counted),
/// and of a sum (reads). Each buffer has `bytes` bytes; as many runs as take about 20 ms.
struct CudaMemoryRates {
  double copy, read;
};
CudaMemoryRates cuda_memory_rates(Backend& cuda, void* to, const void* from, size_t bytes);

}  // namespace dapo
