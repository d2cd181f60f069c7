// The gradient of each parameter against central differences of the loss.
#include "tests/model/rig.h"

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

}  // namespace
}  // namespace dapo
