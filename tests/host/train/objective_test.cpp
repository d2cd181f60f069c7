// DAPO's arithmetic against verl's own functions (goldens) and the paper's numbers.
#include "host/train/objective.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/choices.h"
#include "tests/testdata.h"

namespace dapo {
namespace {

using nlohmann::json;

std::vector<json> goldens(const std::string& path, const char* kind) {
  std::vector<json> out;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    json j = json::parse(line);
    if (j["kind"] == kind) out.push_back(std::move(j));
  }
  return out;
}

void expect_advantages(const std::string& path) {
  SCOPED_TRACE(path);
  size_t cases = 0;
  for (const json& j : goldens(path, "advantage")) {
    ++cases;
    const auto group = j["group"].get<std::vector<int>>();
    const auto reward = j["reward"].get<std::vector<double>>(), want = j["advantage"].get<std::vector<double>>();
    for (size_t i = 0; i < group.size(); ++i) {
      std::vector<double> of_group;
      size_t place = 0;
      for (size_t k = 0; k < group.size(); ++k)
        if (group[k] == group[i]) {
          if (k == i) place = of_group.size();
          of_group.push_back(reward[k]);
        }
      const auto a = group_advantages(of_group, j["norm_adv_by_std"].get<bool>());
      EXPECT_NEAR(a[place], want[i], 2e-5 * std::max(1.0, std::abs(want[i]))) << "case " << cases << " response " << i;
    }
  }
  EXPECT_GE(cases, 30u);
}

const std::vector<std::string>& loss_files() {
  static const auto files = golden_files("loss/loss.jsonl", "goldens/dapo_loss.jsonl");
  return files;
}

TEST(Advantage, EqualsVerls) {
  for (const std::string& path : loss_files()) expect_advantages(path);
}

TEST(Advantage, PapersExample) {
  std::vector<double> r(16, -1.0);
  r[3] = 1.0;
  const auto a = group_advantages(r, true);
  EXPECT_NEAR(a[3], 3.750, 5e-4);
  EXPECT_NEAR(a[0], -0.250, 5e-4);
  const auto b = group_advantages(r, false);
  EXPECT_DOUBLE_EQ(b[3], 1.875);
  EXPECT_DOUBLE_EQ(b[0], -0.125);
  for (double x : group_advantages(std::vector<double>(8, 1.0), true)) EXPECT_EQ(x, 0.0);
}

/// Our loss / verl's: verl divides by a normaliser that the caller passes (tokens or sequences of the whole batch),
/// ours counts its own mini-batch. For seq-mean-token-sum-norm verl divides the sum by the padded length alone, ours by
/// the responses as well (Dr. GRPO's equation; TRL's dr_grpo).
double scale_of(const json& j, const std::vector<int>& lengths, LossAgg agg) {
  const json& n = j["normalizer"];
  double tokens = 0, rows = 0;
  for (int l : lengths) tokens += l, rows += l > 0;
  if (agg == LossAgg::seq_mean_token_sum_norm) return 1.0 / lengths.size();
  if (agg == LossAgg::token_mean)
    return n.contains("batch_num_tokens") ? n["batch_num_tokens"].get<double>() / tokens : 1;
  return n.contains("global_batch_size") ? n["global_batch_size"].get<double>() / rows : 1;
}

void expect_losses(const std::string& path) {
  SCOPED_TRACE(path);
  size_t cases = 0, constant_length = 0;
  for (const json& j : goldens(path, "policy_loss")) {
    const LossAgg agg = parse_choice<LossAgg>("loss_agg_mode", j["loss_agg_mode"].get<std::string>());
    ++cases;
    constant_length += agg == LossAgg::seq_mean_token_sum_norm;
    const auto lp = j["log_prob"].get<std::vector<std::vector<double>>>();
    const auto old = j["old_log_prob"].get<std::vector<std::vector<double>>>();
    const auto dlogp = j["dloss_dlog_prob"].get<std::vector<std::vector<double>>>();
    const auto advantage = j["advantages"].get<std::vector<double>>();
    const auto lengths = j["lengths"].get<std::vector<int>>();
    const DapoLoss p{j["clip_ratio_low"], j["clip_ratio_high"], j["clip_ratio_c"], 20.0f};
    const auto w = loss_weights(agg, lengths, {}, lp[0].size());
    const double scale = scale_of(j, lengths, agg);
    LossStats s;
    double size = 0;
    for (size_t i = 0; i < lp.size(); ++i) {
      for (int k = 0; k < lengths[i]; ++k) {
        const float a = lp[i][k], b = old[i][k], weight = w[i];
        const TokenLoss t = token_loss(a, b, advantage[i], p);
        const float zero = 0;
        add_loss_stats(s, {&a, 1}, {&b, 1}, {&zero, 1}, {&t.loss, 1}, {&weight, 1}, {&t.clip, 1});
        // f32 log-probs of about 8 nats are exact to 5e-7, and so the ratio to a relative 5e-7
        const double want = dlogp[i][k] * scale, got = w[i] * t.dlogp;
        EXPECT_NEAR(got, want, 5e-6 * std::max(1.0, std::abs(want))) << "case " << cases << ", " << i << ", " << k;
        size += std::abs(w[i] * t.loss);
      }
    }
    EXPECT_NEAR(s.loss, j["loss"].get<double>() * scale, 5e-6 * std::max(1.0, size)) << "case " << cases;
    const double n = std::max<int64_t>(s.tokens, 1);
    EXPECT_NEAR(s.kl / n, j["ppo_kl"].get<double>(), 2e-6);
    // verl counts tokens whose clipped branch was the larger one before the dual clip, and separately those of the
    // dual clip (A < 0 only)
    EXPECT_NEAR(s.dual / n, j["clipfrac_lower"].get<double>(), 1e-6) << "case " << cases;
    EXPECT_LE((s.low + s.high) / n, j["clipfrac"].get<double>() + 1e-6) << "case " << cases;
    EXPECT_GE((s.low + s.high + s.dual) / n, j["clipfrac"].get<double>() - 1e-6) << "case " << cases;
  }
  EXPECT_GE(cases, 60u);
  EXPECT_GE(constant_length, 15u);
}

TEST(Loss, EqualsVerls) {
  for (const std::string& path : loss_files()) expect_losses(path);
}

TEST(Loss, WeightsSumToOne) {
  const std::vector<int> tokens = {5, 0, 1, 10}, packs = {0, 0, 1, 1};
  const auto sum = [&](LossAgg agg) {
    const auto w = loss_weights(agg, tokens, packs, 20);
    EXPECT_EQ(w[1], 0.0);
    double s = 0;
    for (size_t i = 0; i < w.size(); ++i) s += w[i] * tokens[i];
    return s;
  };
  EXPECT_DOUBLE_EQ(sum(LossAgg::token_mean), 1);
  EXPECT_DOUBLE_EQ(sum(LossAgg::seq_mean_token_mean), 1);
  EXPECT_DOUBLE_EQ(sum(LossAgg::seq_mean_token_sum), 16.0 / 3);
  EXPECT_DOUBLE_EQ(sum(LossAgg::token_mean_per_micro_batch), 1);
  EXPECT_DOUBLE_EQ(sum(LossAgg::seq_mean_token_sum_norm), 16.0 / (4 * 20));  // the masked response counts
  EXPECT_DOUBLE_EQ(loss_weights(LossAgg::token_mean_per_micro_batch, tokens, packs)[0], 2 / (4 * 5.0));
  EXPECT_DOUBLE_EQ(loss_weights(LossAgg::token_mean_per_micro_batch, tokens, packs)[3], 2 / (4 * 11.0));
  for (double w : loss_weights(LossAgg::token_mean, std::vector<int>{0, 0}, {})) EXPECT_EQ(w, 0.0);
}

TEST(Loss, MicroBatchMeansAreOfResponsesAsInThePublishedRun) {
  // 40 responses of 500 tokens in one pack and 2 of 10,000 in another: verl 4f80e465 gives the token of a short one 20
  // times the weight of a long one's (4.76e-5 and 2.38e-6); a mean over packs would give both 2.5e-5.
  std::vector<int> tokens(40, 500), packs(40, 0);
  for (int i = 0; i < 2; ++i) tokens.push_back(10000), packs.push_back(1);
  const auto w = loss_weights(LossAgg::token_mean_per_micro_batch, tokens, packs);
  EXPECT_NEAR(w[0], 4.7619e-5, 1e-9);
  EXPECT_NEAR(w[41], 2.38095e-6, 1e-10);
}

TEST(Shaping, SoftOverlongPunishment) {
  EXPECT_EQ(overlong_penalty(36, 48, 12, 1), 0);
  EXPECT_DOUBLE_EQ(overlong_penalty(37, 48, 12, 1), -1.0 / 12);
  EXPECT_DOUBLE_EQ(overlong_penalty(42, 48, 12, 0.5), -0.25);
  EXPECT_EQ(overlong_penalty(48, 48, 12, 1), -1);
  EXPECT_EQ(overlong_penalty(60, 48, 12, 1), -1);  // clamped
  EXPECT_EQ(overlong_penalty(20480, 20480, 4096, 1), -1);
  EXPECT_EQ(overlong_penalty(16384, 20480, 4096, 1), 0);
  EXPECT_EQ(overlong_penalty(48, 48, 0, 1), 0);
}

TEST(Filter, MixedGroupsOnly) {
  EXPECT_FALSE(mixed_group(std::vector<uint8_t>{0, 0, 0}));
  EXPECT_FALSE(mixed_group(std::vector<uint8_t>{1, 1, 1}));
  EXPECT_TRUE(mixed_group(std::vector<uint8_t>{1, 0, 1}));
  EXPECT_FALSE(mixed_group(std::vector<uint8_t>{1}));
}

TEST(Schedule, LearningRates) {
  ActorSection a;
  a.lr = 1e-6;
  a.lr_warmup_steps = 20;
  EXPECT_DOUBLE_EQ(learning_rate(a, 1, 100), 1e-6 / 20);
  EXPECT_DOUBLE_EQ(learning_rate(a, 20, 100), 1e-6);
  EXPECT_DOUBLE_EQ(learning_rate(a, 90, 100), 1e-6);
  a.lr_schedule = LrSchedule::linear;
  EXPECT_DOUBLE_EQ(learning_rate(a, 21, 100), 1e-6);
  EXPECT_DOUBLE_EQ(learning_rate(a, 61, 100), 0.5e-6);
  EXPECT_GT(learning_rate(a, 100, 100), 0);
  EXPECT_NEAR(learning_rate(a, 101, 100), 0, 1e-20);
  a.lr_schedule = LrSchedule::cosine;
  EXPECT_DOUBLE_EQ(learning_rate(a, 61, 100), 0.5e-6);
  a.lr_warmup_steps = 0;
  EXPECT_DOUBLE_EQ(learning_rate(a, 1, 100), 1e-6);
  SftSection s;  // ../shared/tools/chain_reference.py: lr * min(1, (i + 1) / 50, 4 * (1 - i / steps))
  s.lr = 3e-3;
  s.steps = 500;
  for (int i : {0, 10, 49, 100, 374, 376, 499})
    EXPECT_DOUBLE_EQ(sft_learning_rate(s, i + 1), 3e-3 * std::min({1.0, (i + 1) / 50.0, 4 * (1 - i / 500.0)})) << i;
}

TEST(Yield, OverSamplesByWhatIsKept) {
  const YieldEstimate none, all{512, 512}, half{256, 512}, zero{0, 32}, little{4, 8};
  EXPECT_EQ(generation_size(32, 32, none), 32);  // nothing is known yet: as many as are needed
  EXPECT_EQ(generation_size(32, 32, all), 32);
  EXPECT_EQ(generation_size(0, 32, half), 0);
  // n / 2 - 2 sqrt(n / 4 (1 + n / 512)) >= 32 from 84 on
  EXPECT_EQ(generation_size(32, 32, half), 84);
  EXPECT_EQ(generation_size(32, 32, zero), 128);  // at most four times as many as were drawn before
  EXPECT_EQ(generation_size(32, 512, all), 64);   // never a small batch: each waits for its longest response
  EXPECT_EQ(generation_size(1, 512, all), 64);
  EXPECT_GT(generation_size(8, 8, little),
            generation_size(8, 8, {32, 64}));  // the smaller the sample, the wider the margin
  YieldEstimate y;
  EXPECT_EQ(y.value(), 1);
  add_batch(y, 154, 512, 512);
  EXPECT_NEAR(y.value(), 154.0 / 512, 1e-12);  // the first batch counts in full
  for (int i = 0; i < 100; ++i) add_batch(y, 8, 32, 32);
  EXPECT_NEAR(y.value(), 0.25, 1e-3);
}

TEST(Yield, TheLimitCountsPromptsAsThePapersDoes) {
  Config c;
  EXPECT_EQ(prompt_limit(c.algorithm, c.data), 10 * 3 * 512);
  c.data.gen_batch_size = 100;
  EXPECT_EQ(prompt_limit(c.algorithm, c.data), 1000);
}

TEST(Surplus, IsBankedOnlyWhereItIsSmallOrAskedFor) {
  Config c;
  EXPECT_TRUE(banks_surplus(c.algorithm, c.data));
  c.data.gen_batch_size = 3 * c.data.train_batch_size;  // as in the paper: two thirds of a step would be older groups
  EXPECT_FALSE(banks_surplus(c.algorithm, c.data));
  c.algorithm.surplus = Surplus::bank;
  EXPECT_TRUE(banks_surplus(c.algorithm, c.data));
  c.algorithm.max_age = 0;
  EXPECT_FALSE(banks_surplus(c.algorithm, c.data));
}

TEST(Stats, NonFiniteIsSeen) {
  const float good = 1, nan = std::numeric_limits<float>::quiet_NaN();
  const uint8_t clip = 0;
  LossStats s;
  add_loss_stats(s, {&good, 1}, {&good, 1}, {&good, 1}, {&good, 1}, {&good, 1}, {&clip, 1});
  EXPECT_TRUE(s.finite);
  add_loss_stats(s, {&good, 1}, {&good, 1}, {&good, 1}, {&nan, 1}, {&good, 1}, {&clip, 1});
  EXPECT_FALSE(s.finite);
  Agreement a;
  a.compare(-1.0f, -1.0f);
  EXPECT_EQ(a.mismatch, 0);
  a.compare(-1.0f, -1.5f);
  EXPECT_EQ(a.mismatch, 0.5);
  EXPECT_DOUBLE_EQ(a.ratio, 1 - std::exp(-0.5));
  a.compare(-1.0f, nan);
  EXPECT_EQ(a.tokens, 3);
  EXPECT_TRUE(std::isinf(a.mismatch));
}

}  // namespace
}  // namespace dapo
