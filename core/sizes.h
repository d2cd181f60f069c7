// Arithmetic of sizes: whole tiles, and bytes for people.
#pragma once

#include "core/dtype.h"

namespace dapo {

/// a / b rounded up; a >= 0, b > 0.
template <class A, class B>
DAPO_HD constexpr auto ceil_div(A a, B b) {
  return (a + b - 1) / b;
}
/// The smallest multiple of `unit` that is >= n.
template <class A, class B>
DAPO_HD constexpr auto round_up(A n, B unit) {
  return ceil_div(n, unit) * unit;
}

/// Bytes in GiB (2^30), as the operating system counts memory.
template <class N>
constexpr double gib(N bytes) {
  return bytes / 0x1p30;
}
/// Bytes in GB (10^9), as disks and GPUs are labelled.
template <class N>
constexpr double gb(N bytes) {
  return bytes / 1e9;
}

}  // namespace dapo
