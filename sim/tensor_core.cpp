#include "tensor_core.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "sim.h"

// Most of the simulator's time goes here; make/sim.mk compiles it without sanitizers.
namespace sim {
namespace {

bool& exact() {
  static bool on = [] {
    const char* v = std::getenv("DAPO_SIM_EXACT");
    return v && *v && *v != '0';
  }();
  return on;
}

constexpr int kMaxColumns = 256, kMaxDepth = 16;
constexpr int kFraction = 25;  ///< bits below the largest exponent that the sum keeps
constexpr int kNone = -20000;  ///< exponent of a zero: never the largest

/// +-mantissa 2^(exponent - bits), with `bits` fraction bits of the format; infinities and NaNs count as zero.
struct Split {
  int exponent, mantissa;
};
Split split(float x, int fraction) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const int exponent = static_cast<int>(bits >> 23 & 255);
  const int low = static_cast<int>((bits & 0x7fffff) >> (23 - fraction));
  if (exponent == 255 || (exponent == 0 && low == 0)) return {kNone, 0};
  const int mantissa = exponent ? low | 1 << fraction : low;
  return {std::max(exponent, 1) - 127, bits >> 31 ? -mantissa : mantissa};
}

bool finite(float x) {
  return (std::bit_cast<std::uint32_t>(x) >> 23 & 255) != 255;
}
bool nan(float x) {
  return (std::bit_cast<std::uint32_t>(x) & 0x7fffffff) > 0x7f800000;
}

/// The sum where a, b or d has an infinity or a NaN; else d.
float special(const float* a, const float* b, int stride, float before, float otherwise, int depth) {
  bool up = false, down = false, bad = nan(before);
  if (!finite(before) && !bad) (std::signbit(before) ? down : up) = true;
  for (int k = 0; k < depth; ++k) {
    const float x = a[k], y = b[k * stride];
    if (finite(x) && finite(y)) continue;
    const bool zero = std::bit_cast<std::uint32_t>(x) << 1 == 0 || std::bit_cast<std::uint32_t>(y) << 1 == 0;
    if (nan(x) || nan(y) || zero)
      bad = true;
    else
      (std::signbit(x) != std::signbit(y) ? down : up) = true;
  }
  if (bad || (up && down)) return std::bit_cast<float>(0x7fffffffu);
  return up ? INFINITY : down ? -INFINITY : otherwise;
}

/// total 2^(largest - kFraction), truncated, where it may be subnormal.
float truncated(std::int64_t total, int largest) {
  const auto size = static_cast<std::uint64_t>(total < 0 ? -total : total);
  const int left = largest - kFraction + 149;  // to units of the smallest subnormal
  const std::uint64_t units = left <= -64 ? 0 : left < 0 ? size >> -left : size << std::min(left, 30);
  // Below 2^24 units the bits of the number are the units.
  return units == 0 ? 0.0f : std::bit_cast<float>(static_cast<std::uint32_t>(units) | (total < 0 ? 0x80000000u : 0));
}

struct Columns {
  alignas(64) int exponent[kMaxDepth][kMaxColumns], mantissa[kMaxDepth][kMaxColumns];
};

/// One row of the result.
void exact_row(const float* a, const Columns& b, float* d, int columns, int depth) {
  alignas(64) int largest[kMaxColumns], exponent[kMaxColumns], mantissa[kMaxColumns];
  alignas(64) std::uint32_t above[kMaxColumns], below[kMaxColumns];  // sums of either sign: up to 2^32 - 1
  for (int j = 0; j < columns; ++j) {
    const Split c = split(d[j], 23);
    largest[j] = exponent[j] = c.exponent;
    mantissa[j] = c.mantissa;
  }
  Split x[kMaxDepth];
  for (int k = 0; k < depth; ++k) x[k] = split(a[k], 7);
  for (int k = 0; k < depth; ++k)
    for (int j = 0; j < columns; ++j) largest[j] = std::max(largest[j], x[k].exponent + b.exponent[k][j]);
  const auto add = [&](int j, int value, int down) __attribute__((always_inline)) {
    const auto part = static_cast<std::uint32_t>(value < 0 ? -value : value) >> std::min(down, 31);
    above[j] += value < 0 ? 0 : part;
    below[j] += value < 0 ? part : 0;
  };
  for (int j = 0; j < columns; ++j) {
    above[j] = below[j] = 0;
    add(j, mantissa[j] * (1 << (kFraction - 23)), largest[j] - exponent[j]);
  }
  for (int k = 0; k < depth; ++k)
    for (int j = 0; j < columns; ++j)
      add(j, x[k].mantissa * b.mantissa[k][j] * (1 << (kFraction - 14)), largest[j] - x[k].exponent - b.exponent[k][j]);
  bool small = false;
  for (int j = 0; j < columns; ++j) {
    // Exact in double; its 24 leading bits stay, which fp32 holds unless the number is subnormal.
    const auto total = static_cast<std::int64_t>(above[j]) - static_cast<std::int64_t>(below[j]);
    const auto head = std::bit_cast<std::uint64_t>(static_cast<double>(total)) & ~((std::uint64_t{1} << 29) - 1);
    const int scale = std::max(largest[j], -600) - kFraction + 1023;
    const double value = std::bit_cast<double>(head) * std::bit_cast<double>(static_cast<std::uint64_t>(scale) << 52);
    small |= total != 0 && std::fabs(value) < 0x1p-126;
    d[j] = static_cast<float>(value);
  }
  if (!small) return;
  for (int j = 0; j < columns; ++j) {
    const auto total = static_cast<std::int64_t>(above[j]) - static_cast<std::int64_t>(below[j]);
    if (total != 0 && std::fabs(std::ldexp(static_cast<double>(total), largest[j] - kFraction)) < 0x1p-126)
      d[j] = truncated(total, largest[j]);
  }
}

void multiply_exact(const float* a, const float* b, float* d, int rows, int columns, int depth) {
  Columns split_b;
  bool all_finite = true;
  for (int k = 0; k < depth; ++k)
    for (int j = 0; j < columns; ++j) {
      const Split y = split(b[k * columns + j], 7);
      split_b.exponent[k][j] = y.exponent;
      split_b.mantissa[k][j] = y.mantissa;
      all_finite &= finite(b[k * columns + j]);
    }
  for (int i = 0; i < rows; ++i) {
    float* row = d + i * columns;
    bool row_finite = all_finite;
    for (int k = 0; k < depth; ++k) row_finite &= finite(a[i * depth + k]);
    for (int j = 0; j < columns; ++j) row_finite &= finite(row[j]);
    float before[kMaxColumns];
    if (!row_finite) std::copy_n(row, columns, before);
    exact_row(a + i * depth, split_b, row, columns, depth);
    if (!row_finite)
      for (int j = 0; j < columns; ++j) row[j] = special(a + i * depth, b + j, columns, before[j], row[j], depth);
  }
}

}  // namespace

void multiply_fma(const float* a, const float* b, float* d, int rows, int columns, int depth) {
  if (rows == 16 && columns == 8) {  // mma.sync: with known sizes twice as fast
    for (int i = 0; i < 16; ++i)
      for (int k = 0; k < depth; ++k)
        for (int j = 0; j < 8; ++j) d[i * 8 + j] = std::fma(a[i * depth + k], b[k * 8 + j], d[i * 8 + j]);
    return;
  }
  for (int i = 0; i < rows; ++i)
    for (int k = 0; k < depth; ++k)
      for (int j = 0; j < columns; ++j)
        d[i * columns + j] = std::fma(a[i * depth + k], b[k * columns + j], d[i * columns + j]);
}

void multiply_bf16(const float* a, const float* b, float* d, int rows, int columns, int depth) {
  (exact() ? multiply_exact : multiply_fma)(a, b, d, rows, columns, depth);
}

void set_exact_sums(bool on) {
  exact() = on;
}
bool exact_sums() {
  return exact();
}

}  // namespace sim
