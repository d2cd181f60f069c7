// The GPUs of this machine, and which of them a thread uses.
#pragma once

#include <cuda_runtime.h>

namespace dapo::cuda {

/// That of the calling thread, after the checks at start; each failure is one line. Error as of make_cuda_backend().
cudaDeviceProp check_device();
/// Makes GPU `device` that of the calling thread.
void use_device(int device);
int used_device();

}  // namespace dapo::cuda
