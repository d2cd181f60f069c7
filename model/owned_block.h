// A block of a backend's memory, released together with its owner.
#pragma once

#include "core/backend.h"

namespace dapo {

class OwnedBlock {
 public:
  /// dense: device memory that will be used whole (Backend::allocate); pinned: host memory for asynchronous copies.
  enum Kind : uint8_t { device, dense, pinned };

  OwnedBlock() = default;
  /// data() is null if `bytes` is 0. Error (exit 3) if the memory cannot be allocated.
  OwnedBlock(Backend& backend, size_t bytes, Kind kind = device) : backend_(&backend), bytes_(bytes), kind_(kind) {
    if (bytes > 0) data_ = kind == pinned ? backend.allocate_host(bytes) : backend.allocate(bytes, kind == dense);
  }
  ~OwnedBlock() {
    if (data_ == nullptr) return;
    if (kind_ == pinned)
      backend_->release_host(data_, bytes_);
    else
      backend_->release(data_, bytes_);
  }
  OwnedBlock(const OwnedBlock&) = delete;
  OwnedBlock& operator=(const OwnedBlock&) = delete;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  Backend* backend_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
  Kind kind_ = device;
};

}  // namespace dapo
