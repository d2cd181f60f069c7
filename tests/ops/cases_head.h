// The cases of the head: lm_logprob and lm_dapo. lm_sample is tested by its draws (ops_test.h).
#pragma once

#include "tests/ops/cases.h"

namespace dapo::ops {

inline WorkspaceNeeds head_needs(int64_t rows, int64_t vocab, int64_t width) {
  WorkspaceNeeds n = least_needs();
  n.hidden = width, n.vocab = vocab;
  n.max_tokens = n.max_head_rows = n.max_batch = n.max_rows = rows;
  return n;
}

/// Spread of head's numbers that makes logits of about 3.
inline double head_scale(int64_t width) {
  return 3 / std::sqrt(static_cast<double>(width));
}

inline Values scaled_logits(const Values& x, const Values& head, int64_t rows, int64_t vocab, int64_t width, float T) {
  Values z = product(x, head, static_cast<size_t>(rows), static_cast<size_t>(vocab), static_cast<size_t>(width));
  for (double& v : z) v /= T;
  return z;
}

inline OpCase lm_logprob_case(DType T, int64_t rows, int64_t vocab, int64_t width, float temperature, bool entropy) {
  OpCase c{"lm_logprob", dims(rows, vocab, width), T, head_needs(rows, vocab, width)};
  const double depth = (sum_depth(width) + 16) * 2 / temperature;  // a logit's error is the log-prob's
  c.out("log_prob", DType::f32, {rows}, 0, depth), c.in("x", T, {rows, width});
  c.in("head", T, {vocab, width}, head_scale(width)), c.index("targets", some_ids(rows, vocab));
  if (entropy) c.out("entropy", DType::f32, {rows}, 0, 4 * depth);
  c.run = [=](Backend& b, const std::vector<Tensor>& t) {
    b.lm_logprob(t[0], entropy ? t[4] : Tensor(), t[1], t[2], t[3], temperature);
  };
  c.reference = [=](std::vector<Values>& v) {
    const Values z = scaled_logits(v[1], v[2], rows, vocab, width, temperature);
    for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
      const double* row = &z[r * static_cast<size_t>(vocab)];
      const Softmax s = softmax(row, static_cast<size_t>(vocab));
      v[0][r] = row[static_cast<size_t>(v[3][r])] - s.lse;
      if (entropy) v[4][r] = s.entropy;
    }
  };
  return std::move(c).counted(2.0 * static_cast<double>(rows * vocab * width));
}

