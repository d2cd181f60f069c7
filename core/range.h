// Ranges of elements, and how they are dealt to ranks.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/sizes.h"

namespace dapo {

/// Elements [begin, end).
struct Range {
  int64_t begin, end;
  int64_t count() const { return end - begin; }
};

/// Rank `rank`'s part of `total` elements, in whole units but for the last one; empty where there are too few units.
inline Range share_of(int64_t total, int64_t unit, int ranks, int rank) {
  const int64_t units = ceil_div(total, unit);
  const auto cut = [&](int64_t r) { return std::min(total, units * r / ranks * unit); };
  return {cut(rank), cut(rank + 1)};
}

}  // namespace dapo
