// What a CUtensorMap says, for the copy engine.
#pragma once

#include <cstdint>

#include "cuda.h"

namespace sim {

/// A tensor of `rank` dimensions, innermost first, and a box of it. Kept in the map's 128 bytes.
struct TensorMap {
  std::uint32_t magic;
  std::uint8_t rank, bytes;  ///< dimensions; bytes of an element
  std::uint8_t swizzle;      ///< bytes of the pattern's lines: 0, 32, 64, 128
  std::uint8_t type;         ///< CUtensorMapDataType
  bool nan_fill;
  std::uint16_t box[3];  ///< elements; 1 beyond rank
  std::uint8_t step[3];  ///< element strides; that along x is ignored, as on a device
  std::uint32_t dims[3];
  char* base;
  std::uint64_t strides[2];  ///< bytes

  unsigned lines() const { return unsigned{box[1]} * box[2]; }
  unsigned line_bytes() const { return unsigned{box[0]} * bytes; }
  /// Distance between lines in shared memory: swizzled ones begin where the pattern's do.
  unsigned pitch() const { return swizzle ? swizzle : line_bytes(); }
  unsigned span() const { return (lines() - 1) * pitch() + line_bytes(); }
};
static_assert(sizeof(TensorMap) <= sizeof(CUtensorMap));
inline constexpr std::uint32_t kTensorMapMagic = 0x7e450a9d;

}  // namespace sim
