// The fields of a run's state that are saved, each listed once for both directions: f(name, member).
#pragma once

#include <string>

#include "host/train/run_state.h"

namespace dapo::saved {

template <class F>
void fields(PhaseTimes& t, F f) {
  for (size_t p = 0; p < t.rows.size(); ++p) {
    const std::string name = phase_name(Phase(p));
    f(name + ".seconds", t.rows[p].seconds);
    f(name + ".tokens", t.rows[p].tokens);
    f(name + ".flops", t.rows[p].flops);
  }
}

template <class F>
void fields(StepCounts& c, F f) {
  f("step", c.step);
  f("lr", c.lr);
  f("phases", c.phases);
  f("prompts_dropped", c.prompts_dropped);
  f("generation_batches", c.generation_batches);
  f("groups_generated", c.groups_generated);
  f("groups_kept", c.groups_kept);
  f("groups_right", c.groups_right);
  f("groups_wrong", c.groups_wrong);
  f("groups_unjudged", c.groups_unjudged);
  f("prompts_skipped", c.prompts_skipped);
  f("groups_unfinished", c.groups_unfinished);
  f("groups_from_bank", c.groups_from_bank);
  f("groups_banked", c.groups_banked);
  f("groups_dropped", c.groups_dropped);
  f("groups_expired", c.groups_expired);
  f("verifier_errors", c.verifier_errors);
  f("verifier_slow", c.verifier_slow);
  f("first_error", c.first_error);
  f("preemptions", c.preemptions);
  f("length_max", c.length_max);
  f("updates", c.updates);
  f("updates_refused", c.updates_refused);
  f("grad_norm_max", c.grad_norm_max);
  f("exchange_bytes", c.exchange_bytes);
  f("exchange_seconds", c.exchange_seconds);
  f("exchange_waited", c.exchange_waited);
  f("alarms", c.alarms);
}

template <class F>
void fields(LossStats& s, F f) {
  f("loss", s.loss);
  f("entropy", s.entropy);
  f("kl", s.kl);
  f("kl_ref", s.kl_ref);
  f("tokens", s.tokens);
  f("low", s.low);
  f("high", s.high);
  f("dual", s.dual);
  f("finite", s.finite);
}

template <class F>
void fields(Agreement& a, F f) {
  f("tokens", a.tokens);
  f("mismatch", a.mismatch);
  f("ratio", a.ratio);
}

template <class F>
void fields(StepSums& s, F f) {
  fields(static_cast<StepCounts&>(s), f);
  f("right", s.right);
  f("found", s.found);
  f("reward", s.reward);
  f("shaped_reward", s.shaped_reward);
  f("length", s.length);
  f("truncated", s.truncated);
  f("loss", s.loss);
  f("grad_norm", s.grad_norm);
  f("agreement", s.agreement);
  f("terms", s.terms);
}

template <class F>
void fields(StepMetrics& m, F f) {
  fields(static_cast<StepCounts&>(m), f);
  f("seconds", m.seconds);
  f("acc", m.acc);
  f("found", m.found);
  f("reward", m.reward);
  f("shaped_reward", m.shaped_reward);
  f("length_mean", m.length_mean);
  f("truncated", m.truncated);
  f("prompts_seen", m.prompts_seen);
  f("prompts_solved", m.prompts_solved);
  f("prompts_failed", m.prompts_failed);
  f("groups_trained", m.groups_trained);
  f("tokens_trained", m.tokens_trained);
  f("train_acc", m.train_acc);
  f("train_length", m.train_length);
  f("age_mean", m.age_mean);
  f("age_max", m.age_max);
  f("loss", m.loss);
  f("entropy", m.entropy);
  f("ratio_kl", m.ratio_kl);
  f("ref_kl", m.ref_kl);
  f("clip_low", m.clip_low);
  f("clip_high", m.clip_high);
  f("clip_dual", m.clip_dual);
  f("grad_norm", m.grad_norm);
  f("mismatch", m.mismatch);
  f("ratio_error", m.ratio_error);
  f("mismatch_tokens", m.mismatch_tokens);
  f("terms", m.terms);
}

template <class F>
void fields(Rollout::Stats& s, F f) {
  f("drawn_tokens", s.drawn_tokens);
  f("finished", s.finished);
  f("preemptions", s.preemptions);
  f("flops", s.flops);
}

template <class F>
void fields(Verdict& v, F f) {
  f("score", v.score);
  f("acc", v.acc);
  f("found", v.found);
  f("error", v.error);
  f("pred", v.pred);
  f("reason", v.reason);
  f("terms", v.terms);
}

template <class F>
void fields(CursorState& c, F f) {
  f("epoch", c.epoch);
  f("offset", c.offset);
}

template <class F>
void fields(YieldEstimate& y, F f) {
  f("kept", y.kept);
  f("weight", y.weight);
}

template <class F>
void fields(StuckState& s, F f) {
  f("steps", s.steps);
  f("right", s.right);
  f("wrong", s.wrong);
  f("unjudged", s.unjudged);
  f("found", s.found);
}

/// A sample's and a group's fields but for their ids and log-probs.
template <class F>
void fields(Sample& s, F f) {
  f("finish", s.response.finish);
  f("verdict", s.verdict);
  f("reward", s.reward);
  f("shaped", s.shaped);
  f("advantage", s.advantage);
}

template <class F>
void fields(Group& g, F f) {
  f("example", g.example);
  f("step", g.step);
  f("prompt_key", g.prompt_key);
}

template <class F>
void fields(StepState& s, F f) {
  f("stage", s.stage);
  f("groups", s.groups);
  f("left_out", s.left_out);
  f("drawing", s.drawing);
  f("drawn", s.drawn);
  f("mini_batches", s.mini_batches);
  f("sums", s.sums);
  f("rollout_stats", s.rollout_stats);
  f("seconds", s.seconds);
  f("rollout_seconds", s.rollout_seconds);
  f("update_seconds", s.update_seconds);
}

template <class F>
void fields(TrainerState& t, F f) {
  f("step", t.step);
  f("updates", t.updates);
  f("refused", t.refused);
  f("cursor", t.cursor);
  f("yield", t.yield);
  f("bank", t.bank);
  f("unfinished", t.unfinished);
  f("alarms", t.alarms);
  f("prompts", t.prompts);
  f("solved", t.solved);
  f("now", t.now);
}

template <class F>
void fields(RunState& r, F f) {
  f("trainer", r.trainer);
  f("stuck", r.stuck);
  f("unwritten", r.unwritten);
  f("evaluation", r.evaluation);
  f("best", r.best);
  f("best_step", r.best_step);
  f("settings", r.settings);
  f("data", r.data);
  f("prompts", r.prompts);
  f("template_time", r.template_time);
}

}  // namespace dapo::saved
