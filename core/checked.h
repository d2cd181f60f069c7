// Arithmetic on sizes that come from files: every sum, product and narrowing goes through here, so that a hostile
// number gives one clear error (exit code 2) and never wraps.
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>

#include "core/check.h"

namespace dapo {

/// a + b; `what` names the quantity and its file.
inline uint64_t checked_add(uint64_t a, uint64_t b, std::string_view what) {
  uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) fail_input("{}: {} + {} does not fit 64 bits", what, a, b);
  return sum;
}

inline uint64_t checked_mul(uint64_t a, uint64_t b, std::string_view what) {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) fail_input("{}: {} x {} does not fit 64 bits", what, a, b);
  return product;
}

/// The same number as a To.
template <class To, class From>
To checked_cast(From v, std::string_view what) {
  static_assert(std::is_integral_v<To> && std::is_integral_v<From>);
  if (!std::in_range<To>(v)) fail_input("{}: {} is out of range", what, v);
  return static_cast<To>(v);
}

}  // namespace dapo
