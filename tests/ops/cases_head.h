// The cases of the head: lm_logprob, lm_dapo and lm_sample.
#pragma once

#include "tests/ops/cases.h"

namespace dapo::ops {

inline WorkspaceNeeds head_needs(int64_t rows, int64_t vocab, int64_t width) {
  WorkspaceNeeds n = least_needs();
  n.hidden = width, n.vocab = vocab;
  n.max_tokens = n.max_head_rows = n.max_batch = n.max_rows = rows;
  return n;
}

/// Scale of the head's weights that gives logits of about 3.
inline double head_scale(int64_t width) {
  return 3 / std::sqrt(static_cast<double>(width));
}

/// z = x head^T / temperature.
inline Values scaled_logits(const Values& x, const Values& head, int64_t width, float temperature) {
  Values z = product(x, head, width);
  for (double& v : z) v /= temperature;
  return z;
}
/// Row r of it.
inline Values row_of(const Values& z, size_t r, size_t vocab) {
  return Values(z.begin() + std::ptrdiff_t(r * vocab), z.begin() + std::ptrdiff_t((r + 1) * vocab));
}

inline OpCase lm_logprob_case(DType T, int64_t rows, int64_t vocab, int64_t width, float temperature, bool entropy) {
  OpCase c{"lm_logprob", dims(rows, vocab, width), T, head_needs(rows, vocab, width)};
  const double depth = (sum_depth(width) + 16) * 2 / temperature;  // a logit's error goes into the log-prob
  c.out("log_prob", DType::f32, {rows}, 0, depth), c.in("x", T, {rows, width});
  c.in("head", T, {vocab, width}, head_scale(width)), c.index("targets", some_ids(rows, vocab));
  if (entropy) c.out("entropy", DType::f32, {rows}, 0, 4 * depth);
  c.run = [=](Backend& b, const std::vector<Tensor>& t) {
    b.lm_logprob(t[0], entropy ? t[4] : Tensor(), t[1], t[2], t[3], temperature);
  };
  c.reference = [=](std::vector<Values>& v) {
    const Values z = scaled_logits(v[1], v[2], width, temperature);
    for (size_t r = 0; r < v[0].size(); ++r) {
      const HeadRow h = head_row(row_of(z, r, vocab), index_at(v[3], r));
      v[0][r] = h.log_prob;
      if (entropy) v[4][r] = h.entropy;
    }
  };
  return std::move(c).counted(2.0 * (rows * vocab * width));
}

/// A dual clip that random advantages reach.
inline constexpr DapoLoss kCaseLoss{.dual_clip = 3.0f};

/// Which loss, and which of its inputs are given.
struct LossCase {
  std::string name;
  DapoLoss params;
  bool old = true, log_ratio = false, ref = false;
};

/// Old log-probs and those of the reference are near the new ones, so that every kind of clip occurs.
inline OpCase lm_dapo_case(DType T, int64_t rows, int64_t vocab, int64_t width, float temperature, const LossCase& is) {
  OpCase c{"lm_dapo" + is.name, dims(rows, vocab, width), T, head_needs(rows, vocab, width)};
  const DapoLoss params = is.params;
  const double depth = (sum_depth(width) + 16) * 2 / temperature;
  // dz is rounded to T before the products: independent errors, 4 sigma of them.
  c.out("dx", T, {rows, width}, 4, 4 * depth + sum_depth(vocab));
  c.adds("dhead", DType::f32, {vocab, width}, 4, 4 * depth + sum_depth(rows));
  c.out("log_prob", DType::f32, {rows}, 0, depth), c.out("entropy", DType::f32, {rows}, 0, 4 * depth);
  c.out("loss", DType::f32, {rows}, 0, 16 * depth), c.out("clip", DType::u8, {rows}, 0, 0);
  const int x = c.in("x", T, {rows, width}), head = c.in("head", T, {vocab, width}, head_scale(width));
  c.index("targets", some_ids(rows, vocab));
  c.in("old_log_prob", DType::f32, {rows}, 0.5), c.in("advantage", DType::f32, {rows}, 2);
  c.in("weight", DType::f32, {rows}, 0.1, 0.5), c.in("log_ratio", DType::f32, {rows}, 0.5);
  c.in("ref_log_prob", DType::f32, {rows}, 0.5), c.in("base", DType::f32, {rows}, 0);
  const size_t R = rows, V = vocab;
  c.run = [=](Backend& b, const std::vector<Tensor>& t) {
    const auto given = [&](bool wanted, size_t i) { return wanted ? t[i] : Tensor(); };
    b.lm_dapo(t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], given(is.old, 9), t[10], t[11],
              given(is.log_ratio, 12), given(is.ref, 13), temperature, params);
  };
  c.derive = [=](std::vector<Values>& v) {
    const Values z = scaled_logits(v[6], v[7], width, temperature);
    for (size_t r = 0; r < R; ++r) {
      v[14][r] = head_row(row_of(z, r, V), index_at(v[8], r)).log_prob;
      v[9][r] += v[14][r], v[13][r] += v[14][r];
    }
  };
  // `base`: the log-prob of stop-gradients; null: the row's own.
  const auto loss_of = [=](const std::vector<Values>& v, size_t r, const HeadRow& h, const double* base) {
    const auto given = [&](bool wanted, size_t i) { return wanted ? &v[i][r] : nullptr; };
    return objective({h.log_prob, h.entropy, v[10][r], base ? *base : h.log_prob, given(is.old, 9),
                      given(is.log_ratio, 12), given(is.ref, 13)},
                     params);
  };
  c.reference = [=](std::vector<Values>& v) {
    const Values z = scaled_logits(v[6], v[7], width, temperature);
    Values dz(R * V);
    for (size_t r = 0; r < R; ++r) {
      const size_t target = index_at(v[8], r);
      const HeadRow h = head_row(row_of(z, r, V), target);
      const PolicyLoss l = loss_of(v, r, h, nullptr);
      v[2][r] = h.log_prob, v[3][r] = h.entropy, v[4][r] = l.loss, v[5][r] = l.clip;
      for (size_t j = 0; j < V; ++j)
        dz[r * V + j] =
            logit_gradient(l, v[11][r], h.p[j], j == target, temperature, double{params.entropy_coef}, h.entropy);
    }
    v[0] = product(dz, transposed(v[7], V), V);
    const Values dhead = product(transposed(dz, R), transposed(v[6], R), R);
    for (size_t j = 0; j < dhead.size(); ++j) v[1][j] += dhead[j];
  };
  c.loss = [=](const std::vector<Values>& v) {
    const Values z = scaled_logits(v[6], v[7], width, temperature);
    double total = 0;
    for (size_t r = 0; r < R; ++r) {
      const HeadRow h = head_row(row_of(z, r, V), index_at(v[8], r));
      total += v[11][r] * loss_of(v, r, h, &v[14][r]).loss;
    }
    return total;
  };
  c.gradients = {{x, 0}, {head, 1}};
  return std::move(c).counted(6.0 * (rows * vocab * width));
}
/// on_policy: there are no old log-probs.
inline OpCase lm_dapo_case(DType T, int64_t rows, int64_t vocab, int64_t width, float temperature, bool on_policy) {
  return lm_dapo_case(T, rows, vocab, width, temperature,
                      LossCase{on_policy ? "+on_policy" : "", kCaseLoss, !on_policy});
}

