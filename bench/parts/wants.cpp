#include "bench/parts/wants.h"

#include <cmath>

namespace dapo::bench {
namespace {

/// sum over l < n of a[a0 + l as] b[b0 + l bs].
double dot(Sampled& s, int a, int64_t a0, int64_t as, int b, int64_t b0, int64_t bs, int64_t n) {
  double sum = 0;
  for (int64_t l = 0; l < n; ++l) sum += s.at(a, a0 + l * as) * s.at(b, b0 + l * bs);
  return sum;
}
int64_t whole(double x) {
  return static_cast<int64_t>(x);
}
double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

}  // namespace

WantFn embedding_backward_want(int64_t width) {
  return [=](Sampled& s, int operand, int64_t e) {
    Want w{s.before(operand, e), 0};
    int64_t low = 0, high = s.numel(2);  // unique ids are sorted
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (whole(s.at(2, middle)) < e / width)
        low = middle + 1;
      else
        high = middle;
    }
    if (low < s.numel(2) && whole(s.at(2, low)) == e / width)
      for (int64_t j = whole(s.at(3, low)); j < whole(s.at(3, low + 1)); ++j)
        w.value += s.at(1, whole(s.at(4, j)) * width + e % width);
    return w;
  };
}

WantFn gather_rows_want(int64_t width) {
  return [=](Sampled& s, int, int64_t e) { return Want{s.at(1, whole(s.at(2, e / width)) * width + e % width), 0}; };
}

WantFn sum_rows_want(int64_t width) {
  return [=](Sampled& s, int, int64_t e) {
    Want w;
    for (int64_t j = whole(s.at(2, e / width)); j < whole(s.at(2, e / width + 1)); ++j)
      w.value += s.at(1, whole(s.at(3, j)) * width + e % width);
    return w;
  };
}

WantFn rmsnorm_want(int64_t width) {
  return [=](Sampled& s, int operand, int64_t e) {
    const int64_t row = operand == 1 ? e : e / width;
    const auto sum = [&](int64_t c) { return s.at(2, row * width + c) + s.at(4, row * width + c); };
    if (operand == 5) return Want{sum(e % width), 0};
    double squares = 0;
    for (int64_t c = 0; c < width; ++c) squares += sum(c) * sum(c);
    const double rstd = 1 / std::sqrt(squares / static_cast<double>(width) + 1e-6);
    return Want{operand == 1 ? rstd : sum(e % width) * rstd * s.at(3, e % width), 0};
  };
}

WantFn rmsnorm_backward_want(int64_t width) {
  return [=](Sampled& s, int operand, int64_t e) {
    Want w{s.before(operand, e), 0};
    if (operand == 1) {
      const int64_t rows = s.numel(5);
      for (int64_t n = 0; n < rows; ++n) w.value += s.at(2, n * width + e) * s.at(3, n * width + e) * s.at(5, n);
      return w;
    }
    const int64_t row = e / width, begin = row * width;
    const double rstd = s.at(5, row);
    double mean = 0;
    for (int64_t c = 0; c < width; ++c) mean += s.at(2, begin + c) * s.at(4, c) * s.at(3, begin + c) * rstd;
    mean /= static_cast<double>(width);
    w.value += rstd * (s.at(2, e) * s.at(4, e % width) - s.at(3, e) * rstd * mean);
    return w;
  };
}

WantFn swiglu_want(int64_t ffn) {
  return [=](Sampled& s, int, int64_t e) {
    const int64_t gate = e / ffn * 2 * ffn + e % ffn;
    const double g = s.at(1, gate);
    return Want{g * sigmoid(g) * s.at(1, gate + ffn), 0};
  };
}

