// The head against its definition in double precision.
#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "cpu/cpu_backend.h"

namespace dapo {
namespace {

template <class T>
struct Buffer {
  std::vector<T> v;
  Tensor t;
  Buffer(std::initializer_list<int64_t> shape) : t(nullptr, dtype_of<T>::value, shape) {
    v.resize(t.numel());
    std::memset(static_cast<void*>(v.data()), 0xff, v.size() * sizeof(T));
    t.data = v.data();
  }
  void random(uint32_t seed, float scale) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal(0.0f, scale);
    for (T& x : v) {
      const float f = normal(rng);
      if constexpr (std::is_same_v<T, bf16>)
        x = to_bf16(f);
      else
        x = static_cast<T>(f);
    }
  }
};

template <class T>
class HeadTest : public testing::Test {
 protected:
  void SetUp() override {
    if (dtype_of<T>::value == DType::bf16 && !cpu_has_bf16()) GTEST_SKIP() << "skipped: this CPU has no bf16 products";
    backend_ = make_cpu_backend(dtype_of<T>::value);
  }
  std::unique_ptr<Backend> backend_;
  std::vector<char> memory_;
  std::unique_ptr<Arena> arena_;

  void prepare(int64_t rows, int64_t batch, int64_t vocab, int64_t hidden) {
    WorkspaceNeeds needs{};
    needs.attention = {1, 1, 16};
    needs.hidden = hidden, needs.vocab = vocab, needs.max_head_rows = rows, needs.max_batch = batch;
    memory_.resize(backend_->workspace_bytes(needs) + Arena::kAlign);
    void* p = memory_.data();
    size_t room = memory_.size();
    std::align(Arena::kAlign, 1, p, room);
    arena_ = std::make_unique<Arena>("workspace", p, room / Arena::kAlign * Arena::kAlign);
    backend_->set_workspace(arena_.get());
  }
};
using Types = testing::Types<float, bf16>;
TYPED_TEST_SUITE(HeadTest, Types);

/// Inputs and outputs of one lm_dapo.
template <class T>
struct Case {
  int64_t rows, vocab, hidden;
  float temperature;
  Buffer<T> x, head, dx;
  Buffer<int32_t> targets;
  Buffer<float> old_log_prob, advantage, weight, log_prob, entropy, loss, dhead;
  Buffer<uint8_t> clip;

  Case(int64_t r, int64_t v, int64_t c, float temp)
      : rows(r),
        vocab(v),
        hidden(c),
        temperature(temp),
        x({r, c}),
        head({v, c}),
        dx({r, c}),
        targets({r}),
        old_log_prob({r}),
        advantage({r}),
        weight({r}),
        log_prob({r}),
        entropy({r}),
        loss({r}),
        dhead({v, c}),
        clip({r}) {
    x.random(1, 1.0f), head.random(2, 2.0f / std::sqrt(static_cast<float>(c))), advantage.random(3, 1.0f);
    weight.random(4, 1.0f), old_log_prob.random(5, 0.3f), dhead.random(6, 0.1f);
    std::mt19937 rng(7);
    for (int32_t& t : targets.v) t = static_cast<int32_t>(rng() % static_cast<uint32_t>(v));
    for (size_t i = 4; i < weight.v.size(); i += 5) weight.v[i] = 0.0f;
  }
  std::vector<double> z(int64_t r) const {
    std::vector<double> out(vocab);
    for (int64_t t = 0; t < vocab; ++t)
      for (int64_t c = 0; c < hidden; ++c)
        out[t] += static_cast<double>(to_float(x.v[r * hidden + c])) * to_float(head.v[t * hidden + c]) / temperature;
    return out;
  }
  void run(Backend& backend, const DapoLoss& params, bool on_policy) {
    backend.lm_dapo(dx.t, dhead.t, log_prob.t, entropy.t, loss.t, clip.t, x.t, head.t, targets.t,
                    on_policy ? Tensor() : old_log_prob.t, advantage.t, weight.t, {}, {}, temperature, params);
  }
};

template <class T>
double nmse(const std::vector<T>& got, const std::vector<double>& want) {
  double error = 0.0, norm = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double e = static_cast<double>(to_float(got[i])) - want[i];
    error += e * e, norm += want[i] * want[i];
  }
  return error / norm;
}

