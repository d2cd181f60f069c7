// The end of a step: its sums become metrics, and what deserves attention an alarm.
#include <cmath>

#include "host/train/trainer.h"

namespace dapo {
namespace {

double mean_or_0(double sum, double n) {
  return sum / std::max(n, 1.0);
}

}  // namespace

StepMetrics Trainer::summarize() const {
  const StepSums& s = sums_;
  StepMetrics m{StepCounts(s)};
  // A step whose groups all come from the bank drew no responses: 0 / 0 is NaN, null in metrics.jsonl.
  const double responses = s.groups_generated * config_.rollout.n;
  const double judged = responses - s.verifier_errors;
  m.acc = s.right / judged;
  m.found = s.found / judged;
  m.reward = s.reward / judged;
  m.shaped_reward = s.shaped_reward / judged;
  for (size_t i = 0; i < s.terms.size(); ++i)
    m.terms.emplace_back(i == 0 ? "verifier" : config_.reward.terms[i - 1].name, s.terms[i] / judged);
  m.length_mean = s.length / responses;
  m.truncated = s.truncated / responses;

  m.groups_trained = groups_.size();
  double samples = 0, age = 0, right = 0, length = 0;
  for (const Group& g : groups_) {
    age += m.step - g.step;
    m.age_max = std::max<double>(m.age_max, m.step - g.step);
    right += g.correct();
    samples += g.samples.size();
    for (const Sample& x : g.samples) length += x.response.ids.size();
  }
  m.train_acc = mean_or_0(right, samples);
  m.train_length = mean_or_0(length, samples);
  m.age_mean = mean_or_0(age, groups_.size());

  m.tokens_trained = s.loss.tokens;
  m.loss = mean_or_0(s.loss.loss, s.updates);
  m.entropy = mean_or_0(s.loss.entropy, s.loss.tokens);
  m.ratio_kl = mean_or_0(s.loss.kl, s.loss.tokens);
  m.clip_low = mean_or_0(s.loss.low, s.loss.tokens);
  m.clip_high = mean_or_0(s.loss.high, s.loss.tokens);
  m.clip_dual = mean_or_0(s.loss.dual, s.loss.tokens);
  m.grad_norm = mean_or_0(s.grad_norm, s.updates);
  m.mismatch_tokens = s.agreement.tokens;
  m.mismatch = s.agreement.tokens > 0 ? s.agreement.mismatch : NAN;
  m.ratio_error = s.agreement.tokens > 0 ? s.agreement.ratio : NAN;
  return m;
}

void Trainer::raise_alarms(StepMetrics& m) {
  const auto alarm = [&m](std::string text) { m.alarms.push_back(std::move(text)); };
  if (m.verifier_errors > 0)
    alarm(fmt::format("the verifier could not judge {} responses; their {} groups are left out; the first {}",
                      m.verifier_errors, m.groups_unjudged, sums_.first_error));
  const int64_t groups = m.groups_generated - m.groups_unjudged;
  const int64_t judged = m.groups_generated * config_.rollout.n - m.verifier_errors;
  if (groups > 1 && m.groups_wrong == groups)
    alarm(fmt::format("not one of {} responses is right: verifier, template or task?", judged));
  if (groups > 1 && m.groups_right == groups)
    alarm(
        fmt::format("all {} responses are right: nothing is left to learn, or the verifier accepts anything", judged));
  const RolloutSection& r = config_.rollout;
  if (!checked_sampling_ && (r.top_p < 1 || r.top_k > 0 || r.min_p > 0))
    alarm(
        fmt::format("responses are drawn from a filtered distribution (rollout.top_p = {}, top_k = {}, min_p = {}) "
                    "but trained on the log-probs of the whole one: the policy gradient is biased; set 1, 0, 0",
                    r.top_p, r.top_k, r.min_p));
  checked_sampling_ = true;
  if (m.updates > 0 && m.entropy < 1e-3) alarm(fmt::format("entropy has collapsed to {:.2g} nats", m.entropy));
  if (m.updates > 0 && m.entropy > 0.7 * std::log(learner_.config().vocab))
    alarm(fmt::format("entropy of {:.2f} nats is near that of chance", m.entropy));
  if (m.truncated > 0.5) alarm(fmt::format("{:.0f} % of the responses are cut at the limit", 100 * m.truncated));
  if (m.mismatch > 0 || m.ratio_error > 0)
    alarm(fmt::format("rollout and training disagree by {:.3g} nats on the same weights ({} tokens compared)",
                      m.mismatch, m.mismatch_tokens));
}

}  // namespace dapo
