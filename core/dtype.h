// Element types, and bfloat16 as plain bits (the same on host and device).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define DAPO_HD __host__ __device__ __forceinline__
#else
#define DAPO_HD inline
#endif

namespace dapo {

enum class DType : uint8_t { f32, bf16, f64, i32, i16, u8, i64 };

constexpr size_t dtype_size(DType t) {
  switch (t) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::i16:
      return 2;
    case DType::u8:
      return 1;
  }
  return 0;
}

constexpr const char* dtype_name(DType t) {
  switch (t) {
    case DType::f64:
      return "f64";
    case DType::f32:
      return "f32";
    case DType::i32:
      return "i32";
    case DType::bf16:
      return "bf16";
    case DType::i16:
      return "i16";
    case DType::u8:
      return "u8";
    case DType::i64:
      return "i64";
  }
  return "?";
}

/// bfloat16: the upper half of an IEEE float.
struct bf16 {
  uint16_t bits;
};

DAPO_HD uint32_t float_bits(float x) {
  return __builtin_bit_cast(uint32_t, x);
}
DAPO_HD float bits_float(uint32_t u) {
  return __builtin_bit_cast(float, u);
}

DAPO_HD float to_float(bf16 x) {
  return bits_float(static_cast<uint32_t>(x.bits) << 16);
}
DAPO_HD float to_float(float x) {
  return x;
}

/// Round to nearest even; NaN stays NaN.
DAPO_HD bf16 to_bf16(float x) {
  const uint32_t u = float_bits(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

/// An fp32 master kept as its bf16 weight and a signed 16-bit remainder: bits = (weight << 16) + remainder, exactly.
/// The weight is the master rounded to nearest, halves up (so that the remainder always fits).
struct SplitMaster {
  bf16 weight;
  int16_t remainder;
};
DAPO_HD SplitMaster split_master(float master) {
  const uint32_t u = float_bits(master);
  const uint16_t high = (u + 0x8000u) >> 16;
  return {{high}, static_cast<int16_t>(static_cast<uint16_t>(u - (static_cast<uint32_t>(high) << 16)))};
}
DAPO_HD float join_master(bf16 weight, int16_t remainder) {
  return bits_float((static_cast<uint32_t>(weight.bits) << 16) +
                    static_cast<uint32_t>(static_cast<int32_t>(remainder)));
}

template <class T>
struct dtype_of;
template <>
struct dtype_of<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct dtype_of<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct dtype_of<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct dtype_of<int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct dtype_of<int16_t> {
  static constexpr DType value = DType::i16;
};
template <>
struct dtype_of<uint8_t> {
  static constexpr DType value = DType::u8;
};
template <>
struct dtype_of<int64_t> {
  static constexpr DType value = DType::i64;
};

}  // namespace dapo
