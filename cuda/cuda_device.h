// How the rest of the program gets a CUDA backend; needs no header of the toolkit.
#pragma once

#include <memory>

#include "core/backend.h"

namespace dapo {

/// GPUs that the driver shows; 0 where there is no driver.
int cuda_device_count();
/// dtype f32, or bf16. Error exit 2: no driver, driver too old, GPU below sm_80; exit 3: the GPU does not start, no memory.
std::unique_ptr<Backend> make_cuda_backend(DType dtype);

}  // namespace dapo
