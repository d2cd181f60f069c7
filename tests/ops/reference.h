// Every op in fp64, as plainly as its algebra in core/backend.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "tests/ops/op_case.h"

namespace dapo::ops {

/// c[m, n] = sum over k of a[m, k] b[n, k].
inline Values product(const Values& a, const Values& b, size_t m, size_t n, size_t k) {
  Values c(m * n);
  for (size_t i = 0; i < m; ++i)
    for (size_t j = 0; j < n; ++j) {
      double s = 0;
#pragma omp simd reduction(+ : s)
      for (size_t l = 0; l < k; ++l) s += a[i * k + l] * b[j * k + l];
      c[i * n + j] = s;
    }
  return c;
}
inline Values transposed(const Values& a, size_t rows, size_t cols) {
  Values t(a.size());
  for (size_t i = 0; i < rows; ++i)
    for (size_t j = 0; j < cols; ++j) t[j * rows + i] = a[i * cols + j];
  return t;
}
inline double dot(const Values& a, const Values& b) {
  double s = 0;
  for (size_t i = 0; i < a.size(); ++i) s += a[i] * b[i];
  return s;
}

struct Norm {
  Values y, rstd;
};
inline Norm rmsnorm(const Values& s, const Values& w, double eps) {
  const size_t width = w.size(), rows = s.size() / width;
  Norm r{Values(s.size()), Values(rows)};
  for (size_t i = 0; i < rows; ++i) {
    double squares = 0;
    for (size_t c = 0; c < width; ++c) squares += s[i * width + c] * s[i * width + c];
    r.rstd[i] = 1 / std::sqrt(squares / static_cast<double>(width) + eps);
    for (size_t c = 0; c < width; ++c) r.y[i * width + c] = s[i * width + c] * r.rstd[i] * w[c];
  }
  return r;
}
inline void rmsnorm_backward(Values& dx, Values& dw, const Values& dy, const Values& x, const Values& w,
                             const Values& rstd) {
  const size_t width = w.size(), rows = x.size() / width;
  for (size_t i = 0; i < rows; ++i) {
    double mean = 0;
    for (size_t c = 0; c < width; ++c)
      mean += dy[i * width + c] * w[c] * x[i * width + c] * rstd[i] / static_cast<double>(width);
    for (size_t c = 0; c < width; ++c) {
      const double h = x[i * width + c] * rstd[i];
      dx[i * width + c] += rstd[i] * (dy[i * width + c] * w[c] - h * mean);
      dw[c] += dy[i * width + c] * h;
    }
  }
}

inline Values swiglu(const Values& gu, size_t width) {
  const size_t rows = gu.size() / (2 * width);
  Values a(rows * width);
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = 0; c < width; ++c) {
      const double g = gu[r * 2 * width + c], u = gu[r * 2 * width + width + c];
      a[r * width + c] = g / (1 + std::exp(-g)) * u;
    }
  return a;
}

inline void rope(Values& qkv, const Values& table, const Values& positions, const AttentionDims& d, bool inverse) {
  const size_t D = static_cast<size_t>(d.head_dim), half = D / 2, width = static_cast<size_t>(d.qkv_width());
  for (size_t n = 0; n < positions.size(); ++n)
    for (size_t h = 0; h < static_cast<size_t>(d.heads + d.kv_heads); ++h)
      for (size_t i = 0; i < half; ++i) {
        const double* angle = &table[static_cast<size_t>(positions[n]) * D];
        const double c = angle[i], s = inverse ? -angle[half + i] : angle[half + i];
        double &a = qkv[n * width + h * D + i], &b = qkv[n * width + h * D + half + i];
        const double x = a, y = b;
        a = x * c - y * s;
        b = y * c + x * s;
      }
}

/// The rows that row `row` of segment `s` attends to.
inline std::vector<size_t> visible(const std::vector<Segment>& segments, size_t s, int32_t row) {
  std::vector<size_t> keys;
  const auto add = [&keys](int32_t begin, int32_t count) {
    for (int32_t i = 0; i < count; ++i) keys.push_back(static_cast<size_t>(begin + i));
  };
  const Segment& own = segments[s];
  if (own.prefix >= 0)
    add(segments[static_cast<size_t>(own.prefix)].begin, segments[static_cast<size_t>(own.prefix)].length);
  add(own.begin, row + 1);
  return keys;
}

struct AttentionRow {
  size_t row, head, kv_head;
  std::vector<size_t> keys;
};
/// Calls visit(AttentionRow) for each row and query head.
template <class Visit>
void each_row(const std::vector<Segment>& segments, const AttentionDims& d, Visit visit) {
  for (size_t s = 0; s < segments.size(); ++s)
    for (int32_t i = 0; i < segments[s].length; ++i)
      for (int h = 0; h < d.heads; ++h)
        visit(AttentionRow{static_cast<size_t>(segments[s].begin + i), static_cast<size_t>(h),
                           static_cast<size_t>(h / (d.heads / d.kv_heads)), visible(segments, s, i)});
}

/// Offsets in a packed row: q of a head, k and v of a KV head.
struct Packed {
  size_t D, width, k0, v0;
  explicit Packed(const AttentionDims& d)
      : D(static_cast<size_t>(d.head_dim)),
        width(static_cast<size_t>(d.qkv_width())),
        k0(static_cast<size_t>(d.q_width())),
        v0(static_cast<size_t>(d.q_width() + d.kv_width())) {}
  size_t q(size_t row, size_t head) const { return row * width + head * D; }
  size_t k(size_t row, size_t head) const { return row * width + k0 + head * D; }
  size_t v(size_t row, size_t head) const { return row * width + v0 + head * D; }
};

