// Device memory with a copy on the host, for tests.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "cuda/launch.h"

namespace dapo {

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t n) : n_(n) { cuda_check(cudaMalloc(&p_, n * sizeof(T)), "test memory"); }
  DeviceArray(std::size_t n, T fill) : DeviceArray(std::vector<T>(n, fill)) {}
  explicit DeviceArray(const std::vector<T>& v) : DeviceArray(v.size()) {
    cuda_check(cudaMemcpy(p_, v.data(), n_ * sizeof(T), cudaMemcpyHostToDevice), "copy to device");
  }
  ~DeviceArray() { cudaFree(p_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* data() { return p_; }
  std::vector<T> host() const {
    std::vector<T> v(n_);
    cuda_check(cudaMemcpy(v.data(), p_, n_ * sizeof(T), cudaMemcpyDeviceToHost), "copy to host");
    return v;
  }

 private:
  T* p_ = nullptr;
  std::size_t n_;
};

}  // namespace dapo
