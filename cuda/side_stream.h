// A stream beside that of the ops, for Backend::beside().
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstdint>

#include "core/backend.h"

namespace dapo::cuda {

/// Works take slots in turn.
struct SideStream {
  static constexpr int kSlots = 128;
  struct Slot {
    cudaEvent_t before = nullptr;                ///< in the ops' stream: what comes before the work
    cudaEvent_t begin = nullptr, end = nullptr;  ///< of the work
    cudaEvent_t joined = nullptr;                ///< in the ops' stream: they go on after `end`
    bool used = false, waits = false;            ///< waits: join() has been called
  };
  cudaStream_t stream = nullptr;
  std::array<Slot, kSlots> slots;
  uint64_t last = 0;  ///< mark
  Backend::BesideSeconds seconds;

  SideStream();
  ~SideStream();
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;
  Slot& slot(uint64_t mark) { return slots[mark % kSlots]; }
};

}  // namespace dapo::cuda
