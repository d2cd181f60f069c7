#include "host/rollout/pages.h"

#include <algorithm>

namespace dapo {

Pages::Pages(int count) : holders_(count, 0), free_(count) {
  for (int i = 0; i < count; ++i) free_[i] = count - 1 - i;
}

int32_t Pages::allocate() {
  CHECK(!free_.empty(), "all {} pages are held", total());
  const int32_t page = free_.back();
  free_.pop_back();
  CHECK_EQ(holders(page), 0, "page {}", page);
  holders_[page] = 1;
  return page;
}

void Pages::retain(int32_t page) {
  CHECK_GT(holders(page), 0, "page {} is free", page);
  ++holders_[page];
}

void Pages::release(int32_t page) {
  CHECK_GT(holders(page), 0, "page {} is free", page);
  if (--holders_[page] == 0) free_.push_back(page);
}

}  // namespace dapo
