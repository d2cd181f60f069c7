// What the launchers of attention share.
#pragma once

#include <algorithm>

#include "core/backend.h"

namespace dapo::cuda {

/// f.template operator()<D>() for head dimensions of the tensor-core kernels; false for others (plain kernels take
/// them).
template <class F>
bool with_head_dim(int d, F&& f) {
  switch (d) {
    case 32:
      f.template operator()<32>();
      return true;
    case 64:
      f.template operator()<64>();
      return true;
    case 128:
      f.template operator()<128>();
      return true;
    default:
      return false;
  }
}

inline int longest_segment(const Segments& segments) {
  int rows = 0;
  for (const Segment& s : segments.host) rows = std::max(rows, s.length);
  return rows;
}

}  // namespace dapo::cuda
