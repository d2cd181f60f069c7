// The meaning of every op of core/backend.h, as plain loops in fp64. The arguments are those of the op, each a vector
// of its elements; sizes follow from the vectors and the one dimension that is passed. Tests compare whole results with
// these; bench_ops compares sampled rows (bench/parts/expected.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "tests/ops/op_case.h"

namespace dapo::ops {

/// An id, offset or position among the values.
inline size_t index_at(const Values& v, size_t i) {
  return static_cast<size_t>(v[i]);
}

// ---- rows ---------------------------------------------------------------------------------------------------------

inline void embedding(Values& x, const Values& table, const Values& ids, int32_t first_id, size_t hidden) {
  const double vocab = double(table.size() / hidden);
  for (size_t n = 0; n < ids.size(); ++n) {
    const double id = ids[n] - first_id;
    for (size_t c = 0; c < hidden; ++c)
      x[n * hidden + c] = id >= 0 && id < vocab ? table[static_cast<size_t>(id) * hidden + c] : 0;
  }
}

inline void embedding_backward(Values& dtable, const Values& dx, const Values& unique, const Values& offsets,
                               const Values& rows, size_t hidden) {
  for (size_t u = 0; u < unique.size(); ++u)
    for (size_t j = index_at(offsets, u); j < index_at(offsets, u + 1); ++j)
      for (size_t c = 0; c < hidden; ++c)
        dtable[index_at(unique, u) * hidden + c] += dx[index_at(rows, j) * hidden + c];
}

inline void gather_rows(Values& y, const Values& x, const Values& index, size_t hidden) {
  for (size_t r = 0; r < index.size(); ++r)
    for (size_t c = 0; c < hidden; ++c) y[r * hidden + c] = x[index_at(index, r) * hidden + c];
}

inline void sum_rows(Values& dx, const Values& dy, const Values& offsets, const Values& rows, size_t hidden) {
  for (size_t n = 0; n + 1 < offsets.size(); ++n)
    for (size_t c = 0; c < hidden; ++c) {
      dx[n * hidden + c] = 0;
      for (size_t j = index_at(offsets, n); j < index_at(offsets, n + 1); ++j)
        dx[n * hidden + c] += dy[index_at(rows, j) * hidden + c];
    }
}

// ---- norms --------------------------------------------------------------------------------------------------------

/// The sum of tensors of `part` elements each.
inline Values add_parts(const Values& parts, int64_t part) {
  Values sum(static_cast<size_t>(part));
  for (size_t i = 0; i < parts.size(); ++i) sum[i % sum.size()] += parts[i];
  return sum;
}

struct Norm {
  Values y, rstd;
};
inline Norm rmsnorm(const Values& s, const Values& w, double eps) {
  const size_t hidden = w.size(), tokens = s.size() / hidden;
  Norm r{Values(s.size()), Values(tokens)};
  for (size_t n = 0; n < tokens; ++n) {
    double squares = 0;
    for (size_t c = 0; c < hidden; ++c) squares += s[n * hidden + c] * s[n * hidden + c];
    r.rstd[n] = 1 / std::sqrt(squares / double(hidden) + eps);
    for (size_t c = 0; c < hidden; ++c) r.y[n * hidden + c] = s[n * hidden + c] * r.rstd[n] * w[c];
  }
  return r;
}

inline void rmsnorm_backward(Values& dx, Values& dw, const Values& dy, const Values& x, const Values& w,
                             const Values& rstd) {
  const size_t hidden = w.size(), tokens = x.size() / hidden;
  for (size_t n = 0; n < tokens; ++n) {
    double mean = 0;
    for (size_t c = 0; c < hidden; ++c)
      mean += dy[n * hidden + c] * w[c] * x[n * hidden + c] * rstd[n] / double(hidden);
    for (size_t c = 0; c < hidden; ++c) {
      const double h = x[n * hidden + c] * rstd[n];
      dx[n * hidden + c] += rstd[n] * (dy[n * hidden + c] * w[c] - h * mean);
      dw[c] += dy[n * hidden + c] * h;
    }
  }
}

// ---- products -----------------------------------------------------------------------------------------------------

/// c[m, n] = sum over k of a[m, k] b[n, k].
inline Values product(const Values& a, const Values& b, size_t k) {
  const size_t m = a.size() / k, n = b.size() / k;
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
inline Values transposed(const Values& a, size_t rows) {
  const size_t columns = a.size() / rows;
  Values t(a.size());
  for (size_t i = 0; i < rows; ++i)
    for (size_t j = 0; j < columns; ++j) t[j * rows + i] = a[i * columns + j];
  return t;
}
inline double dot(const Values& a, const Values& b) {
  double s = 0;
  for (size_t i = 0; i < a.size(); ++i) s += a[i] * b[i];
  return s;
}

/// y = x w^T + bias; bias may be empty.
inline Values matmul(const Values& x, const Values& w, const Values& bias, size_t inputs) {
  Values y = product(x, w, inputs);
  for (size_t j = 0; !bias.empty() && j < y.size(); ++j) y[j] += bias[j % bias.size()];
  return y;
}
inline Values matmul_backward_input(const Values& dy, const Values& w, size_t outputs) {
  return product(dy, transposed(w, outputs), outputs);
}
/// db may be null.
inline void matmul_backward_weight(Values& dw, Values* db, const Values& dy, const Values& x, size_t m) {
  const Values sum = product(transposed(dy, m), transposed(x, m), m);
  for (size_t j = 0; j < sum.size(); ++j) dw[j] += sum[j];
  for (size_t j = 0; db != nullptr && j < dy.size(); ++j) (*db)[j % db->size()] += dy[j];
}

// ---- attention ----------------------------------------------------------------------------------------------------

inline void rope(Values& qkv, const Values& table, const Values& positions, const AttentionDims& d, bool inverse) {
  const size_t D = d.head_dim, half = D / 2, width = d.qkv_width(), heads = d.heads + d.kv_heads;
  for (size_t n = 0; n < positions.size(); ++n)
    for (size_t h = 0; h < heads; ++h)
      for (size_t i = 0; i < half; ++i) {
        const double* angle = &table[index_at(positions, n) * D];
        const double c = angle[i], s = inverse ? -angle[half + i] : angle[half + i];
        double &a = qkv[n * width + h * D + i], &b = qkv[n * width + h * D + half + i];
        const double x = a, y = b;
        a = x * c - y * s;
        b = y * c + x * s;
      }
}

/// Softmax attention of one query q[D] over keys k[n, D] and values v[n, D].
struct AttentionRow {
  Values out, terms;  ///< terms: sum |p v| of each output
  double lse;
};
inline AttentionRow attention_row(const Values& q, const Values& k, const Values& v) {
  const size_t D = q.size(), n = k.size() / D;
  AttentionRow r{Values(D), Values(D), 0};
  Values s = product(k, q, D);
  for (double& x : s) x /= std::sqrt(double(D));
  const double most = *std::max_element(s.begin(), s.end());
  double sum = 0;
  for (const double x : s) sum += std::exp(x - most);
  r.lse = most + std::log(sum);
  for (size_t j = 0; j < n; ++j)
    for (size_t c = 0; c < D; ++c) {
      const double term = std::exp(s[j] - r.lse) * v[j * D + c];
      r.out[c] += term, r.terms[c] += std::abs(term);
    }
  return r;
}

/// One query against one key in the backward: p = exp(q k / sqrt(D) - lse), ds = p (dout v - dout out) / sqrt(D).
struct AttentionPair {
  double p, ds;
};
inline AttentionPair attention_pair(const double* q, const double* k, const double* v, const double* dout,
                                    const double* out, double lse, size_t D) {
  double s = 0, dp = 0, delta = 0;
  for (size_t c = 0; c < D; ++c) s += q[c] * k[c], dp += dout[c] * v[c], delta += dout[c] * out[c];
  const double scale = 1 / std::sqrt(double(D)), p = std::exp(s * scale - lse);
  return {p, p * (dp - delta) * scale};
}

/// The rows that token `i` of segment `s` attends to.
inline std::vector<size_t> visible(const std::vector<Segment>& segments, size_t s, int32_t i) {
  std::vector<size_t> keys;
  const auto add = [&keys](int32_t begin, int32_t count) {
    for (int32_t j = 0; j < count; ++j) keys.push_back(begin + j);
  };
  const Segment& own = segments[s];
  if (own.prefix >= 0) add(segments[own.prefix].begin, segments[own.prefix].length);
  add(own.begin, i + 1);
  return keys;
}

/// Offsets in a packed row: q of a head, k and v of a KV head.
struct Packed {
  size_t D, width, k0, v0;
  explicit Packed(const AttentionDims& d)
      : D(d.head_dim), width(d.qkv_width()), k0(d.q_width()), v0(d.q_width() + d.kv_width()) {}
  size_t q(size_t row, size_t head) const { return row * width + head * D; }
  size_t k(size_t row, size_t head) const { return row * width + k0 + head * D; }
  size_t v(size_t row, size_t head) const { return row * width + v0 + head * D; }
};

/// Calls visit(row, head, KV head, rows it attends to) for each row and query head.
template <class Visit>
void each_row(const std::vector<Segment>& segments, const AttentionDims& d, Visit visit) {
  for (size_t s = 0; s < segments.size(); ++s)
    for (int32_t i = 0; i < segments[s].length; ++i)
      for (int h = 0; h < d.heads; ++h)
        visit(size_t(segments[s].begin + i), size_t(h), size_t(h / (d.heads / d.kv_heads)), visible(segments, s, i));
}

/// terms: receives sum |p v| of each output.
inline void attention(Values& out, Values& lse, const Values& qkv, const std::vector<Segment>& segments,
                      const AttentionDims& d, Values* terms = nullptr) {
  const Packed at(d);
  const size_t H = d.heads, D = at.D;
  each_row(segments, d, [&](size_t row, size_t head, size_t kv_head, const std::vector<size_t>& keys) {
    Values k, v;
    for (const size_t key : keys) {
      k.insert(k.end(), &qkv[at.k(key, kv_head)], &qkv[at.k(key, kv_head)] + D);
      v.insert(v.end(), &qkv[at.v(key, kv_head)], &qkv[at.v(key, kv_head)] + D);
    }
    const double* q = &qkv[at.q(row, head)];
    const AttentionRow r = attention_row(Values(q, q + D), k, v);
    lse[row * H + head] = r.lse;
    for (size_t c = 0; c < D; ++c) {
      out[(row * H + head) * D + c] = r.out[c];
      if (terms != nullptr) (*terms)[(row * H + head) * D + c] = r.terms[c];
    }
  });
}

/// terms: receives sum |ds k|, sum |ds q|, sum |p dout| of each gradient.
inline void attention_backward(Values& dqkv, const Values& dout, const Values& qkv, const Values& out,
                               const Values& lse, const std::vector<Segment>& segments, const AttentionDims& d,
                               Values* terms = nullptr) {
  const Packed at(d);
  const size_t H = d.heads, D = at.D;
  std::fill(dqkv.begin(), dqkv.end(), 0.0);
  each_row(segments, d, [&](size_t row, size_t head, size_t kv_head, const std::vector<size_t>& keys) {
    const size_t o = (row * H + head) * D, q = at.q(row, head);
    for (const size_t key : keys) {
      const size_t k = at.k(key, kv_head), v = at.v(key, kv_head);
      const auto [p, ds] = attention_pair(&qkv[q], &qkv[k], &qkv[v], &dout[o], &out[o], lse[row * H + head], D);
      const auto add = [&](size_t i, double x) {
        dqkv[i] += x;
        if (terms != nullptr) (*terms)[i] += std::abs(x);
      };
      for (size_t c = 0; c < D; ++c) {
        add(q + c, ds * qkv[k + c]);
        add(k + c, ds * qkv[q + c]);
        add(v + c, p * dout[o + c]);
      }
    }
  });
}

// ---- mlp ----------------------------------------------------------------------------------------------------------

inline Values swiglu(const Values& gu, size_t ffn) {
  Values a(gu.size() / 2);
  for (size_t i = 0; i < a.size(); ++i) {
    const double gate = gu[i / ffn * 2 * ffn + i % ffn], up = gu[i / ffn * 2 * ffn + ffn + i % ffn];
    a[i] = gate / (1 + std::exp(-gate)) * up;
  }
  return a;
}

inline void swiglu_backward(Values& dgu, const Values& da, const Values& gu, size_t ffn) {
  for (size_t i = 0; i < da.size(); ++i) {
    const size_t gate = i / ffn * 2 * ffn + i % ffn, up = gate + ffn;
    const double s = 1 / (1 + std::exp(-gu[gate]));
    dgu[gate] = da[i] * gu[up] * s * (1 + gu[gate] * (1 - s));
    dgu[up] = da[i] * gu[gate] * s;
  }
}

// ---- head ---------------------------------------------------------------------------------------------------------

/// softmax(z) of one row of logits, its entropy, and the log-prob of the target.
struct HeadRow {
  Values p;
  double lse, entropy, log_prob;
};
inline HeadRow head_row(const Values& z, size_t target) {
  HeadRow r{Values(z.size()), 0, 0, NAN};
  const double most = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (size_t v = 0; v < z.size(); ++v) sum += r.p[v] = std::exp(z[v] - most);
  r.lse = most + std::log(sum);
  for (size_t v = 0; v < z.size(); ++v) {
    r.p[v] /= sum;
    r.entropy -= r.p[v] * (z[v] - r.lse);
  }
  if (target < z.size()) r.log_prob = z[target] - r.lse;
  return r;
}

/// core/dapo_loss.h in fp64; dlogp: its derivative by log_prob. old: null for ratio 1 (on_policy_loss).
struct PolicyLoss {
  double loss, dlogp;
  int clip;
};
inline PolicyLoss policy_loss(double log_prob, const double* old, double A, const DapoLoss& p) {
  if (old == nullptr) return {-A * log_prob, -A, kNotClipped};
  const double d = log_prob - *old, c = std::clamp(d, -double{p.log_ratio_clamp}, double{p.log_ratio_clamp});
  const double r = std::exp(c), inside = std::clamp(r, 1 - double{p.clip_low}, 1 + double{p.clip_high});
  const double plain = -A * r, cut = -A * inside, limit = -A * double{p.dual_clip};
  if (A < 0 && p.dual_clip > 0 && std::max(plain, cut) > limit) return {limit, 0, kClippedDual};
  if (cut > plain) return {cut, 0, r < inside ? kClippedLow : kClippedHigh};
  return {plain, c != d ? 0 : plain, kNotClipped};
}

/// What a token's loss reads; null: not given. `base`: the log-prob at which stop-gradients take their values.
struct LossToken {
  double log_prob, entropy, advantage, base;
  const double *old, *log_ratio, *ref;
};
/// objective_loss of core/dapo_loss.h in fp64; dlogp leaves out the entropy.
inline PolicyLoss objective(const LossToken& t, const DapoLoss& p) {
  PolicyLoss l;
  if (p.kind == LossKind::reinforce || (t.old == nullptr && t.log_ratio == nullptr)) {
    l = policy_loss(t.log_prob, nullptr, t.advantage, p);
  } else if (p.kind == LossKind::cispo) {
    const double r = std::exp(t.log_ratio ? *t.log_ratio : t.base - *t.old), low = 1 - double{p.clip_low},
                 high = 1 + double{p.clip_high}, slope = -t.advantage * std::clamp(r, low, high);
    l = {slope * t.log_prob, slope, r < low ? kClippedLow : r > high ? kClippedHigh : kNotClipped};
  } else {
    const double old = t.log_ratio ? t.base - *t.log_ratio : *t.old;
    l = policy_loss(t.log_prob, &old, t.advantage, p);
  }
  if (t.ref != nullptr) {
    const double d = t.log_prob - *t.ref;
    const bool k1 = p.kl == KlKind::k1, k2 = p.kl == KlKind::k2;
    l.loss += p.kl_coef * (k1 ? d : k2 ? d * d / 2 : std::exp(-d) - 1 + d);
    l.dlogp += p.kl_coef * (k1 ? 1 : k2 ? d : 1 - std::exp(-d));
  }
  l.loss -= p.entropy_coef * t.entropy;
  return l;
}

/// The gradient of weight * (loss - bonus * entropy) by the logit (before the division by the temperature) of an entry
/// with probability p; `l` may hold the bonus, of which dlogp knows nothing.
inline double logit_gradient(const PolicyLoss& l, double weight, double p, bool is_target, double temperature,
                             double bonus = 0, double entropy = 0) {
  const double of_entropy = p > 0 ? -p * (std::log(p) + entropy) : 0;
  return weight * (l.dlogp * (is_target - p) - bonus * of_entropy) / temperature;
}

// ---- update -------------------------------------------------------------------------------------------------------

/// AdamW on one parameter, as torch.optim.AdamW.
inline void adamw(double& w, double& m, double& v, double g, double norm2, const AdamW& p) {
  const double clip = p.max_norm > 0 ? std::min(1.0, p.max_norm / (std::sqrt(norm2) + 1e-6)) : 1.0;
  g *= clip;
  m = p.beta1 * m + (1 - double{p.beta1}) * g;
  v = p.beta2 * v + (1 - double{p.beta2}) * g * g;
  const double c1 = 1 - std::pow(double{p.beta1}, double(p.step));
  const double c2 = 1 - std::pow(double{p.beta2}, double(p.step));
  w -= double{p.lr} * p.weight_decay * w;
  w -= p.lr / c1 * m / (std::sqrt(v) / std::sqrt(c2) + p.eps);
}

}  // namespace dapo::ops