WantFn swiglu_backward_want(int64_t ffn) {
  return [=](Sampled& s, int operand, int64_t e) {
    const int64_t row = operand == 3 ? e / ffn : e / (2 * ffn);
    const int64_t c = e % ffn, gate = row * 2 * ffn + c;
    const bool of_gate = operand == 0 && e % (2 * ffn) < ffn;
    const double g = s.at(2, gate), u = s.at(2, gate + ffn), x = sigmoid(g), da = s.at(1, row * ffn + c);
    if (operand == 3) return Want{g * x * u, 0};
    return Want{of_gate ? da * u * x * (1 + g * (1 - x)) : da * g * x, 0};
  };
}

WantFn rope_want(AttentionDims d) {
  return [=](Sampled& s, int operand, int64_t e) {
    const int64_t width = d.qkv_width(), D = d.head_dim, half = D / 2, row = e / width, i = e % width % D;
    if (e % width >= d.q_width() + d.kv_width()) return Want{s.before(operand, e), 0};
    const int64_t table = whole(s.at(2, row)) * D;
    const double c = s.at(1, table + i % half), sine = s.at(1, table + half + i % half);
    if (i < half) return Want{s.before(operand, e) * c - s.before(operand, e + half) * sine, 0};
    return Want{s.before(operand, e) * c + s.before(operand, e - half) * sine, 0};
  };
}

WantFn matmul_want(int64_t o, int64_t i, bool bias) {
  return [=](Sampled& s, int, int64_t e) {
    return Want{dot(s, 1, e / o * i, 1, 2, e % o * i, 1, i) + (bias ? s.at(3, e % o) : 0), 0};
  };
}

WantFn matmul_backward_input_want(int64_t o, int64_t i) {
  return [=](Sampled& s, int, int64_t e) { return Want{dot(s, 1, e / i * o, 1, 2, e % i, i, o), 0}; };
}

WantFn matmul_backward_weight_want(int64_t m, int64_t o, int64_t i) {
  return [=](Sampled& s, int operand, int64_t e) {
    Want w{s.before(operand, e), 0};
    if (operand == 0) {
      w.value += dot(s, 1, e / i, o, 2, e % i, i, m);
    } else {  // db
      for (int64_t n = 0; n < m; ++n) w.value += s.at(1, n * o + e);
    }
    return w;
  };
}

namespace {

/// One element of every operand; of in-out ones as it was before the op ran, or as it is after.
std::vector<ops::Values> element(const ops::OpCase& c, Sampled& s, int64_t e, bool after) {
  std::vector<ops::Values> v;
  for (size_t i = 0; i < c.operands.size(); ++i) {
    const int operand = static_cast<int>(i);
    const int64_t at = std::min(e, s.numel(operand) - 1);
    const bool before = !after && c.operands[i].role == ops::Role::inout;
    v.push_back({before ? s.before(operand, at) : s.at(operand, at)});
  }
  return v;
}

}  // namespace

WantFn elementwise_want(const ops::OpCase& c) {
  return [c](Sampled& s, int operand, int64_t e) {
    std::vector<ops::Values> v = element(c, s, e, false);
    c.reference(v);
    return Want{v[static_cast<size_t>(operand)][0], 0};
  };
}

GotFn decoded_got(const ops::OpCase& c) {
  return [c](Sampled& s, int operand, int64_t e) {
    std::vector<ops::Values> v = element(c, s, e, true);
    c.decode(v);
    return v[static_cast<size_t>(operand)][0];
  };
}

WantFn sum_of_squares_want() {
  return [](Sampled& s, int operand, int64_t e) {
    Want w{s.before(operand, e), 0};
    ops::Values some(1 << 16);
    for (int64_t at = 0, n = s.numel(1); at < n;) {
      const int64_t count = std::min<int64_t>(n - at, static_cast<int64_t>(some.size()));
      s.read(1, at, count, some.data());
      for (int64_t i = 0; i < count; ++i) w.value += some[static_cast<size_t>(i)] * some[static_cast<size_t>(i)];
      at += count;
    }
    return w;
  };
}

}  // namespace dapo::bench
