// KV pages with reference counts. Deterministic: the page freed last is allocated first.
#pragma once

#include <cstdint>
#include <vector>

#include "core/check.h"

namespace dapo {

class Pages {
 public:
  explicit Pages(int count);
  int total() const { return std::ssize(holders_); }
  int free() const { return std::ssize(free_); }
  int32_t allocate();  ///< a free page, with one holder; CHECKs that there is one
  void retain(int32_t page);
  void release(int32_t page);  ///< the last holder's release frees the page
  int holders(int32_t page) const { return holders_[page]; }

 private:
  std::vector<int> holders_;
  std::vector<int32_t> free_;
};

}  // namespace dapo
