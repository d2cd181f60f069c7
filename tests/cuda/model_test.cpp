// The golden models and the model's equalities (tests/model/golden_test.cpp, equality_test.cpp, linked here) on the
// CUDA backend.
#include "cuda/cuda_device.h"
#include "tests/model/rig.h"

namespace dapo {

std::unique_ptr<Backend> rig_backend(DType dtype) {
  return make_cuda_backend(dtype);
}
bool rig_has(DType) {
  return true;
}

}  // namespace dapo
