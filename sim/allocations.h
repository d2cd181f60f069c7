// Who owns an address: the ledger of device and pinned memory.
#pragma once

#include <cstddef>

#include "calls.h"

namespace sim {

/// `on_device`: device memory, else pinned. What is allocated is filled with 0xFF: NaN in fp32 and bf16.
cudaError_t allocate(void** p, std::size_t bytes, bool on_device);
cudaError_t release(void* p, bool on_device);
/// Pins the program's own memory, or unpins it (false: it was not pinned).
void pin(void* p, std::size_t bytes);
bool unpin(void* p);

bool is_pinned(const void* p, std::size_t bytes);
void count_memory(Live& live);
void limit_memory(std::size_t total);
struct MemoryUse {
  std::size_t free, total;
};
MemoryUse memory_use();

/// Device memory can be accessed while one of these exists. Under DAPO_SIM_PROTECT it is inaccessible (SIGSEGV) at
/// other times, as it is for the host of a real device.
struct DeviceOpen {
  DeviceOpen();
  ~DeviceOpen();
  DeviceOpen(const DeviceOpen&) = delete;
  DeviceOpen& operator=(const DeviceOpen&) = delete;
};

}  // namespace sim
