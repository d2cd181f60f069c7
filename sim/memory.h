// The simulator's view of who owns an address.
#pragma once

#include <cstddef>

#include "sim.h"

namespace sim {

bool is_pinned(const void* p, std::size_t bytes);
void count_memory(Live& live);

/// While one lives, device memory can be accessed: under DAPO_SIM_PROTECT it is out of bounds (SIGSEGV) at other times,
/// as it is for the host of a real device.
struct DeviceOpen {
  DeviceOpen();
  ~DeviceOpen();
  DeviceOpen(const DeviceOpen&) = delete;
  DeviceOpen& operator=(const DeviceOpen&) = delete;
};

}  // namespace sim
