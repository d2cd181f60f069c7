// How the rest of the program creates a CUDA backend; needs no header of the toolkit.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"

namespace dapo {

/// Reason why no GPU can be used here, as a clause for an error message (no driver, one that is too old, no GPU, none
/// of sm_80 or later); empty if one can. Error exit 3: the driver has GPUs but cannot use them.
std::string cuda_unsuitable();
struct CudaGpu {
  std::string uuid;  ///< "GPU-...", as nvidia-smi prints it
  std::string pci;   ///< address on the bus, "0000:1b:00.0"
};
/// The GPUs that this process sees (CUDA_VISIBLE_DEVICES), in its order; none where cuda_unsuitable().
std::vector<CudaGpu> cuda_gpus();
/// dtype f32, or bf16; on GPU `index` of cuda_gpus(), of whose memory it takes its part if several `ranks` share it. Error
/// exit 2: no driver, driver too old, GPU below sm_80; exit 3: the GPU does not start, no memory.
std::unique_ptr<Backend> make_cuda_backend(DType dtype, int index = 0, int ranks = 1);

}  // namespace dapo
