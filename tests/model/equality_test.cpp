// Equalities that must always hold (docs/design.md 9), most of them to the bit.
#include "tests/model/roll_out.h"

namespace dapo {
namespace {

class Equality : public testing::TestWithParam<DType> {
 protected:
  void SetUp() override { SKIP_WITHOUT(GetParam()); }
};

TEST_P(Equality, RolloutLogProbsAreTrainingLogProbs) {
  const auto rig = toy_rig(toy_config(), GetParam());
  const bool slow = rig->backend->device() == Device::cuda;  // perhaps the simulator
  const int count = slow ? 66 : 90;
  const auto prompt = random_ids(11, 100, 101);
  Group group{prompt, std::vector<std::vector<int32_t>>(5, std::vector<int32_t>(static_cast<size_t>(count), 0))};
  ModelLimits limits = rollout_limits();
  const Pack shape = make_pack({group}), copies = make_pack({group}, {.share_prompt = false});
  const ModelLimits training = training_limits(copies);
  limits.pack_tokens = training.pack_tokens, limits.pack_segments = training.pack_segments;
  limits.pack_head_rows = training.pack_head_rows, limits.train = true;
  rig->reserve(limits);
  const Sampling sampling{.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.01f, .seed = 123};
  const Rolled whole = roll_out(*rig->decoder, prompt, 5, count, 300, sampling);
  for (int chunk : slow ? std::vector{37} : std::vector{64, 37, 1}) {
    const Rolled other = roll_out(*rig->decoder, prompt, 5, count, chunk, sampling);
    EXPECT_EQ(whole.tokens, other.tokens) << "prefill in chunks of " << chunk;
    EXPECT_EQ(whole.log_prob, other.log_prob) << "prefill in chunks of " << chunk;
  }
  const Rolled alone = roll_out(*rig->decoder, prompt, 1, count, 300, sampling, 3);
  EXPECT_EQ(whole.tokens[3], alone.tokens[0]) << "a sample does not depend on its batch";
  EXPECT_EQ(whole.log_prob[3], alone.log_prob[0]);
  EXPECT_NE(whole.tokens[0], whole.tokens[1]);

  group.responses = whole.tokens;
  std::vector<float> flat;
  for (const auto& l : whole.log_prob) flat.insert(flat.end(), l.begin(), l.end());
  rig->learner->begin();
  Pack pack = make_pack({group});
  rig->learner->score(pack, 0.8f);
  EXPECT_EQ(pack.log_prob, flat) << "scored in segments";
  pack.old_log_prob = flat;
  rig->learner->train(pack, 0.8f, {});
  EXPECT_EQ(pack.log_prob, flat) << "trained in segments";
  for (size_t i = 0; i < pack.loss.size(); ++i) ASSERT_EQ(pack.loss[i], -pack.advantage[i]) << "ratio 1";
}

TEST_P(Equality, RecomputeChangesNoBit) {
  std::vector<float> gradients[2], log_probs[2];
  for (bool recompute : {false, true}) {
    const auto rig = toy_rig(toy_config(), GetParam());
    Pack pack = make_pack(some_groups());
    give_losses(pack);
    ModelLimits limits = training_limits(pack);
    limits.recompute = recompute;
    rig->learner_for(limits);
    rig->learner->train(pack, 1.0f, {});
    gradients[recompute] = to_host(*rig->backend, rig->learner->gradients());
    log_probs[recompute] = pack.log_prob;
  }
  EXPECT_EQ(gradients[0], gradients[1]);
  EXPECT_EQ(log_probs[0], log_probs[1]);
}

TEST_P(Equality, AStepRepeatsToTheBitWhereverItsStateLies) {
  std::vector<float> weights[2];
  for (auto& w : weights) {
    const auto rig = toy_rig(toy_config(), GetParam());
    Pack pack = make_pack(some_groups());
    give_losses(pack);
    ModelLimits limits = training_limits(pack);
    limits.offload_optimizer = &w == &weights[1];
    const MemoryPlan plan = plan_memory(*rig->backend, toy_config(), limits);
    EXPECT_EQ(limits.offload_optimizer ? plan.state : plan.host, 0u);
    EXPECT_GT(limits.offload_optimizer ? plan.host : plan.state, 0u);
    rig->learner_for(limits);
    for (int step = 1; step <= 2; ++step) {
      rig->learner->train(pack, 1.0f, {});
      rig->learner->update({.lr = 1e-2f,
                            .beta1 = 0.9f,
                            .beta2 = 0.999f,
                            .eps = 1e-8f,
                            .weight_decay = 0.1f,
                            .step = step,
                            .max_norm = 1});
    }
    w = rig->learner->masters();
  }
  EXPECT_EQ(weights[0], weights[1]);
}

INSTANTIATE_TEST_SUITE_P(Types, Equality, testing::Values(DType::f32, DType::bf16),
                         [](const auto& i) { return std::string(dtype_name(i.param)); });

TEST(Packs, ManyPacksEqualOne) {
  const auto groups = some_groups();
  Pack whole = make_pack(groups);
  give_losses(whole);
  const auto rig = toy_rig();
  rig->learner_for(training_limits(whole));
  rig->learner->train(whole, 1.0f, {});
  const auto want = to_host(*rig->backend, rig->learner->gradients());
  rig->backend->zero(rig->learner->gradients());
  size_t at = 0;
  for (const Group& g : groups) {
    Pack part = make_pack({g});
    for (size_t i = 0; i < part.head_rows.size(); ++i) {
      part.weight[i] = whole.weight[at + i], part.advantage[i] = whole.advantage[at + i];
      part.old_log_prob.push_back(whole.old_log_prob[at + i]);
    }
    rig->learner->train(part, 1.0f, {});
    for (size_t i = 0; i < part.head_rows.size(); ++i)
      ASSERT_EQ(part.log_prob[i], whole.log_prob[at + i]) << "row " << at + i;
    at += part.head_rows.size();
  }
  // Each gradient is an f32 sum of about 450 products in another order: sqrt(450) * 2^-24, times a few.
  EXPECT_LE(relative_norm(to_host(*rig->backend, rig->learner->gradients()), want), 5e-6);
}

/// The same sequences without prefixes: prompt and response in one segment. Sums over keys are cut at other places, so
/// results agree within rounding only; a wrong position or mask of a token with a prefix would exceed that.
TEST(Packs, APrefixEqualsTheStartOfTheSequence) {
  const auto groups = some_groups();
  Pack shared = make_pack(groups), plain;
  give_losses(shared);
  for (const Group& g : groups)
    for (const auto& response : g.responses) {
      const auto begin = static_cast<int32_t>(plain.ids.size()), prompt = static_cast<int32_t>(g.prompt.size());
      plain.ids.insert(plain.ids.end(), g.prompt.begin(), g.prompt.end());
      plain.ids.insert(plain.ids.end(), response.begin(), response.end());
      plain.segments.push_back({begin, static_cast<int32_t>(plain.ids.size()) - begin, -1});
      for (size_t i = 0; i < response.size(); ++i) {
        plain.head_rows.push_back(begin + prompt - 1 + static_cast<int32_t>(i));
        plain.targets.push_back(response[i]);
      }
    }
  plain.advantage = shared.advantage, plain.weight = shared.weight, plain.old_log_prob = shared.old_log_prob;
  ASSERT_EQ(plain.targets, shared.targets);
  const auto rig = toy_rig();
  ModelLimits limits = training_limits(plain);
  limits.pack_segments = static_cast<int64_t>(shared.segments.size());
  rig->learner_for(limits);
  rig->learner->train(shared, 1.0f, {});
  const auto want = to_host(*rig->backend, rig->learner->gradients());
  rig->backend->zero(rig->learner->gradients());
  rig->learner->train(plain, 1.0f, {});
  for (size_t i = 0; i < plain.head_rows.size(); ++i) EXPECT_NEAR(plain.log_prob[i], shared.log_prob[i], 2e-5) << i;
  EXPECT_LE(relative_norm(to_host(*rig->backend, rig->learner->gradients()), want), 1e-5);
}

TEST(Packs, ASharedPromptEqualsCopies) {
  const auto groups = some_groups();
  Pack shared = make_pack(groups), copies = make_pack(groups, {.share_prompt = false});
  give_losses(shared);
  give_losses(copies);
  const auto rig = toy_rig();
  rig->learner_for(training_limits(copies));
  rig->learner->train(shared, 1.0f, {});
  const auto want = to_host(*rig->backend, rig->learner->gradients());
  rig->backend->zero(rig->learner->gradients());
  rig->learner->train(copies, 1.0f, {});
  EXPECT_EQ(shared.log_prob, copies.log_prob);
  EXPECT_EQ(shared.entropy, copies.entropy);
  EXPECT_LE(relative_norm(to_host(*rig->backend, rig->learner->gradients()), want), 5e-6);  // as above
}

TEST(Update, ANonFiniteNormChangesNothing) {
  Pack pack = make_pack(some_groups());
  const auto rig = toy_rig();
  Learner& learner = rig->learner_for(training_limits(pack));
  learner.train(pack, 1.0f, {});
  const auto before = to_host(*rig->backend, rig->weights->flat());
  const float bad = std::numeric_limits<float>::quiet_NaN();
  rig->backend->copy_in(learner.gradients().rows(17, 1), &bad);
  const AdamW adamw{
      .lr = 1e-2f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.1f, .step = 1, .max_norm = 1};
  const auto result = learner.update(adamw);
  EXPECT_FALSE(result.applied);
  EXPECT_EQ(to_host(*rig->backend, rig->weights->flat()), before);
  for (const Tensor& t : {learner.gradients(), learner.moment1(), learner.moment2()})
    for (float v : to_host(*rig->backend, t)) ASSERT_EQ(v, 0.0f);
}

TEST(Update, BfloatMastersMoveByLessThanABfloatStep) {
  SKIP_WITHOUT(DType::bf16);
  Pack pack = make_pack(some_groups());
  const auto rig = toy_rig(toy_config(), DType::bf16);
  Learner& learner = rig->learner_for(training_limits(pack));
  const auto before = learner.masters();
  learner.train(pack, 1.0f, {});
  const AdamW adamw{
      .lr = 1e-6f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0, .step = 1, .max_norm = 0};
  EXPECT_TRUE(learner.update(adamw).applied);
  const auto after = learner.masters();
  double moved = 0;
  for (size_t i = 0; i < after.size(); ++i)
    moved = std::max(moved, std::abs(static_cast<double>(after[i]) - static_cast<double>(before[i])));
  EXPECT_GT(moved, 5e-7);
  EXPECT_LT(moved, 2e-6);
}

}  // namespace
}  // namespace dapo
