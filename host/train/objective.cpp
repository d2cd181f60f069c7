#include "host/train/objective.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "core/check.h"

namespace dapo {

std::vector<double> group_advantages(std::span<const double> rewards, bool by_std) {
  std::vector<double> a(rewards.begin(), rewards.end());
  const double n = a.size();
  double mean = 0, std = 1;
  if (a.size() > 1) {
    mean = std::accumulate(a.begin(), a.end(), 0.0) / n;
    double squares = 0;
    for (double r : a) squares += (r - mean) * (r - mean);
    std = std::sqrt(squares / (n - 1));
  }
  for (double& r : a) r = by_std ? (r - mean) / (std + 1e-6) : r - mean;
  return a;
}

std::vector<double> leave_one_out_advantages(std::span<const double> rewards) {
  std::vector<double> a(rewards.begin(), rewards.end());
  if (a.size() < 2) return a;
  const double sum = std::accumulate(a.begin(), a.end(), 0.0), others = a.size() - 1.0;
  for (double& r : a) r -= (sum - r) / others;
  return a;
}

void normalize_over_tokens(std::span<double> advantages, std::span<const int> tokens) {
  CHECK_EQ(advantages.size(), tokens.size());
  double n = 0, sum = 0, squares = 0;
  for (size_t i = 0; i < tokens.size(); ++i) n += tokens[i], sum += tokens[i] * advantages[i];
  if (n < 2) return;
  const double mean = sum / n;
  for (size_t i = 0; i < tokens.size(); ++i) squares += tokens[i] * (advantages[i] - mean) * (advantages[i] - mean);
  const double std = std::sqrt(squares / (n - 1) + 1e-8);
  for (double& a : advantages) a = (a - mean) / std;
}

std::vector<double> step_advantages(const AlgorithmSection& algorithm, std::span<const double> rewards,
                                    std::span<const int> tokens, int group) {
  CHECK(group > 0 && rewards.size() % group == 0, "{} rewards in groups of {}", rewards.size(), group);
  std::vector<double> all;
  for (size_t begin = 0; begin < rewards.size(); begin += group) {
    const std::span<const double> own = rewards.subspan(begin, group);
    std::vector<double> a(own.begin(), own.end());
    switch (algorithm.adv_estimator) {
      case AdvEstimator::grpo:
        a = group_advantages(own, algorithm.norm_adv_by_std);
        break;
      case AdvEstimator::rloo:
        a = leave_one_out_advantages(own);
        break;
      case AdvEstimator::reinforce_plus_plus_baseline:
        a = group_advantages(own, false);
        break;
      case AdvEstimator::reinforce_plus_plus:
        break;
    }
    all.insert(all.end(), a.begin(), a.end());
  }
  if (algorithm.adv_estimator == AdvEstimator::reinforce_plus_plus ||
      algorithm.adv_estimator == AdvEstimator::reinforce_plus_plus_baseline)
    normalize_over_tokens(all, tokens);
  return all;
}

DapoLoss loss_of(const ActorSection& a) {
  return {.clip_low = float(a.clip_ratio_low),
          .clip_high = float(a.clip_ratio_high),
          .dual_clip = float(a.clip_ratio_c),
          .kind = a.policy_loss,
          .kl = a.kl_loss_type,
          .kl_coef = float(a.kl_loss_coef),
          .entropy_coef = float(a.entropy_coeff)};
}

double overlong_penalty(int length, int max_length, int buffer, double factor) {
  const double over = length - (max_length - buffer);
  if (over <= 0 || buffer <= 0) return 0;
  return -std::min(over / buffer, 1.0) * factor;
}

bool mixed_group(std::span<const uint8_t> correct) {
  const auto right = std::count_if(correct.begin(), correct.end(), [](uint8_t c) { return c != 0; });
  return 0 < right && right < std::ssize(correct);
}

std::vector<double> loss_weights(LossAgg agg, std::span<const int> tokens, std::span<const int> micro_batch,
                                 int max_length) {
  const size_t n = tokens.size();
  std::vector<double> w(n, 0.0);
  const double responses = n, all = std::accumulate(tokens.begin(), tokens.end(), 0.0);
  const double unmasked = std::ranges::count_if(tokens, [](int t) { return t > 0; });
  std::vector<double> pack_tokens, pack_responses;
  if (agg == LossAgg::token_mean_per_micro_batch) {
    CHECK_EQ(micro_batch.size(), n);
    const int packs = n == 0 ? 0 : 1 + *std::max_element(micro_batch.begin(), micro_batch.end());
    pack_tokens.resize(packs);
    pack_responses.resize(packs);
    for (size_t i = 0; i < n; ++i) {
      pack_tokens[micro_batch[i]] += tokens[i];
      pack_responses[micro_batch[i]] += 1;
    }
  }
  CHECK(agg != LossAgg::seq_mean_token_sum_norm || max_length > 0, "max_length {}", max_length);
  for (size_t i = 0; i < n; ++i) {
    if (tokens[i] == 0) continue;
    switch (agg) {
      case LossAgg::token_mean:
        w[i] = 1 / all;
        break;
      case LossAgg::seq_mean_token_mean:
        w[i] = 1 / (unmasked * tokens[i]);
        break;
      case LossAgg::seq_mean_token_sum:
        w[i] = 1 / unmasked;
        break;
      case LossAgg::seq_mean_token_sum_norm:
        w[i] = 1 / (responses * max_length);
        break;
      case LossAgg::token_mean_per_micro_batch: {
        const int pack = micro_batch[i];
        w[i] = pack_responses[pack] / (responses * pack_tokens[pack]);
        break;
      }
    }
  }
  return w;
}

double learning_rate(const ActorSection& a, int64_t step, int64_t total_steps) {
  CHECK_GE(step, 1);
  const int64_t warm = a.lr_warmup_steps;
  if (step <= warm) return a.lr * step / warm;
  if (a.lr_schedule == LrSchedule::constant || total_steps <= warm) return a.lr;
  const double t = std::min(1.0, double(step - 1 - warm) / (total_steps - warm));  // in [0, 1)
  return a.lr_schedule == LrSchedule::cosine ? a.lr * 0.5 * (1 + std::cos(std::numbers::pi * t)) : a.lr * (1 - t);
}

double sft_learning_rate(const SftSection& s, int64_t step) {
  CHECK_GE(step, 1);
  const double warm = s.lr_warmup_steps > 0 ? double(step) / s.lr_warmup_steps : 1.0;
  const double left = 1.0 - double(step - 1) / s.steps;
  return s.lr * std::min({1.0, warm, s.lr_decay_fraction > 0 ? left / s.lr_decay_fraction : 1.0});
}

void add_batch(YieldEstimate& estimate, int kept, int generated, int batch) {
  const double keep = std::exp2(-generated / (2.0 * batch));
  estimate.kept = keep * estimate.kept + kept;
  estimate.weight = keep * estimate.weight + generated;
}

int generation_size(int need, int batch, const YieldEstimate& yield) {
  if (need <= 0) return 0;
  const double least = std::max(need, (batch + 7) / 8), weight = yield.weight;
  if (weight == 0) return least;
  const double p =
      std::min(1.0, std::max(yield.kept, 0.5) / weight);  // a batch that kept nothing does not prove a yield of 0
  // The smallest n with n p - 2 sqrt(n p (1 - p) (1 + n / weight)) >= need.
  const double most = std::max(least, 4 * std::max<double>(batch, weight));
  const double v = 4 * p * (1 - p), a = p * p - v / weight, b = need * p + v / 2;
  const double n = a > 0 ? (b + std::sqrt(std::max(0.0, b * b - a * need * need))) / a : most;
  return std::ceil(std::clamp(n, least, most));
}

int64_t prompt_limit(const AlgorithmSection& algorithm, const DataSection& data) {
  const int64_t each = data.gen_batch_size > 0 ? data.gen_batch_size : int64_t{3} * data.train_batch_size;
  return each * algorithm.max_num_gen_batches;
}

bool banks_surplus(const AlgorithmSection& algorithm, const DataSection& data) {
  if (algorithm.max_age == 0) return false;
  return algorithm.surplus == Surplus::bank || (algorithm.surplus == Surplus::automatic && data.gen_batch_size == 0);
}

void add_loss_stats(LossStats& s, std::span<const float> log_prob, std::span<const float> old_log_prob,
                    std::span<const float> entropy, std::span<const float> loss, std::span<const float> weight,
                    std::span<const uint8_t> clip, std::span<const float> ref_log_prob) {
  constexpr double kClamp = DapoLoss{}.log_ratio_clamp;  // as the loss clamps it
  for (size_t r = 0; r < log_prob.size(); ++r) {
    s.finite = s.finite && std::isfinite(log_prob[r]) && std::isfinite(entropy[r]) && std::isfinite(loss[r]);
    if (weight[r] == 0) continue;
    s.loss += double{weight[r]} * loss[r];
    s.entropy += entropy[r];
    s.kl += std::clamp(double{old_log_prob[r]} - log_prob[r], -kClamp, kClamp);
    if (!ref_log_prob.empty()) s.kl_ref += double{kl_term(log_prob[r], ref_log_prob[r], KlKind::k3).value};
    s.low += clip[r] == kClippedLow;
    s.high += clip[r] == kClippedHigh;
    s.dual += clip[r] == kClippedDual;
    ++s.tokens;
  }
}

void Agreement::compare(float rollout, float training) {
  ++tokens;
  const double gap = double{training} - rollout;
  const bool finite = std::isfinite(gap);
  mismatch = std::max(mismatch, finite ? std::abs(gap) : HUGE_VAL);
  ratio = std::max(ratio, finite ? std::abs(std::expm1(gap)) : HUGE_VAL);
}

void Agreement::add(const Agreement& other) {
  tokens += other.tokens;
  mismatch = std::max(mismatch, other.mismatch);
  ratio = std::max(ratio, other.ratio);
}

void LossStats::add(const LossStats& other) {
  loss += other.loss, entropy += other.entropy, kl += other.kl, kl_ref += other.kl_ref;
  tokens += other.tokens, low += other.low, high += other.high, dual += other.dual;
  finite = finite && other.finite;
}

}  // namespace dapo
