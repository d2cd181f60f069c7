// The CUDA thread that runs now.
#pragma once

#include "vector_types.h"

namespace sim {

struct Lane;
struct Running {
  Lane* lane = nullptr;
  char* dynamic_smem = nullptr;
};
extern thread_local constinit Running running;

}  // namespace sim

extern thread_local constinit uint3 threadIdx;
extern thread_local constinit uint3 blockIdx;
extern thread_local constinit dim3 blockDim;
extern thread_local constinit dim3 gridDim;
