// DAPO's arithmetic against vectors that verl's, TRL's, transformers' and PyTorch's own functions computed
// (tests/goldens/semantics/make.py).
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "core/choices.h"
#include "cpu/cpu_backend.h"
#include "host/train/objective.h"
#include "host/train/passk.h"
#include "tests/ops/run_case.h"

namespace dapo {
namespace {

using nlohmann::json;

/// Calls `expect` on each case of a file whose field `key` begins with `value`; there must be at least `least`.
void each_vector(const std::string& file, const std::string& key, const std::string& value, size_t least,
                 const std::function<void(const json&)>& expect) {
  const std::string path = "tests/goldens/semantics/" + file;
  std::ifstream in(path);
  ASSERT_TRUE(in) << path << ": tests run in the project's folder";
  std::string line;
  std::getline(in, line);  // the header
  size_t cases = 0;
  for (int number = 2; std::getline(in, line); ++number) {
    const json j = json::parse(line);
    if (!j.at(key).get<std::string>().starts_with(value)) continue;
    SCOPED_TRACE(path + ":" + std::to_string(number) + ", " + j.at("source").get<std::string>());
    expect(j);
    ++cases;
  }
  EXPECT_GE(cases, least) << path << ": cases with " << key << " = " << value;
}

void expect_weights(const json& j) {
  const auto tokens = j.at("tokens").get<std::vector<int>>();
  const auto micro_batch = j.value("micro_batch", std::vector<int>());
  const auto want = j.at("weights").get<std::vector<double>>();
  const auto got = loss_weights(parse_choice<LossAgg>("mode", j.at("mode").get<std::string>()), tokens, micro_batch,
                                j.value("max_length", 0));
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i)
    EXPECT_NEAR(got[i], want[i], 1e-8 * want[i]) << "response " << i;  // verl adds 1e-8 to a count of tokens
}

// The published run's loss, by verl's own update_policy of that commit: micro-batches of unequal size and length, some
// with masked responses, one with nothing else.
TEST(ReferenceVectors, LossPerMicroBatchIsThePublishedRuns) {
  each_vector("loss_weights.jsonl", "mode", "token-mean-per-micro-batch", 11, expect_weights);
}

TEST(ReferenceVectors, LossAggregationsWithMaskedResponses) {
  each_vector("loss_weights.jsonl", "source", "verl b178a3c agg_loss", 44, expect_weights);
  each_vector("loss_weights.jsonl", "source", "TRL", 22, expect_weights);
}

// Both sides of every border of the clips and of the log-ratio's clamp, and far beyond.
TEST(ReferenceVectors, LossOfATokenAndWhatCountsAsClipped) {
  int kinds[4] = {};
  each_vector("token_loss.jsonl", "source", "", 6, [&](const json& j) {
    const DapoLoss p{j.at("clip_low"), j.at("clip_high"), j.at("dual_clip"), 20.0f};
    for (const json& row : j.at("rows")) {
      const float old = row[0], now = row[1], advantage = row[2];
      SCOPED_TRACE(row.dump());
      const TokenLoss t = token_loss(now, old, advantage, p);
      EXPECT_NEAR(t.loss, row[3].get<double>(), 1e-6 * std::abs(row[3].get<double>()));
      EXPECT_NEAR(t.dlogp, row[4].get<double>(), 1e-6 * std::abs(row[4].get<double>()));
      if (row.size() == 5) continue;  // TRL's metrics are those of a batch
      const float one = 1, zero = 0;
      LossStats s;
      add_loss_stats(s, {&now, 1}, {&old, 1}, {&zero, 1}, {&t.loss, 1}, {&one, 1}, {&t.clip, 1});
      EXPECT_NEAR(s.kl, row[5].get<double>(), 1e-6 * std::abs(row[5].get<double>()));
      // verl counts the clipped branch before the dual clip, and the dual clip separately.
      const bool clipped = row[6] == 1, dual = row[7] == 1;
      EXPECT_EQ(s.dual, dual);
      EXPECT_EQ(s.low, clipped && !dual && advantage < 0);
      EXPECT_EQ(s.high, clipped && !dual && advantage > 0);
      ++kinds[t.clip];
    }
  });
  for (const int kind : {kNotClipped, kClippedLow, kClippedHigh, kClippedDual}) EXPECT_GT(kinds[kind], 20) << kind;
}

// The head is the identity: its inputs are the logits, and their gradient is that of the logits.
TEST(ReferenceVectors, LogProbsEntropiesAndTheGradientOfLogits) {
  const auto backend = make_cpu_backend(DType::f32);
  each_vector("head.jsonl", "source", "verl", 2, [&](const json& j) {
    std::vector<float> x = j.at("logits"), old = j.at("old_log_prob"), advantage = j.at("advantage");
    std::vector<int32_t> targets = j.at("targets");
    const int64_t rows = targets.size(), vocab = x.size() / rows;
    ASSERT_GT(vocab, 0);
    std::vector<float> head(vocab * vocab), dx(x.size()), dhead(head.size());
    for (int64_t i = 0; i < vocab; ++i) head[i * vocab + i] = 1;
    std::vector<float> weight(rows, 1.0f / rows);
    std::vector<float> log_prob(rows), entropy(rows), loss(rows);
    std::vector<uint8_t> clip(rows);
    WorkspaceNeeds needs{};
    needs.attention = {1, 1, 16};
    needs.hidden = needs.vocab = vocab, needs.max_head_rows = rows;
    const ops::ScopedWorkspace workspace(*backend, needs);
    const auto matrix = [&](std::vector<float>& v) {
      return Tensor::of(std::span(v)).view({std::ssize(v) / vocab, vocab});
    };
    backend->lm_dapo(matrix(dx), matrix(dhead), Tensor::of(std::span(log_prob)), Tensor::of(std::span(entropy)),
                     Tensor::of(std::span(loss)), Tensor::of(std::span(clip)), matrix(x), matrix(head),
                     Tensor::of(std::span(targets)), Tensor::of(std::span(old)), Tensor::of(std::span(advantage)),
                     Tensor::of(std::span(weight)), {}, {}, j.at("temperature"), {0.2f, 0.28f, 10.0f, 20.0f});
    double sum = 0;
    for (size_t r = 0; r < targets.size(); ++r) {
      EXPECT_NEAR(log_prob[r], j.at("log_prob")[r].get<double>(), 2e-6) << r;
      EXPECT_NEAR(entropy[r], j.at("entropy")[r].get<double>(), 2e-6) << r;
      sum += double{weight[r]} * loss[r];
    }
    EXPECT_NEAR(sum, j.at("loss").get<double>(), 2e-6);
    for (size_t i = 0; i < dx.size(); ++i) EXPECT_NEAR(dx[i], j.at("dlogits")[i].get<double>(), 1e-6) << i;
  });
}

TEST(ReferenceVectors, SoftOverlongPunishment) {
  each_vector("rewards.jsonl", "kind", "overlong", 12, [](const json& j) {
    for (size_t i = 0; i < j.at("lengths").size(); ++i) {
      const int length = j["lengths"][i];
      const double penalty = overlong_penalty(length, j.at("max_length"), j.at("buffer"), j.at("factor"));
      EXPECT_NEAR(j.at("score").get<double>() + penalty, j.at("rewards")[i].get<double>(), 4e-7) << length << " tokens";
    }
  });
}

TEST(ReferenceVectors, AdvantagesOfAGroupAndOfAGroupOfOne) {
  each_vector("rewards.jsonl", "kind", "advantage", 13, [](const json& j) {
    std::map<int, std::vector<double>> rewards, want;
    for (size_t i = 0; i < j.at("group").size(); ++i) {
      rewards[j["group"][i]].push_back(j.at("rewards")[i]);
      want[j["group"][i]].push_back(j.at("advantages")[i]);
    }
    for (const auto& [group, r] : rewards) {
      const auto got = group_advantages(r, j.at("by_std"));
      for (size_t i = 0; i < r.size(); ++i)
        EXPECT_NEAR(got[i], want[group][i], 2e-6 * std::max(1.0, std::abs(want[group][i]))) << group << " " << i;
    }
  });
}

TEST(ReferenceVectors, MajorityIsTheMeanOverAllOrders) {
  int ties = 0;
  each_vector("majority.jsonl", "source", "", 36, [&](const json& j) {
    std::vector<Vote> votes;
    for (size_t i = 0; i < j.at("answers").size(); ++i)
      votes.push_back({j["answers"][i].get<std::string>(), j.at("right")[i] == 1});
    EXPECT_NEAR(majority(votes), j.at("majority").get<double>(), 1e-12);
    ties += j["majority"] != 0.0 && j["majority"] != 1.0;
  });
  EXPECT_GT(ties, 4);
}

// Hugging Face's schedules begin at 0, ours at the first step of the warm-up: it is one step ahead until the peak,
// which it holds for two steps.
TEST(ReferenceVectors, LearningRateSchedules) {
  each_vector("schedules.jsonl", "source", "transformers", 12, [](const json& j) {
    ActorSection a;
    a.lr = 1;
    const std::string schedule = j.at("schedule");
    a.lr_schedule = parse_choice<LrSchedule>("schedule", schedule);
    a.lr_warmup_steps = j.at("warmup");
    const int total = j.at("total");
    for (int step = 1; step <= total; ++step) {
      const double want = j.at("lr")[step <= a.lr_warmup_steps ? step : step - 1];
      EXPECT_NEAR(learning_rate(a, step, total), want, 1e-12) << schedule << ", step " << step;
      EXPECT_GT(learning_rate(a, step, total), 0) << schedule << ", step " << step;
    }
  });
}

/// Weights of a type, with the remainders that their masters need.
template <class T>
struct Weights;
template <>
struct Weights<float> {
  std::vector<float> w;
  explicit Weights(const std::vector<float>& masters) : w(masters) {}
  Tensor weight() { return Tensor::of(std::span(w)); }
  Tensor remainder() { return {}; }
  float master(size_t i) const { return w[i]; }
};
template <>
struct Weights<bf16> {
  std::vector<bf16> w;
  std::vector<int16_t> r;
  explicit Weights(const std::vector<float>& masters) {
    for (const float m : masters) {
      w.push_back(split_master(m).weight);
      r.push_back(split_master(m).remainder);
    }
  }
  Tensor weight() { return Tensor::of(std::span(w)); }
  Tensor remainder() { return Tensor::of(std::span(r)); }
  float master(size_t i) const { return join_master(w[i], r[i]); }
};

/// Runs the updates of a case and returns the masters after each of them.
template <class T>
std::vector<std::vector<float>> run_adamw(const json& j, std::vector<float>& moment1, std::vector<float>& moment2) {
  const auto backend = make_cpu_backend(dtype_of<T>::value);
  Weights<T> weights(j.at("before").get<std::vector<float>>());
  const size_t n = weights.w.size();
  moment1.assign(n, 0), moment2.assign(n, 0);
  std::vector<std::vector<float>> after;
  int64_t step = 0;
  for (const json& gradient : j.at("gradients")) {
    std::vector<float> g = gradient;
    double norm2 = 0;
    const Tensor squares(&norm2, DType::f64, {1});
    backend->sum_of_squares(squares, Tensor::of(std::span(g)));
    const AdamW params{j.at("lr")[step],     j.at("beta1"), j.at("beta2"),   j.at("eps"),
                       j.at("weight_decay"), step + 1,      j.at("max_norm")};
    backend->adamw(weights.weight(), weights.remainder(), Tensor::of(std::span(moment1)),
                   Tensor::of(std::span(moment2)), Tensor::of(std::span(g)), squares, params);
    after.emplace_back();
    for (size_t i = 0; i < n; ++i) after.back().push_back(weights.master(i));
    ++step;
  }
  return after;
}

// bf16 weights with remainders take the same steps as torch's f32 weights.
TEST(ReferenceVectors, AdamWOnMastersIsTorchs) {
  each_vector("adamw.jsonl", "source", "torch", 5, [](const json& j) {
    std::vector<float> m, v, m16, v16;
    const auto f32 = run_adamw<float>(j, m, v);
    const auto bf = cpu_has_bf16() ? run_adamw<bf16>(j, m16, v16) : f32;  // other CPUs have no bf16 backend
    for (size_t step = 0; step < f32.size(); ++step) {
      const double lr = j.at("lr")[step];
      for (size_t i = 0; i < f32[step].size(); ++i) {
        const double want = j.at("after")[step][i];
        // Each step rounds the decayed weight and the sum (half an ulp, 6e-8, each) and some eight operations on an
        // update of up to 3 lr.
        const double tolerance = (step + 1) * (1.2e-7 * std::abs(want) + 8 * 6e-8 * 3 * lr);
        EXPECT_NEAR(f32[step][i], want, tolerance) << "step " << step + 1 << ", weight " << i;
        EXPECT_EQ(bf[step][i], f32[step][i]) << "step " << step + 1 << ", weight " << i;
      }
    }
    if (cpu_has_bf16()) {
      EXPECT_EQ(m16, m);
      EXPECT_EQ(v16, v);
    }
    // 1 - beta2 is of f32's beta2 here, in the moment and in its correction: 1.3e-5 off torch's for 0.999.
    double largest = 0;
    for (const json& x : j.at("moment1")) largest = std::max(largest, std::abs(x.get<double>()));
    for (size_t i = 0; i < m.size(); ++i) {
      EXPECT_NEAR(m[i], j["moment1"][i].get<double>(), 1e-6 * largest) << i;
      EXPECT_NEAR(v[i], j.at("moment2")[i].get<double>(), 2e-5 * j["moment2"][i].get<double>()) << i;
    }
  });
}

}  // namespace
}  // namespace dapo
