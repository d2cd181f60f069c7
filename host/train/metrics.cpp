// Turns a step's sums into metrics and raises alarms.
#include <cmath>

#include "host/train/trainer.h"

namespace dapo {

void Trainer::summarize(StepMetrics& m) {
  // Of a step that the bank filled, nothing is known of fresh responses: 0 / 0, null in metrics.jsonl.
  const double responses = static_cast<double>(m.groups_generated * config_.rollout.n);
  const double judged = responses - static_cast<double>(m.verifier_errors);
  m.acc /= judged;
  m.reward /= judged;
  m.shaped_reward /= judged;
  m.length_mean /= responses;
  m.truncated /= responses;
  m.found /= judged;

  m.groups_trained = static_cast<int64_t>(groups_.size());
  double samples = 0;
  for (const SampleGroup& g : groups_) {
    const double age = static_cast<double>(m.step - g.step);
    m.age_mean += age;
    m.age_max = std::max(m.age_max, age);
    m.train_acc += g.correct();
    for (const Sample& s : g.samples) m.train_length += static_cast<double>(s.response.ids.size());
    samples += static_cast<double>(g.samples.size());
  }
  m.train_acc /= std::max(samples, 1.0);
  m.train_length /= std::max(samples, 1.0);
  m.age_mean /= std::max(static_cast<double>(groups_.size()), 1.0);

  const double tokens = std::max<double>(1, static_cast<double>(stats_.tokens));
  m.tokens_trained = stats_.tokens;
  m.loss = stats_.loss / std::max<double>(1, static_cast<double>(m.updates));
  m.entropy = stats_.entropy / tokens;
  m.ratio_kl = stats_.kl / tokens;
  m.clip_low = static_cast<double>(stats_.low) / tokens;
  m.clip_high = static_cast<double>(stats_.high) / tokens;
  m.clip_dual = static_cast<double>(stats_.dual) / tokens;
  m.grad_norm = grad_norms_ / std::max<double>(1, static_cast<double>(m.updates));
  m.mismatch_tokens = agreement_.tokens;
  m.mismatch = agreement_.tokens > 0 ? agreement_.mismatch : NAN;
  m.ratio_error = agreement_.tokens > 0 ? agreement_.ratio : NAN;

  const auto alarm = [&m](std::string text) { m.alarms.push_back(std::move(text)); };
  if (m.verifier_errors > 0)
    alarm(fmt::format("the verifier could not judge {} responses; their {} groups are left out", m.verifier_errors,
                      m.groups_unjudged));
  const int64_t groups = m.groups_generated - m.groups_unjudged;
  if (groups > 1 && m.groups_wrong == groups)
    alarm(fmt::format("not one of {} responses is right: verifier, template or task?", judged));
  if (groups > 1 && m.groups_right == groups)
    alarm(fmt::format("all {} responses are right: nothing is left to learn, or the verifier is constant", judged));
  const RolloutSection& r = config_.rollout;
  if (!said_filtered_ && (r.top_p < 1 || r.top_k > 0 || r.min_p > 0))
    alarm(
        fmt::format("responses are drawn from a filtered distribution (rollout.top_p = {}, top_k = {}, min_p = {}) "
                    "but trained on the log-probs of the whole one: the policy gradient is biased; set 1, 0, 0",
                    r.top_p, r.top_k, r.min_p));
  said_filtered_ = true;
  if (m.updates > 0 && m.entropy < 1e-3) alarm(fmt::format("entropy has collapsed to {:.2g} nats", m.entropy));
  if (m.updates > 0 && m.entropy > 0.7 * std::log(learner_.config().vocab))
    alarm(fmt::format("entropy of {:.2f} nats is near that of chance", m.entropy));
  if (m.truncated > 0.5) alarm(fmt::format("{:.0f} % of the responses are cut at the limit", 100 * m.truncated));
  if (m.mismatch > 0 || m.ratio_error > 0)
    alarm(fmt::format("rollout and training disagree by {:.3g} nats on the same weights ({} tokens compared)",
                      m.mismatch, m.mismatch_tokens));
}

std::vector<std::pair<const char*, double>> StepMetrics::fields() const {
  const auto d = [](int64_t n) { return static_cast<double>(n); };
  const auto rate = [](const PhaseTimes::Row& r) {
    return r.seconds > 0 ? static_cast<double>(r.tokens) / r.seconds : 0;
  };
  const auto gflops = [](const PhaseTimes::Row& r) { return r.seconds > 0 ? r.flops / r.seconds * 1e-9 : 0; };
  const PhaseTimes::Row &r = phases[Phase::rollout], &u = phases[Phase::update];
  return {{"step", d(step)},
          {"seconds", seconds},
          {"lr", lr},
          {"reward/mean", reward},
          {"reward/shaped", shaped_reward},
          {"reward/acc", acc},
          {"reward/found", found},
          {"reward/verifier_errors", d(verifier_errors)},
          {"reward/verifier_slow", d(verifier_slow)},
          {"response/length_mean", length_mean},
          {"response/length_max", length_max},
          {"response/truncated", truncated},
          {"groups/generated", d(groups_generated)},
          {"groups/kept", d(groups_kept)},
          {"groups/all_right", d(groups_right)},
          {"groups/all_wrong", d(groups_wrong)},
          {"groups/unjudged", d(groups_unjudged)},
          {"groups/from_bank", d(groups_from_bank)},
          {"groups/banked", d(groups_banked)},
          {"groups/dropped", d(groups_dropped)},
          {"groups/expired", d(groups_expired)},
          {"groups/age_mean", age_mean},
          {"groups/age_max", age_max},
          {"groups/generation_batches", d(generation_batches)},
          {"groups/trained", d(groups_trained)},
          {"train/acc", train_acc},
          {"train/length_mean", train_length},
          {"train/tokens", d(tokens_trained)},
          {"update/count", d(updates)},
          {"update/refused", d(updates_refused)},
          {"update/loss", loss},
          {"update/entropy", entropy},
          {"update/kl", ratio_kl},
          {"update/clip_low", clip_low},
          {"update/clip_high", clip_high},
          {"update/clip_dual", clip_dual},
          {"update/grad_norm", grad_norm},
          {"update/grad_norm_max", grad_norm_max},
          {"update/mismatch", mismatch},
          {"update/ratio_error", ratio_error},
          {"update/mismatch_tokens", d(mismatch_tokens)},
          {"rollout/seconds", r.seconds},
          {"rollout/tokens", d(r.tokens)},
          {"rollout/tokens_per_s", rate(r)},
          {"rollout/gflops", gflops(r)},
          {"rollout/preemptions", d(preemptions)},
          {"reward/seconds", phases[Phase::reward].seconds},
          {"update/seconds", u.seconds},
          {"update/rows", d(u.tokens)},
          {"update/rows_per_s", rate(u)},
          {"update/gflops", gflops(u)},
          {"data/prompts_dropped", d(prompts_dropped)}};
}

}  // namespace dapo
