#include "tests/model/rig.h"

#include "cpu/cpu_backend.h"

namespace dapo {

std::unique_ptr<Backend> rig_backend(DType dtype) {
  return make_cpu_backend(dtype);
}

}  // namespace dapo
