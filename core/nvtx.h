// NVTX ranges round phases; nothing unless DAPO_NVTX is defined (the Makefile does with CUDA=nvcc).
#pragma once

#ifdef DAPO_NVTX
#include <nvtx3/nvToolsExt.h>
#endif

namespace dapo {

class NvtxRange {
 public:
#ifdef DAPO_NVTX
  explicit NvtxRange(const char* name) {
    nvtxRangePushA(name);
  }
  ~NvtxRange() {
    nvtxRangePop();
  }
#else
  explicit NvtxRange(const char*) {}
  ~NvtxRange() {}
#endif
  NvtxRange(const NvtxRange&) = delete;
  NvtxRange& operator=(const NvtxRange&) = delete;
};

}  // namespace dapo
