// The objectives beside DAPO: each preset's loss, gradient and advantages against verl's and TRL's own functions
// (tests/goldens/objectives/make.py), and whole steps with a reference and an entropy bonus.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "core/choices.h"
#include "host/train/settings_table.h"
#include "tests/host/train/trainer_case.h"
#include "tests/ops/run_case.h"

namespace dapo {
namespace {

using nlohmann::json;
using Rows = std::vector<std::vector<float>>;

std::vector<json> vectors(const std::string& kind) {
  std::vector<json> out;
  std::ifstream in(golden("objectives/objectives.jsonl"));
  for (std::string line; std::getline(in, line);) {
    json j = json::parse(line);
    if (j.at("kind") == kind) out.push_back(std::move(j));
  }
  return out;
}

Config preset(const std::string& name) {
  Config c;
  apply_settings(c, {"algorithm.preset=" + name});
  return c;
}

/// One number a token, of responses of these lengths.
std::vector<float> tokens_of(const json& rows, const std::vector<int>& lengths) {
  std::vector<float> out;
  for (size_t i = 0; i < lengths.size(); ++i)
    for (int t = 0; t < lengths[i]; ++t) out.push_back(rows[i][t]);
  return out;
}

TEST(Objectives, LossAndGradientOfEachPresetAreTheReferences) {
  std::map<std::string, int> cases, clipped;
  for (const json& j : vectors("loss")) {
    const std::string name = j.at("preset");
    SCOPED_TRACE(j.at("source").get<std::string>() + " " + name + " " + j.at("lengths").dump());
    const Config c = preset(name);
    const DapoLoss params = loss_of(c.actor);
    const std::vector<int> lengths = j.at("lengths");
    const std::vector<float> log_prob = tokens_of(j.at("log_prob"), lengths),
                             old = tokens_of(j.at("old_log_prob"), lengths),
                             ref = tokens_of(j.at("ref_log_prob"), lengths),
                             want = tokens_of(j.at("dloss_dlog_prob"), lengths);
    const std::vector<float> advantages = j.at("advantages");
    std::vector<int32_t> response;
    for (size_t i = 0; i < lengths.size(); ++i) response.insert(response.end(), lengths[i], i);
    const std::vector<double> weights =
        loss_weights(c.actor.loss_agg_mode, lengths, {}, *std::max_element(lengths.begin(), lengths.end()));
    const std::vector<float> ratio = sequence_log_ratios(log_prob, old, response);
    double loss = 0;
    for (size_t r = 0; r < log_prob.size(); ++r) {
      const TokenInputs in{&old[r], c.actor.policy_loss == LossKind::gspo ? &ratio[r] : nullptr,
                           c.actor.kl_loss_coef > 0 ? &ref[r] : nullptr};
      const TokenLoss l = objective_loss(log_prob[r], 0, advantages[response[r]], in, params);
      loss += weights[response[r]] * l.loss;
      // A ratio of f32 log-probs is off by about 1e-6.
      EXPECT_NEAR(weights[response[r]] * l.dlogp, want[r], 3e-6 * std::abs(want[r]) + 2e-8) << "token " << r;
      clipped[name] += l.clip != kNotClipped;
    }
    EXPECT_NEAR(loss, j.at("loss").get<double>(), 3e-6 * (std::abs(loss) + 1));
    ++cases[name];
  }
  for (const PresetInfo& p : all_presets()) {
    const std::string name(choice_name(p.preset));
    if (p.preset == Preset::dapo) continue;  // dapo_loss_test.cpp
    EXPECT_GE(cases[name], 4) << name;
    EXPECT_EQ(clipped[name] > 2, p.preset != Preset::rloo) << name;
  }
}

TEST(Objectives, KlOfATokenIsTheReferences) {
  size_t rows = 0;
  for (const json& j : vectors("kl")) {
    const auto kind = parse_choice<KlKind>("estimate", j.at("estimate").get<std::string>());
    for (const json& row : j.at("rows")) {
      const KlTerm kl = kl_term(row[0], row[1], kind);
      EXPECT_NEAR(kl.value, row[2].get<double>(), 2e-6 * std::abs(row[2].get<double>()) + 1e-9) << j["source"] << row;
      EXPECT_NEAR(kl.dlogp, row[3].get<double>(), 2e-6 * std::abs(row[3].get<double>()) + 1e-9) << j["source"] << row;
      ++rows;
    }
  }
  EXPECT_GE(rows, 30u);
  EXPECT_EQ(kl_term(-40, -1, KlKind::k3).dlogp, 0.0f);  // beyond the clamp
  EXPECT_TRUE(std::isfinite(kl_term(-400, -1, KlKind::k3).value));
}

// The head is the identity: its inputs are the logits, and their gradient is that of the logits.
TEST(Objectives, GradientOfLogitsWithKlAndEntropyBonusIsVerls) {
  const auto backend = make_cpu_backend(DType::f32);
  const auto cases = vectors("head");
  ASSERT_EQ(cases.size(), 4u);
  for (const json& j : cases) {
    std::vector<float> x = j.at("logits"), old = j.at("old_log_prob"), ref = j.at("ref_log_prob");
    std::vector<int32_t> targets = j.at("targets");
    const int64_t rows = targets.size(), vocab = x.size() / rows;
    ASSERT_GT(vocab, 0);
    std::vector<float> head(vocab * vocab), dx(x.size()), dhead(head.size()), advantage(rows, j.at("advantage"));
    for (int64_t i = 0; i < vocab; ++i) head[i * vocab + i] = 1;
    std::vector<float> weight(rows, 1.0f / rows), log_prob(rows), entropy(rows), loss(rows);
    std::vector<uint8_t> clip(rows);
    WorkspaceNeeds needs{};
    needs.attention = {1, 1, 16};
    needs.hidden = needs.vocab = vocab, needs.max_head_rows = rows;
    const ops::ScopedWorkspace workspace(*backend, needs);
    const auto matrix = [&](std::vector<float>& v) {
      return Tensor::of(std::span(v)).view({std::ssize(v) / vocab, vocab});
    };
    const DapoLoss params{.dual_clip = 0,
                          .kl = parse_choice<KlKind>("estimate", j.at("estimate").get<std::string>()),
                          .kl_coef = j.at("kl_coef"),
                          .entropy_coef = j.at("entropy_coef")};
    backend->lm_dapo(matrix(dx), matrix(dhead), Tensor::of(std::span(log_prob)), Tensor::of(std::span(entropy)),
                     Tensor::of(std::span(loss)), Tensor::of(std::span(clip)), matrix(x), matrix(head),
                     Tensor::of(std::span(targets)), Tensor::of(std::span(old)), Tensor::of(std::span(advantage)),
                     Tensor::of(std::span(weight)), {}, Tensor::of(std::span(ref)), j.at("temperature"), params);
    double sum = 0;
    for (int64_t r = 0; r < rows; ++r) sum += double{weight[r]} * loss[r];
    EXPECT_NEAR(sum, j.at("loss").get<double>(), 2e-6);
    for (size_t i = 0; i < dx.size(); ++i) EXPECT_NEAR(dx[i], j.at("dlogits")[i].get<double>(), 1e-6) << i;
  }
}

TEST(Objectives, AdvantagesOfEachPresetAreVerls) {
  std::set<std::string> estimators;
  for (const json& j : vectors("advantage")) {
    const std::string name = j.at("preset");
    SCOPED_TRACE(name + " " + j.at("source").get<std::string>());
    AlgorithmSection a;
    if (name == "adv_estimator")
      a.adv_estimator = parse_choice<AdvEstimator>("estimator", j.at("estimator").get<std::string>());
    else
      a = preset(name).algorithm;
    const std::vector<double> rewards = j.at("rewards"), want = j.at("advantages");
    const std::vector<int> tokens = j.at("tokens");
    const std::vector<double> got = step_advantages(a, rewards, tokens, j.at("group"));
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 2e-6 * std::max(1.0, std::abs(want[i]))) << i;
    estimators.insert(j.at("estimator"));
  }
  EXPECT_EQ(estimators.size(), 4u);
  EXPECT_EQ(leave_one_out_advantages(std::vector<double>{3.0}), std::vector<double>{3.0});
  EXPECT_EQ(leave_one_out_advantages(std::vector<double>{1, 0, 0, 0}),
            (std::vector<double>{1, -1.0 / 3, -1.0 / 3, -1.0 / 3}));
}

/// Weights beside those of a toy.
std::unique_ptr<Weights> reference_beside(Toy& toy, const std::vector<float>& values) {
  auto weights = std::make_unique<Weights>(*toy.backend, toy.comm, Toy::shapes());
  toy.set(weights->flat(), values);
  return weights;
}

Config toy_preset(const std::string& name) {
  Config c = toy_config();
  apply_settings(c, {"algorithm.preset=" + name, "reward.overlong_buffer=false"});
  c.actor.ppo_epochs = 2;
  return c;
}

// Two steps of each: rewards go up, and the loss of every token is the preset's, by the log-probs of the pack.
TEST(Objectives, AStepTrainsOnThePresetsLoss) {
  for (const PresetInfo& info : all_presets()) {
    const std::string name(choice_name(info.preset));
    SCOPED_TRACE(name);
    const Config c = toy_preset(name);
    Case run(c, questions("a"), guesser());
    const auto reference = reference_beside(run.toy, guesser());
    if (c.actor.kl_loss_coef > 0) run.trainer.use_reference(*reference);
    const DapoLoss params = loss_of(c.actor);
    int64_t tokens = 0;
    run.trainer.after_pack = [&](Pack& p) {
      ASSERT_EQ(p.ref_log_prob.empty(), c.actor.kl_loss_coef == 0);
      const std::vector<float> ratio = sequence_log_ratios(p.log_prob, p.old_log_prob, p.sequence);
      for (size_t r = 0; r < p.log_prob.size(); ++r) {
        const TokenInputs in{&p.old_log_prob[r], c.actor.policy_loss == LossKind::gspo ? &ratio[r] : nullptr,
                             c.actor.kl_loss_coef > 0 ? &p.ref_log_prob[r] : nullptr};
        const TokenLoss l = objective_loss(p.log_prob[r], p.entropy[r], p.advantage[r], in, params);
        EXPECT_NEAR(p.loss[r], l.loss, 2e-6f * std::abs(l.loss) + 1e-6f);
        EXPECT_EQ(p.clip[r], l.clip);
        ++tokens;
      }
    };
    const StepMetrics first = run.trainer.step(), second = run.trainer.step();
    EXPECT_GT(tokens, 100);
    EXPECT_EQ(first.mismatch, 0);
    EXPECT_EQ(second.mismatch, 0);
    EXPECT_GT(second.acc, first.acc);
    EXPECT_EQ(std::isnan(first.ref_kl), c.actor.kl_loss_coef == 0);
    if (c.actor.kl_loss_coef > 0) {
      EXPECT_GT(second.ref_kl, first.ref_kl);
      EXPECT_GT(first.ref_kl, 0);  // the first update moves the policy off the reference
    }
  }
}

// The reference is the policy at first: all its log-probs are the rollout's, bit for bit, and the KL has no gradient.
TEST(Objectives, TheReferencesLogProbsAreThoseOfItsWeights) {
  Config c = toy_config();
  c.actor.kl_loss_coef = 0.5;
  c.actor.ppo_mini_batch_size = c.data.train_batch_size;
  const auto train = [&](const Config& config, bool with, int steps) {
    Case run(config, questions("a"), guesser());
    const auto reference = reference_beside(run.toy, guesser());
    if (with) run.trainer.use_reference(*reference);
    run.trainer.after_pack = [&](Pack& p) {
      if (!with || run.trainer.state().step > 0) return;
      EXPECT_TRUE(same_bits(p.ref_log_prob, p.log_prob));
    };
    for (int i = 0; i < steps; ++i) run.trainer.step();
    return run.weights();
  };
  Config without = c;
  without.actor.kl_loss_coef = 0;
  EXPECT_TRUE(same_bits(train(c, true, 1), train(without, false, 1)));
  EXPECT_FALSE(same_bits(train(c, true, 2), train(without, false, 2)));
  // Pulled hard, the policy stays near the reference; free, it does not.
  const auto distance = [&](const std::vector<float>& w) {
    double sum = 0;
    for (size_t i = 0; i < w.size(); ++i) sum += std::pow(double{w[i]} - guesser()[i], 2);
    return std::sqrt(sum);
  };
  c.actor.kl_loss_coef = 30;
  EXPECT_LT(distance(train(c, true, 6)), 0.7 * distance(train(without, false, 6)));
}

TEST(Objectives, AReferenceThatIsMissingOrNotFiniteIsNeverTrainedOn) {
  Config c = toy_config();
  c.actor.kl_loss_coef = 0.1;
  Case none(c, questions("a"), guesser());
  EXPECT_NE(error_of(kExitInternal, [&] { none.trainer.step(); }).find("use_reference()"), std::string::npos);
  Case run(c, questions("a"), guesser());
  const auto broken = reference_beside(run.toy, std::vector<float>(guesser().size(), NAN));
  run.trainer.use_reference(*broken);
  const std::vector<float> before = run.weights();
  const StepMetrics m = run.trainer.step();
  EXPECT_EQ(m.updates, 0);
  EXPECT_GT(m.updates_refused, 0);
  EXPECT_TRUE(same_bits(run.weights(), before));
}

TEST(Objectives, AReferenceOfOtherShapesIsRefused) {
  ModelConfig a = Toy::shapes(), b = a;
  check_same_shapes(a, b, "models/b");
  a.layers = 3;
  EXPECT_EQ(
      error_of(kExitUsage, [&] { check_same_shapes(a, b, "models/b"); }),
      "models/b: num_hidden_layers is 3, the trained model's is 2: a reference has the shapes of the trained model");
}

TEST(Objectives, TheReferenceIsInThePlan) {
  const Toy toy;
  Config c = toy_config();
  const auto plan = [&] {
    return plan_memory(*toy.backend, Toy::shapes(), training_limits(c, Toy::shapes(), *toy.backend));
  };
  const MemoryPlan without = plan();
  c.actor.kl_loss_coef = 0.1;
  const MemoryPlan with = plan();
  EXPECT_EQ(without.reference, 0u);
  EXPECT_EQ(with.reference, with.weights);
  EXPECT_EQ(with.total(), without.total() + with.reference);
}

// The bonus alone: with rewards that are all the same the advantages are 0, and only the entropy moves.
TEST(Objectives, TheEntropyBonusRaisesTheEntropy) {
  Config c = toy_config();
  c.algorithm.filter_groups = false;
  c.reward.incorrect = 0.999999;
  c.algorithm.norm_adv_by_std = false;
  c.actor.entropy_coeff = 0.1;
  const std::vector<float>& sure = weights_that_say("a");
  Case run(c, questions("a"), sure);
  const double before = run.trainer.step().entropy;
  double after = 0;
  for (int i = 0; i < 4; ++i) after = run.trainer.step().entropy;
  EXPECT_GT(after, 1.2 * before);
}

}  // namespace
}  // namespace dapo
