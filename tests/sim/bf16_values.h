// Inputs of products, as bits of bf16.
#pragma once

#include <cstdint>
#include <vector>

namespace dapo {

/// Values of a few exponents, so that truncation shows.
inline std::vector<std::uint16_t> bf16_values(std::size_t n, std::uint32_t seed) {
  std::vector<std::uint16_t> v(n);
  for (auto& x : v) {
    seed = seed * 1664525 + 1013904223;
    x = static_cast<std::uint16_t>((seed >> 31) << 15 | (122 + (seed >> 20) % 8) << 7 | (seed >> 8 & 127));
  }
  return v;
}

}  // namespace dapo
