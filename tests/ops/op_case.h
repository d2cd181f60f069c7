// A case of an op: its operands, its call, its result in fp64, its bytes and FLOPs. One table of cases (cases.h) drives
// the value test, the gradient check and the benchmark of every backend.
#pragma once

#include <cmath>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "core/backend.h"

namespace dapo::ops {

using Values = std::vector<double>;

enum class Role : uint8_t { in, out, inout };

struct Operand {
  const char* name;
  DType dtype;
  std::vector<int64_t> shape;
  Role role;
  Values preset{};   ///< contents; empty: random
  double scale = 1;  ///< random: normal numbers times scale, plus offset, rounded to dtype
  double offset = 0;
  bool integers = false;  ///< random: -1, 0 or 1, so that sums are exact and compared by equality
  /// Tolerance of an output, relative to |expected| + rms(expected): roundings to T times T's unit roundoff, plus
  /// `depth` times f32's (about twice the square root of the number of terms summed, more for functions in between).
  double roundings = 0;
  double depth = 0;

  double tolerance(DType T) const { return roundings * (T == DType::bf16 ? 0x1p-8 : 0x1p-24) * 1.01 + depth * 0x1p-24; }
  int64_t numel() const {
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;
    return n;
  }
};

/// A model with one of everything: each case enlarges what it uses.
inline WorkspaceNeeds least_needs() {
  return {.attention = {1, 1, 16},
          .hidden = 1,
          .ffn = 1,
          .vocab = 1,
          .max_tokens = 1,
          .max_segments = 1,
          .max_head_rows = 1,
          .max_batch = 1,
          .max_rows = 1,
          .max_length = 1};
}

struct OpCase {
  std::string op, shape;
  DType type;  ///< T
  WorkspaceNeeds needs = least_needs();
  std::vector<Operand> operands{};
  std::function<void(Backend&, const std::vector<Tensor>&)> run{};
  /// Replaces the outputs among the values by the expected ones.
  std::function<void(std::vector<Values>&)> reference{};
  /// If factors are rounded to T inside a sum: the sum of |terms| of each element of the first operand, which is added
  /// to |expected| in its tolerance (a row of few terms has large ones). Optional.
  std::function<Values(const std::vector<Values>&)> terms{};
  /// Turns the op's values into those that are compared. Optional.
  std::function<void(std::vector<Values>&)> decode{};
  /// Fills inputs that depend on others (outputs of a forward that its backward needs). Optional.
  std::function<void(std::vector<Values>&)> derive{};
  /// For a backward: the scalar whose gradients the outputs are, as a function of all values (fp64).
  std::function<double(const std::vector<Values>&)> loss{};
  std::vector<std::pair<int, int>> gradients{};  ///< an operand, and the operand that is its gradient
  double bytes = 0, flops = 0;                   ///< of the algorithm: every operand once, every product once

  std::string name() const { return op + "/" + shape + "/" + dtype_name(type); }

  int in(const char* what, DType t, std::vector<int64_t> s, double scale = 1, double offset = 0) {
    operands.push_back({what, t, std::move(s), Role::in, {}, scale, offset});
    return static_cast<int>(operands.size()) - 1;
  }
  int index(const char* what, const std::vector<int32_t>& v, std::vector<int64_t> s = {}) {
    if (s.empty()) s = {std::ssize(v)};
    operands.push_back({what, DType::i32, std::move(s), Role::in, Values(v.begin(), v.end())});
    return static_cast<int>(operands.size()) - 1;
  }
  int out(const char* what, DType t, std::vector<int64_t> s, double roundings, double depth, Role role = Role::out) {
    operands.push_back({what, t, std::move(s), role, {}, 1, 0, false, roundings, depth});
    return static_cast<int>(operands.size()) - 1;
  }
  int adds(const char* what, DType t, std::vector<int64_t> s, double roundings, double depth) {
    return out(what, t, std::move(s), roundings, depth, Role::inout);
  }
  /// Every random operand becomes small integers, every tolerance 0.
  OpCase with_integers() && {
    for (Operand& o : operands) o.integers = o.dtype == DType::f32 || o.dtype == DType::bf16, o.roundings = o.depth = 0;
    shape += "/integers";
    return std::move(*this);
  }
  /// bytes = every operand once, in-out ones twice.
  OpCase counted(double flops_) && {
    for (const Operand& o : operands)
      bytes +=
          static_cast<double>(o.numel()) * static_cast<double>(dtype_size(o.dtype)) * (o.role == Role::inout ? 2 : 1);
    flops = flops_;
    return std::move(*this);
  }
};

/// Rounding depth of a sum of n terms of random sign.
inline double sum_depth(int64_t n) {
  return 8 + 2 * std::sqrt(static_cast<double>(n));
}

template <class... A>
std::string dims(A... d) {
  std::string s;
  ((s += (s.empty() ? "" : "x") + std::to_string(d)), ...);
  return s;
}

}  // namespace dapo::ops
