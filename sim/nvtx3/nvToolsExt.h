// Stands in for NVTX: ranges that nobody looks at.
#pragma once

inline int nvtxRangePushA(const char*) {
  return 0;
}
inline int nvtxRangePop() {
  return 0;
}
inline void nvtxMarkA(const char*) {}
