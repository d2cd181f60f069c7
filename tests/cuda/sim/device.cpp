// The simulator as the device under test.
#include "sim/cuda_runtime.h"
#include "sim/sim.h"
#include "tests/cuda/test_device.h"

namespace dapo {

void pretend_two_sms(bool on) {
  sim::reset_device();
  if (!on) return;
  cudaDeviceProp p = sim::device_properties();
  p.multiProcessorCount = 2;
  sim::set_device_properties(p);
}

}  // namespace dapo
