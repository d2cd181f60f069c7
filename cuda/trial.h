// What the choice between two kernels at start needs: memory for a while, random numbers, a comparison of bits, times.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>

namespace dapo::cuda {

/// Temporary memory of a trial; null if there is not enough.
class Scratch {
 public:
  explicit Scratch(int64_t bytes) {
    if (cudaMalloc(&data_, static_cast<size_t>(bytes)) == cudaSuccess) return;
    cudaGetLastError();
    data_ = nullptr;
  }
  ~Scratch() { cudaFree(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  explicit operator bool() const { return data_ != nullptr; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
};

/// Normal numbers in bf16, one in 64 of them eight times as large, keyed by (seed, index).
void fill_normal(const Scratch& to, int64_t n, uint32_t seed, float scale, cudaStream_t stream);
/// Whether the first words (of 4 bytes) of both are equal; count: 4 bytes.
bool same_words(const Scratch& x, const Scratch& y, int64_t words, const Scratch& count, cudaStream_t stream);
/// The fastest of three runs. Before each, a memset fills the L2 cache with other data and keeps the device busy until
/// the run is issued.
double seconds_of(cudaStream_t stream, int64_t l2_bytes, const std::function<void()>& run);

}  // namespace dapo::cuda
