// How the rest of the program gets a CUDA backend; needs no header of the toolkit.
#pragma once

#include <memory>
#include <string>

#include "core/backend.h"

namespace dapo {

/// What stands against training on a GPU here: no driver, one that is too old, no GPU, none of sm_80; "" where nothing
/// does. Error exit 3: the driver knows of GPUs and cannot use them.
std::string cuda_unsuitable();
/// dtype f32, or bf16. Error exit 2: no driver, driver too old, GPU below sm_80; exit 3: the GPU does not start, no
/// memory.
std::unique_ptr<Backend> make_cuda_backend(DType dtype);

}  // namespace dapo
