// What the tests of the CUDA backend may say to the device. Two definitions: sim/device.cpp for the simulator, gpu.cpp
// for a real device; tests in sim/ run in the simulator alone.
#pragma once

namespace dapo {

/// Lets backends made from now on see two SMs, so that small products are cut into large tiles too (choose_tile);
/// false: as it is. A real device has what it has: nothing happens, the products' tests name SMs themselves.
void pretend_two_sms(bool on);

}  // namespace dapo