/// Every objective, every KL and the entropy bonus, alone and together.
inline std::vector<LossCase> loss_cases() {
  const auto with = [](auto... changes) {
    DapoLoss p = kCaseLoss;
    (changes(p), ...);
    return p;
  };
  const auto kind = [](LossKind k) { return [k](DapoLoss& p) { p.kind = k; }; };
  const auto kl = [](KlKind k) { return [k](DapoLoss& p) { p.kl = k, p.kl_coef = 0.7f; }; };
  const auto bonus = [](DapoLoss& p) { p.entropy_coef = 0.4f; };
  return {{"+gspo", with(kind(LossKind::gspo)), false, true},
          {"+cispo", with(kind(LossKind::cispo))},
          {"+reinforce", with(kind(LossKind::reinforce))},
          {"+k1", with(kl(KlKind::k1)), true, false, true},
          {"+k2", with(kl(KlKind::k2)), true, false, true},
          {"+k3", with(kl(KlKind::k3)), true, false, true},
          {"+entropy", with(bonus)},
          {"+gspo_k3_entropy", with(kind(LossKind::gspo), kl(KlKind::k3), bonus), false, true, true}};
}

/// Has no reference: its draws are tested (properties_test.h).
inline OpCase lm_sample_case(DType T, int64_t batch, int64_t vocab, int64_t width, Sampling sampling) {
  OpCase c{"lm_sample", dims(batch, vocab, width), T, head_needs(batch, vocab, width)};
  std::vector<int32_t> keys, positions;
  for (int32_t b = 0; b < batch; ++b) keys.insert(keys.end(), {1, b / 4, b % 4}), positions.push_back(b % 7);
  c.out("tokens", DType::i32, {batch}, 0, INFINITY), c.out("log_prob", DType::f32, {batch}, 0, INFINITY);
  c.in("x", T, {batch, width}), c.in("head", T, {vocab, width}, head_scale(width));
  c.index("keys", keys, {batch, 3}), c.index("positions", positions);
  c.run = [=](Backend& b, const std::vector<Tensor>& t) { b.lm_sample(t[0], t[1], t[2], t[3], t[4], t[5], sampling); };
  c.reference = [](std::vector<Values>&) {};
  return std::move(c).counted(2.0 * (batch * vocab * width));
}

inline std::vector<OpCase> head_cases(DType T) {
  std::vector<OpCase> all;
  struct Shape {
    int64_t rows, vocab, width;
    float temperature;
  };
  // Odd rows; one step of the kernel that writes d logits over the logits, and several steps.
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
  all.push_back(lm_dapo_case(T, 3, 16500, 16, 1.0f, false));  // d x in parts of the vocabulary
  for (const LossCase& loss : loss_cases()) {
    all.push_back(lm_dapo_case(T, 11, 33, 24, 0.7f, loss));
    all.push_back(lm_dapo_case(T, 9, 296, 40, 1.3f, loss));
  }
  return all;
}

}  // namespace dapo::ops
