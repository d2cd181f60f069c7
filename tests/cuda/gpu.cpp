// A real device.
#include "tests/cuda/device.h"

namespace dapo {

bool simulated() {
  return false;
}
void pretend_two_sms(bool) {}

}  // namespace dapo
