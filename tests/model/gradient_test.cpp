// The gradient of each parameter against central differences of the loss.
#include <array>

#include "tests/model/rig.h"
#include "tests/ops/reference.h"

namespace dapo {
namespace {

TEST(Packs, FiniteDifferences) {
  const auto ids = [](uint64_t seed, int n) { return random_ids(seed, n, 101); };
  Pack pack = make_pack({{ids(1, 70), {ids(2, 9), ids(3, 130), ids(4, 1)}}, {ids(5, 1), {ids(6, 64), ids(7, 65)}}});
  ModelConfig config = toy_config();
  config.tied = false;
  const auto rig = toy_rig(config);
  Learner& learner = rig->learner_for(training_limits(pack));
  learner.train(pack, 1.0f, {});
  const auto gradient = to_host(*rig->backend, learner.gradients());
  const auto weights = to_host(*rig->backend, rig->weights->flat());
  const auto loss_along = [&](const Param& p, std::span<const float> direction, double step) {
    std::vector<float> moved(direction.size());
    for (size_t i = 0; i < moved.size(); ++i)
      moved[i] = static_cast<float>(static_cast<double>(weights[static_cast<size_t>(p.offset) + i]) +
                                    step * static_cast<double>(direction[i]));
    const Tensor at = rig->weights->flat().rows(p.offset, p.numel());
    rig->backend->copy_in(at, moved.data());
    learner.score(pack, 1.0f);
    rig->backend->copy_in(at, weights.data() + p.offset);
    double sum = 0;
    for (size_t i = 0; i < pack.log_prob.size(); ++i)
      sum -= static_cast<double>(pack.weight[i]) * static_cast<double>(pack.log_prob[i]);
    return sum;
  };
  for (const Param& p : rig->weights->params().all) {
    // The slope of the loss along the unit gradient is the norm of the gradient.
    std::vector<float> direction(gradient.begin() + p.offset, gradient.begin() + p.offset + p.numel());
    double norm = 0;
    for (float g : direction) norm += static_cast<double>(g) * static_cast<double>(g);
    norm = std::sqrt(norm);
    ASSERT_GT(norm, 1e-5) << p.name;
    for (float& g : direction) g = static_cast<float>(static_cast<double>(g) / norm);
    const double h = 0.01;
    const double slope = (loss_along(p, direction, h) - loss_along(p, direction, -h)) / (2 * h);
    // f32 losses of about 5 are off by 1e-7 relative, divided by 2 h; the third derivative adds about h^2.
    EXPECT_NEAR(slope, norm, 1e-3 * norm + 2e-5) << p.name;
  }
}

/// An objective on packs, and its value in fp64 as its paper writes it, as a function of the log-probs alone.
struct Objective {
  const char* name;
  DapoLoss params;
};

std::vector<Objective> objectives() {
  constexpr float kDual = 3.0f;
  return {{"clip", {.dual_clip = kDual}},
          {"gspo", {.dual_clip = 0, .kind = LossKind::gspo}},
          {"cispo", {.kind = LossKind::cispo}},
          {"reinforce", {.kind = LossKind::reinforce}},
          {"k1", {.dual_clip = kDual, .kl = KlKind::k1, .kl_coef = 0.5f}},
          {"k2", {.dual_clip = kDual, .kl = KlKind::k2, .kl_coef = 0.5f}},
          {"k3", {.dual_clip = kDual, .kl = KlKind::k3, .kl_coef = 0.5f}},
          {"entropy bonus", {.dual_clip = kDual, .entropy_coef = 0.3f}}};
}

/// `base`: the log-probs at which stop-gradients take their values. GSPO's is the sequence's ratio itself.
double value_of(const Pack& pack, const std::vector<float>& base, const DapoLoss& p) {
  const size_t count = pack.log_prob.size();
  std::vector<double> sum(count, 0), tokens(count, 0);
  for (size_t r = 0; r < count; ++r) {
    const auto s = static_cast<size_t>(pack.sequence[r]);
    sum[s] += static_cast<double>(pack.log_prob[r]) - static_cast<double>(pack.old_log_prob[r]), ++tokens[s];
  }
  double total = 0;
  for (size_t r = 0; r < count; ++r) {
    const auto s = static_cast<size_t>(pack.sequence[r]);
    const double old = pack.old_log_prob[r], ref = pack.ref_log_prob.empty() ? 0 : pack.ref_log_prob[r], zero = 0;
    const double loss =
        p.kind == LossKind::gspo
            ? ops::policy_loss(sum[s] / tokens[s], &zero, static_cast<double>(pack.advantage[r]), p).loss
            : ops::objective({pack.log_prob[r], pack.entropy[r], pack.advantage[r], base[r], &old, nullptr,
                              pack.ref_log_prob.empty() ? nullptr : &ref},
                             p)
                  .loss;
    total += static_cast<double>(pack.weight[r]) * loss;
  }
  return total;
}

TEST(Packs, FiniteDifferencesOfEveryObjective) {
  const auto ids = [](uint64_t seed, int n) { return random_ids(seed, n, 101); };
  const std::vector<Group> groups = {{ids(1, 20), {ids(2, 9), ids(3, 30), ids(4, 1)}},
                                     {ids(5, 1), {ids(6, 12), ids(7, 25), ids(8, 3)}}};
  Pack pack = make_pack(groups);
  for (const Group& g : groups)
    for (const auto& response : g.responses) {
      const int32_t s = pack.sequence.empty() ? 0 : pack.sequence.back() + 1;
      for (size_t t = 0; t < response.size(); ++t) {
        pack.weight[pack.sequence.size()] = 1 / (6 * static_cast<float>(response.size()));  // seq-mean-token-mean
        pack.advantage[pack.sequence.size()] = s % 2 == 0 ? 1.5f : -0.8f;
        pack.sequence.push_back(s);
      }
    }
  const auto rig = toy_rig();
  Learner& learner = rig->learner_for(training_limits(pack));
  learner.score(pack, 0.9f);
  const std::vector<float> base = pack.log_prob;
  const auto weights = to_host(*rig->backend, rig->weights->flat());
  for (const Objective& o : objectives()) {
    SCOPED_TRACE(o.name);
    // Inside the clips and beyond each of them, but not so near that a step of the differences crosses one.
    constexpr std::array shift = {0.0f, 0.1f, -0.1f, 0.6f, -0.6f, 1.5f};
    pack.old_log_prob = pack.ref_log_prob = base;
    for (size_t r = 0; r < base.size(); ++r) {
      const size_t i = o.params.kind == LossKind::gspo ? static_cast<size_t>(pack.sequence[r]) : r;
      pack.old_log_prob[r] -= shift[i % shift.size()];
      pack.ref_log_prob[r] += shift[(r + 2) % shift.size()];
    }
    if (o.params.kl_coef == 0) pack.ref_log_prob.clear();
    learner.zero_gradients();
    learner.train(pack, 0.9f, o.params);
    EXPECT_NEAR(value_of(pack, base, o.params),
                std::inner_product(pack.loss.begin(), pack.loss.end(), pack.weight.begin(), 0.0), 1e-5);
    const auto gradient = to_host(*rig->backend, learner.gradients());
    double norm = 0;
    for (const float g : gradient) norm += static_cast<double>(g) * static_cast<double>(g);
    norm = std::sqrt(norm);
    ASSERT_GT(norm, 1e-3);
    const auto value_at = [&](double step) {
      std::vector<float> moved = weights;
      for (size_t i = 0; i < moved.size(); ++i)
        moved[i] = static_cast<float>(static_cast<double>(weights[i]) + step * static_cast<double>(gradient[i]) / norm);
      rig->backend->copy_in(rig->weights->flat(), moved.data());
      learner.score(pack, 0.9f);
      rig->backend->copy_in(rig->weights->flat(), weights.data());
      return value_of(pack, base, o.params);
    };
    const double h = 0.003, slope = (value_at(h) - value_at(-h)) / (2 * h);
    // f32 log-probs of about 5 are off by 1e-6, over 2 h; the third derivative adds about h^2.
    EXPECT_NEAR(slope, norm, 2e-3 * norm + 2e-4);
  }
}

}  // namespace
}  // namespace dapo
