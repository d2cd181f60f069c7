#include "tests/model/rig.h"

#include "cpu/cpu_backend.h"

namespace dapo {

std::unique_ptr<Backend> rig_backend(DType dtype) {
  return make_cpu_backend(dtype);
}
bool rig_has(DType dtype) {
  return dtype == DType::f32 || cpu_has_bf16();
}

}  // namespace dapo