TYPED_TEST(HeadTest, LossAndGradientsEqualTheirDefinition) {
  for (const auto& [rows, vocab, hidden, temperature] : {std::tuple{37, 61, 24, 1.0f},
                                                         {5, 4097, 16, 0.7f},
                                                         {600, 37, 8, 1.3f},
                                                         {1, 16, 32, 1.0f},
                                                         {530, 34000, 8, 1.0f}})
    for (const bool on_policy : {false, true}) {
      if (on_policy && vocab > 1000) continue;
      SCOPED_TRACE(fmt::format("R {} V {} C {} T {} on-policy {}", rows, vocab, hidden, temperature, on_policy));
      this->prepare(rows, 0, vocab, hidden);
      Case<TypeParam> c(rows, vocab, hidden, temperature);
      // Ratios on both sides of the clip: old log-probs near the true ones.
      std::vector<std::vector<double>> p;
      std::vector<double> log_prob, entropy, dx(c.dx.v.size()), dhead(c.dhead.v.begin(), c.dhead.v.end());
      for (int64_t r = 0; r < rows; ++r) {
        std::vector<double> z = c.z(r);
        const double max = *std::max_element(z.begin(), z.end());
        double sum = 0.0, h = 0.0;
        for (const double v : z) sum += std::exp(v - max);
        log_prob.push_back(z[c.targets.v[r]] - max - std::log(sum));
        for (double& v : z) {
          const double lp = v - max - std::log(sum);
          v = std::exp(lp);
          h -= v * lp;
        }
        entropy.push_back(h);
        p.push_back(std::move(z));
        c.old_log_prob.v[r] += static_cast<float>(log_prob.back());
      }
      const DapoLoss params{};
      for (int64_t r = 0; r < rows; ++r) {
        const size_t i = r;
        const float lp = log_prob[i];
        const TokenLoss l = on_policy ? on_policy_loss(lp, c.advantage.v[i])
                                      : token_loss(lp, c.old_log_prob.v[i], c.advantage.v[i], params);
        const double g = static_cast<double>(c.weight.v[i]) * l.dlogp / temperature;
        for (int64_t t = 0; t < vocab; ++t) {
          double d = g * ((t == c.targets.v[i] ? 1.0 : 0.0) - p[i][t]);
          if (std::is_same_v<TypeParam, bf16>) d = to_float(to_bf16(static_cast<float>(d)));  // as in the products
          for (int64_t k = 0; k < hidden; ++k) {
            dx[r * hidden + k] += d * to_float(c.head.v[t * hidden + k]);
            dhead[t * hidden + k] += d * to_float(c.x.v[r * hidden + k]);
          }
        }
      }
      c.run(*this->backend_, params, on_policy);
      for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
        ASSERT_NEAR(c.log_prob.v[r], log_prob[r], 1e-5) << r;  // |z| < 16: 2^-20 each for z, max and log of the sum
        ASSERT_NEAR(c.entropy.v[r], entropy[r], 1e-5) << r;
        const TokenLoss l = on_policy ? on_policy_loss(c.log_prob.v[r], c.advantage.v[r])
                                      : token_loss(c.log_prob.v[r], c.old_log_prob.v[r], c.advantage.v[r], params);
        ASSERT_EQ(c.loss.v[r], l.loss) << r;
        ASSERT_EQ(c.clip.v[r], l.clip) << r;
      }
      // f32: sums of up to 34000 terms, each rounded at 2^-24. bf16: dx is rounded at 2^-9 at most.
      const double tolerance = std::is_same_v<TypeParam, float> ? 1e-11 : 0x1p-18;
      EXPECT_LT(nmse(c.dx.v, dx), tolerance);
      EXPECT_LT(nmse(c.dhead.v, dhead), tolerance);
      EXPECT_EQ(this->arena_->used(), 0u);

      Buffer<float> again({rows}), h({rows});
      this->backend_->lm_logprob(again.t, h.t, c.x.t, c.head.t, c.targets.t, temperature);
      EXPECT_EQ(std::memcmp(again.v.data(), c.log_prob.v.data(), again.t.bytes()), 0);
      EXPECT_EQ(std::memcmp(h.v.data(), c.entropy.v.data(), h.t.bytes()), 0);
    }
}

