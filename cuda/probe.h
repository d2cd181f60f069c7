// What benchmarks and tests ask of a CUDA backend beyond the contract. Needs no header of the toolkit.
#pragma once

#include <memory>

#include "core/backend.h"

namespace dapo {

/// Time as the GPU counts it: events in the backend's stream round whatever is issued between start() and stop().
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
/// Lets products run by the library (cuda/cublaslt.h) or by our own kernels. Error (exit 2): the library is not there.
void cuda_library_products(Backend& cuda, bool library);

}  // namespace dapo