/// Old log-probs lie round the new ones, so that every kind of clip occurs; on_policy: none are given.
inline OpCase lm_dapo_case(DType T, int64_t rows, int64_t vocab, int64_t width, float temperature, bool on_policy) {
  OpCase c{on_policy ? "lm_dapo+on_policy" : "lm_dapo", dims(rows, vocab, width), T, head_needs(rows, vocab, width)};
  const DapoLoss params{0.2f, 0.28f, 3.0f, 20.0f};
  const double depth = (sum_depth(width) + 16) * 2 / temperature;
  // dz is rounded to T before it enters the products: independent errors, 4 sigma of them.
  c.out("dx", T, {rows, width}, 4, 4 * depth + sum_depth(vocab));
  c.adds("dhead", DType::f32, {vocab, width}, 4, 4 * depth + sum_depth(rows));
  c.out("log_prob", DType::f32, {rows}, 0, depth), c.out("entropy", DType::f32, {rows}, 0, 4 * depth);
  c.out("loss", DType::f32, {rows}, 0, 16 * depth), c.out("clip", DType::u8, {rows}, 0, 0);
  const int x = c.in("x", T, {rows, width}), head = c.in("head", T, {vocab, width}, head_scale(width));
  const int targets = c.index("targets", some_ids(rows, vocab));
  const int old = c.in("old_log_prob", DType::f32, {rows}, 0.5), advantage = c.in("advantage", DType::f32, {rows}, 2);
  const int weight = c.in("weight", DType::f32, {rows}, 0.1, 0.5);
  const auto R = static_cast<size_t>(rows), V = static_cast<size_t>(vocab), C = static_cast<size_t>(width);
  c.run = [=](Backend& b, const std::vector<Tensor>& t) {
    b.lm_dapo(t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], on_policy ? Tensor() : t[9], t[10], t[11],
              temperature, params);
  };
  const auto log_prob = [=](const Values& z, const std::vector<Values>& v, size_t r) {
    return z[r * V + static_cast<size_t>(v[8][r])] - softmax(&z[r * V], V).lse;
  };
  c.derive = [=](std::vector<Values>& v) {
    const Values z = scaled_logits(v[6], v[7], rows, vocab, width, temperature);
    for (size_t r = 0; r < R; ++r) v[9][r] += log_prob(z, v, r);
  };
  const auto forward = [=](const std::vector<Values>& v, const Values& z, size_t r, double& loss, double& dlogp,
                           int& clip) {
    const double lp = log_prob(z, v, r), A = v[10][r];
    loss = -A * lp, dlogp = -A, clip = kNotClipped;
    if (!on_policy) token_loss(lp, v[9][r], A, params, loss, dlogp, clip);
  };
  c.reference = [=](std::vector<Values>& v) {
    const Values z = scaled_logits(v[6], v[7], rows, vocab, width, temperature);
    Values dz(R * V);
    for (size_t r = 0; r < R; ++r) {
      const Softmax s = softmax(&z[r * V], V);
      double dlogp = 0;
      int clip = 0;
      forward(v, z, r, v[4][r], dlogp, clip);
      v[2][r] = log_prob(z, v, r), v[3][r] = s.entropy, v[5][r] = clip;
      for (size_t j = 0; j < V; ++j)
        dz[r * V + j] = v[11][r] * dlogp * ((j == static_cast<size_t>(v[8][r])) - s.p[j]) / temperature;
    }
    v[0] = product(dz, transposed(v[7], V, C), R, C, V);
    const Values dhead = product(transposed(dz, R, V), transposed(v[6], R, C), V, C, R);
    for (size_t j = 0; j < dhead.size(); ++j) v[1][j] += dhead[j];
  };
  c.loss = [=](const std::vector<Values>& v) {
    const Values z = scaled_logits(v[6], v[7], rows, vocab, width, temperature);
    double total = 0, loss = 0, dlogp = 0;
    int clip = 0;
    for (size_t r = 0; r < R; ++r) {
      forward(v, z, r, loss, dlogp, clip);
      total += v[11][r] * loss;
    }
    return total;
  };
  (void)targets, (void)old, (void)advantage, (void)weight;
  c.gradients = {{x, 0}, {head, 1}};
  return std::move(c).counted(6.0 * static_cast<double>(rows * vocab * width));
}

/// Without a reference: checked by its draws.
inline OpCase lm_sample_case(DType T, int64_t batch, int64_t vocab, int64_t width, Sampling sampling) {
  OpCase c{"lm_sample", dims(batch, vocab, width), T, head_needs(batch, vocab, width)};
  std::vector<int32_t> keys, positions;
  for (int32_t b = 0; b < batch; ++b) keys.insert(keys.end(), {1, b / 4, b % 4}), positions.push_back(b % 7);
  c.out("tokens", DType::i32, {batch}, 0, INFINITY), c.out("log_prob", DType::f32, {batch}, 0, INFINITY);
  c.in("x", T, {batch, width}), c.in("head", T, {vocab, width}, head_scale(width));
  c.index("keys", keys, {batch, 3}), c.index("positions", positions);
  c.run = [=](Backend& b, const std::vector<Tensor>& t) { b.lm_sample(t[0], t[1], t[2], t[3], t[4], t[5], sampling); };
  c.reference = [](std::vector<Values>&) {};
  return std::move(c).counted(2.0 * static_cast<double>(batch * vocab * width));
}

inline std::vector<OpCase> head_cases(DType T) {
  std::vector<OpCase> all;
  struct Shape {
    int64_t rows, vocab, width;
    float temperature;
  };
  // Odd rows; one step of the kernel that writes d logits over the logits, and several.
  for (const auto& [r, v, c, t] : {Shape{1, 2, 7, 1.0f},
                                   {5, 33, 112, 0.7f},
                                   {70, 128, 128, 1.0f},
                                   {37, 1000, 64, 1.3f},
                                   {9, 5001, 896, 1.0f},
                                   {3, 9016, 24, 0.9f}}) {
    all.push_back(lm_logprob_case(T, r, v, c, t, true)), all.push_back(lm_logprob_case(T, r, v, c, t, false));
    all.push_back(lm_dapo_case(T, r, v, c, t, false)), all.push_back(lm_dapo_case(T, r, v, c, t, true));
    all.push_back(lm_sample_case(T, r, v, c, {t, 0, 0.9f, 0.0f, 5}));
  }
  return all;
}

}  // namespace dapo::ops
