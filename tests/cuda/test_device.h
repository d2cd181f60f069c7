// How tests of the CUDA backend change the device. Defined twice: sim/device.cpp for the simulator, gpu.cpp for a real
// device; tests in sim/ run only in the simulator.
#pragma once

namespace dapo {

/// Backends that are created from now on see two SMs, so that small products use large tiles too (choose_tile); false:
/// the real number. No effect on a real device, where the tests of products pass a number of SMs themselves.
void pretend_two_sms(bool on);

}  // namespace dapo
