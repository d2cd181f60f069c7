#include "host/rollout/pages.h"

#include <algorithm>

namespace dapo {

Pages::Pages(int count) : holders_(static_cast<size_t>(count), 0), free_(static_cast<size_t>(count)) {
  for (int i = 0; i < count; ++i) free_[static_cast<size_t>(i)] = count - 1 - i;
}

int32_t Pages::take() {
  CHECK(!free_.empty(), "all {} pages are held", total());
  const int32_t page = free_.back();
  free_.pop_back();
  CHECK_EQ(holders(page), 0, "page {}", page);
  holders_[static_cast<size_t>(page)] = 1;
  return page;
}

void Pages::hold(int32_t page) {
  CHECK_GT(holders(page), 0, "page {} is free", page);
  ++holders_[static_cast<size_t>(page)];
}

void Pages::drop(int32_t page) {
  CHECK_GT(holders(page), 0, "page {} is free", page);
  if (--holders_[static_cast<size_t>(page)] == 0) free_.push_back(page);
}

}  // namespace dapo