/// terms: receives sum |p v| of each output.
inline void attention(Values& out, Values& lse, const Values& qkv, const std::vector<Segment>& segments,
                      const AttentionDims& d, Values* terms = nullptr) {
  const Packed at(d);
  const double scale = 1 / std::sqrt(static_cast<double>(d.head_dim));
  const size_t H = static_cast<size_t>(d.heads);
  each_row(segments, d, [&](const AttentionRow& r) {
    Values s(r.keys.size());
    double most = -INFINITY, sum = 0;
    for (size_t j = 0; j < s.size(); ++j) {
      for (size_t c = 0; c < at.D; ++c) s[j] += qkv[at.q(r.row, r.head) + c] * qkv[at.k(r.keys[j], r.kv_head) + c];
      s[j] *= scale;
      most = std::max(most, s[j]);
    }
    for (const double x : s) sum += std::exp(x - most);
    lse[r.row * H + r.head] = most + std::log(sum);
    for (size_t c = 0; c < at.D; ++c) {
      double o = 0, all = 0;
      for (size_t j = 0; j < s.size(); ++j) {
        const double x = std::exp(s[j] - most) / sum * qkv[at.v(r.keys[j], r.kv_head) + c];
        o += x, all += std::abs(x);
      }
      out[(r.row * H + r.head) * at.D + c] = o;
      if (terms != nullptr) (*terms)[(r.row * H + r.head) * at.D + c] = all;
    }
  });
}

/// terms: receives sum |ds k|, sum |ds q|, sum |p dout| of each gradient.
inline void attention_backward(Values& dqkv, const Values& dout, const Values& qkv, const Values& out,
                               const Values& lse, const std::vector<Segment>& segments, const AttentionDims& d,
                               Values* terms = nullptr) {
  const Packed at(d);
  const double scale = 1 / std::sqrt(static_cast<double>(d.head_dim));
  const size_t H = static_cast<size_t>(d.heads);
  std::fill(dqkv.begin(), dqkv.end(), 0.0);
  each_row(segments, d, [&](const AttentionRow& r) {
    const size_t o = (r.row * H + r.head) * at.D, q = at.q(r.row, r.head);
    double delta = 0;
    for (size_t c = 0; c < at.D; ++c) delta += dout[o + c] * out[o + c];
    for (const size_t key : r.keys) {
      const size_t k = at.k(key, r.kv_head), v = at.v(key, r.kv_head);
      double s = 0, dp = 0;
      for (size_t c = 0; c < at.D; ++c) s += qkv[q + c] * qkv[k + c], dp += dout[o + c] * qkv[v + c];
      const double p = std::exp(s * scale - lse[r.row * H + r.head]), ds = p * (dp - delta) * scale;
      const auto add = [&](size_t i, double x) {
        dqkv[i] += x;
        if (terms != nullptr) (*terms)[i] += std::abs(x);
      };
      for (size_t c = 0; c < at.D; ++c) {
        add(q + c, ds * qkv[k + c]);
        add(k + c, ds * qkv[q + c]);
        add(v + c, p * dout[o + c]);
      }
    }
  });
}

/// softmax(z) of a row with its log-sum-exp and entropy.
struct Softmax {
  Values p;
  double lse, entropy;
};
inline Softmax softmax(const double* z, size_t n) {
  Softmax r{Values(n), 0, 0};
  const double most = *std::max_element(z, z + n);
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += r.p[i] = std::exp(z[i] - most);
  r.lse = most + std::log(sum);
  for (size_t i = 0; i < n; ++i) {
    r.p[i] /= sum;
    r.entropy -= r.p[i] * (z[i] - r.lse);
  }
  return r;
}

/// core/dapo_loss.h in fp64.
inline void token_loss(double log_prob, double old, double A, const DapoLoss& p, double& loss, double& dlogp,
                       int& clip) {
  const double d = log_prob - old, c = std::clamp(d, -double{p.log_ratio_clamp}, double{p.log_ratio_clamp});
  const double r = std::exp(c), inside = std::clamp(r, 1 - double{p.clip_low}, 1 + double{p.clip_high});
  const double plain = -A * r, cut = -A * inside, limit = -A * double{p.dual_clip};
  if (A < 0 && p.dual_clip > 0 && std::max(plain, cut) > limit)
    loss = limit, dlogp = 0, clip = kClippedDual;
  else if (cut > plain)
    loss = cut, dlogp = 0, clip = r < inside ? kClippedLow : kClippedHigh;
  else
    loss = plain, dlogp = c != d ? 0 : plain, clip = kNotClipped;
}

/// AdamW on one parameter, as torch.optim.AdamW.
inline void adamw(double& w, double& m, double& v, double g, double norm2, const AdamW& p) {
  const double clip = p.max_norm > 0 ? std::min(1.0, p.max_norm / (std::sqrt(norm2) + 1e-6)) : 1.0;
  g *= clip;
  m = p.beta1 * m + (1 - double{p.beta1}) * g;
  v = p.beta2 * v + (1 - double{p.beta2}) * g * g;
  const double c1 = 1 - std::pow(double{p.beta1}, static_cast<double>(p.step));
  const double c2 = 1 - std::pow(double{p.beta2}, static_cast<double>(p.step));
  w -= double{p.lr} * p.weight_decay * w;
  w -= p.lr / c1 * m / (std::sqrt(v) / std::sqrt(c2) + p.eps);
}

}  // namespace dapo::ops