TYPED_TEST(HeadTest, RowsOfWeightZeroGiveNoGradient) {
  this->prepare(4, 0, 50, 16);
  Case<TypeParam> c(4, 50, 16, 1.0f);
  for (float& w : c.weight.v) w = 0.0f;
  c.advantage.v[1] = NAN;
  const std::vector<float> before = c.dhead.v;
  c.run(*this->backend_, DapoLoss{}, false);
  EXPECT_EQ(c.dhead.v, before);
  for (const TypeParam& d : c.dx.v) EXPECT_EQ(to_float(d), 0.0f);
  for (const float lp : c.log_prob.v) EXPECT_LT(lp, 0.0f);
}

/// lm_sample of each row alone, of all, at one and more threads, and lm_logprob of the tokens: the same bits.
TYPED_TEST(HeadTest, ADrawHasTheBitsOfTraining) {
  const int64_t rows = 45, hidden = 48;
  const int threads = omp_get_max_threads();
  for (const int64_t vocab : {17, 128, 9000})
    for (const Sampling& sampling :
         {Sampling{1.0f, 0, 1.0f, 0.0f, 9}, Sampling{0.7f, 20, 0.9f, 0.02f, 9}, Sampling{0.0f, 0, 1.0f, 0.0f, 9}}) {
      SCOPED_TRACE(fmt::format("V {} T {}", vocab, sampling.temperature));
      this->prepare(rows, rows, vocab, hidden);
      Case<TypeParam> c(rows, vocab, hidden, sampling.temperature == 0.0f ? 1.0f : sampling.temperature);
      Buffer<int32_t> tokens({rows}), keys({rows, 3}), positions({rows}), token({1});
      Buffer<float> log_prob({rows}), trained({rows}), one({1});
      for (size_t i = 0; i < static_cast<size_t>(rows); ++i) {
        keys.v[3 * i] = 1, keys.v[3 * i + 1] = static_cast<int32_t>(i), keys.v[3 * i + 2] = 2;
        positions.v[i] = static_cast<int32_t>(100 + i);
      }
      this->backend_->lm_sample(tokens.t, log_prob.t, c.x.t, c.head.t, keys.t, positions.t, sampling);
      this->backend_->lm_logprob(trained.t, {}, c.x.t, c.head.t, tokens.t, c.temperature);
      EXPECT_EQ(std::memcmp(trained.v.data(), log_prob.v.data(), trained.t.bytes()), 0);
      omp_set_num_threads(1);
      for (int64_t r = 0; r < rows; ++r) {
        this->backend_->lm_sample(token.t, one.t, c.x.t.rows(r, 1), c.head.t, keys.t.rows(r, 1), positions.t.rows(r, 1),
                                  sampling);
        EXPECT_EQ(token.v[0], tokens.v[r]);
        EXPECT_EQ(std::memcmp(one.v.data(), &log_prob.v[r], sizeof(float)), 0);
      }
      omp_set_num_threads(threads);
    }
}

TYPED_TEST(HeadTest, ANaNRowIsTokenZero) {
  this->prepare(3, 3, 40, 16);
  Case<TypeParam> c(3, 40, 16, 1.0f);
  std::memset(static_cast<void*>(&c.x.v[16]), 0xff, sizeof(TypeParam));  // row 1
  Buffer<int32_t> tokens({3}), keys({3, 3}), positions({3});
  Buffer<float> log_prob({3});
  for (const float temperature : {1.0f, 0.0f}) {
    this->backend_->lm_sample(tokens.t, log_prob.t, c.x.t, c.head.t, keys.t, positions.t,
                              {temperature, 5, 0.9f, 0.1f, 0});
    EXPECT_EQ(tokens.v[1], 0);
    EXPECT_TRUE(std::isnan(log_prob.v[1]));
    EXPECT_LT(log_prob.v[0], 0.0f);
    EXPECT_LT(log_prob.v[2], 0.0f);
  }
}

}  // namespace
}  // namespace dapo
