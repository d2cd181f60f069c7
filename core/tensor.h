// Tensor: a non-owning, contiguous, row-major view of memory that an arena owns.
#pragma once

#include <array>
#include <initializer_list>
#include <span>
#include <string>
#include <type_traits>

#include "core/check.h"
#include "core/dtype.h"

namespace dapo {

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  int rank = 0;
  std::array<int64_t, 5> shape{};

  Tensor() = default;
  Tensor(void* p, DType t, std::initializer_list<int64_t> s) : data(p), dtype(t), rank(static_cast<int>(s.size())) {
    CHECK_LE(s.size(), shape.size());
    int i = 0;
    for (int64_t d : s) shape[i++] = d;
  }
  template <class T>
  static Tensor of(std::span<T> s) {
    return Tensor(const_cast<std::remove_const_t<T>*>(s.data()), dtype_of<std::remove_const_t<T>>::value,
                  {std::ssize(s)});
  }

  /// An empty tensor stands for "none" where an op takes an optional one.
  bool empty() const { return data == nullptr; }
  explicit operator bool() const { return data != nullptr; }
  int64_t dim(int i) const { return shape[i]; }
  int64_t numel() const {
    int64_t n = rank > 0 ? 1 : 0;
    for (int i = 0; i < rank; ++i) n *= dim(i);
    return n;
  }
  size_t bytes() const { return numel() * dtype_size(dtype); }
  /// Elements of one row (all dimensions but the first).
  int64_t row_size() const { return dim(0) == 0 ? 0 : numel() / dim(0); }

  /// Typed pointer (T may be const); the dtype must be T's.
  template <class T>
  T* as() const {
    constexpr DType want = dtype_of<std::remove_const_t<T>>::value;
    CHECK(dtype == want, "expected {}, got {}", dtype_name(want), describe());
    return static_cast<T*>(data);
  }
  /// Rows [begin, begin + count) of the first dimension.
  Tensor rows(int64_t begin, int64_t count) const {
    CHECK(begin >= 0 && count >= 0 && begin + count <= dim(0), "rows [{}, {}) of {}", begin, begin + count, describe());
    Tensor t = *this;
    t.data = static_cast<char*>(data) + begin * row_size() * dtype_size(dtype);
    t.shape[0] = count;
    return t;
  }
  /// The same elements in another shape.
  Tensor view(std::initializer_list<int64_t> s) const {
    Tensor t(data, dtype, s);
    CHECK_EQ(t.numel(), numel(), "view of {}", describe());
    return t;
  }
  std::string describe() const {
    std::string s = dtype_name(dtype);
    s += '[';
    for (int i = 0; i < rank; ++i) s += (i ? ", " : "") + std::to_string(dim(i));
    return s + ']';
  }
};

/// Error unless the argument of the op is a tensor of this type and shape; the message shows both.
inline void expect(const char* op, const char* argument, const Tensor& t, DType dtype,
                   std::initializer_list<int64_t> shape) {
  const Tensor want(nullptr, dtype, shape);
  if (t.dtype != dtype || t.rank != want.rank || t.shape != want.shape || (t.empty() && want.numel() > 0)) [[unlikely]]
    fail(kExitInternal, "{}: {}: expected {}, got {}{}", op, argument, want.describe(), t.describe(),
         t.empty() ? " (empty)" : "");
}

}  // namespace dapo
