// Elements of every type, as doubles.
#pragma once

#include <cstring>
#include <type_traits>

#include "core/check.h"
#include "core/dtype.h"

namespace dapo::ops {

/// Calls f(T{}) with the type T that t stands for.
template <class F>
auto typed(DType t, F f) {
  switch (t) {
    case DType::f32:
      return f(float{});
    case DType::bf16:
      return f(bf16{});
    case DType::f64:
      return f(double{});
    case DType::i32:
      return f(int32_t{});
    case DType::i16:
      return f(int16_t{});
    case DType::u8:
      return f(uint8_t{});
    case DType::i64:
      return f(int64_t{});
  }
  fail(kExitInternal, "dtype {}", static_cast<int>(t));
}

template <class T>
void put(void* memory, size_t i, double value) {
  T x;
  if constexpr (std::is_same_v<T, bf16>)
    x = to_bf16(static_cast<float>(value));
  else
    x = static_cast<T>(value);
  std::memcpy(static_cast<char*>(memory) + i * sizeof x, &x, sizeof x);
}
template <class T>
double get(const void* memory, size_t i) {
  T x;
  std::memcpy(&x, static_cast<const char*>(memory) + i * sizeof x, sizeof x);
  if constexpr (std::is_same_v<T, bf16>)
    return to_float(x);
  else
    return static_cast<double>(x);
}

}  // namespace dapo::ops
