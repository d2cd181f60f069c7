// KV pages with holder counts. Deterministic: the page given back last is taken first.
#pragma once

#include <cstdint>
#include <vector>

#include "core/check.h"

namespace dapo {

class Pages {
 public:
  explicit Pages(int count);
  int total() const { return static_cast<int>(holders_.size()); }
  int free() const { return static_cast<int>(free_.size()); }
  int32_t take();  ///< a free page with one holder; there must be one
  void hold(int32_t page);
  void drop(int32_t page);  ///< free again with its last holder
  int holders(int32_t page) const { return holders_[static_cast<size_t>(page)]; }

 private:
  std::vector<int> holders_;
  std::vector<int32_t> free_;
};

}  // namespace dapo
