// The end of a step: its sums become metrics.
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

  for (const PromptRecord& p : state_.prompts) {
    m.prompts_seen += p.visits > 0;
    m.prompts_solved += p.streak > 0;
    m.prompts_failed += p.streak < 0;
  }
  m.groups_trained = now_.groups.size();
  double samples = 0, age = 0, right = 0, length = 0;
  for (const Group& g : now_.groups) {
    age += m.step - g.step;
    m.age_max = std::max<double>(m.age_max, m.step - g.step);
    right += g.correct();
    samples += g.samples.size();
    for (const Sample& x : g.samples) length += x.response.ids.size();
  }
  m.train_acc = mean_or_0(right, samples);
  m.train_length = mean_or_0(length, samples);
  m.age_mean = mean_or_0(age, now_.groups.size());

  m.tokens_trained = s.loss.tokens;
  m.loss = mean_or_0(s.loss.loss, s.updates);
  m.entropy = mean_or_0(s.loss.entropy, s.loss.tokens);
  m.ratio_kl = mean_or_0(s.loss.kl, s.loss.tokens);
  m.ref_kl = config_.actor.kl_loss_coef > 0 ? mean_or_0(s.loss.kl_ref, s.loss.tokens) : NAN;
  m.clip_low = mean_or_0(s.loss.low, s.loss.tokens);
  m.clip_high = mean_or_0(s.loss.high, s.loss.tokens);
  m.clip_dual = mean_or_0(s.loss.dual, s.loss.tokens);
  m.grad_norm = mean_or_0(s.grad_norm, s.updates);
  m.mismatch_tokens = s.agreement.tokens;
  m.mismatch = s.agreement.tokens > 0 ? s.agreement.mismatch : NAN;
  m.ratio_error = s.agreement.tokens > 0 ? s.agreement.ratio : NAN;
  return m;
}

}  // namespace dapo
