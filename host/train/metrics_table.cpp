// The tables of metrics: one row a figure.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "host/train/evaluate.h"
#include "host/train/metric_info.h"
#include "host/train/metrics.h"
#include "host/train/sft.h"

namespace dapo {
namespace {

template <auto member, class T>
double of(const T& m) {
  return m.*member;
}
template <Phase phase, auto member>
double of_phase(const StepMetrics& m) {
  return m.phases[phase].*member;
}
template <Phase phase>
double tokens_per_s(const StepMetrics& m) {
  const PhaseTimes::Row& r = m.phases[phase];
  return r.seconds > 0 ? r.tokens / r.seconds : 0;
}
template <Phase phase>
double gflops(const StepMetrics& m) {
  const PhaseTimes::Row& r = m.phases[phase];
  return r.seconds > 0 ? r.flops / r.seconds * 1e-9 : 0;
}

double exchange_hidden(const StepMetrics& m) {
  return m.exchange_seconds > 0 ? 1 - std::min(1.0, m.exchange_waited / m.exchange_seconds) : NAN;
}

using M = StepMetrics;
using Row = PhaseTimes::Row;

constexpr Metric<StepMetrics> kStep[] = {
    {"step", "", "number of the rollout step, 1 for the first; 0 for the evaluation before training", of<&M::step>},
    {"seconds", "s", "time of the whole step", of<&M::seconds>},
    {"lr", "", "learning rate", of<&M::lr>},
    {"reward/mean", "", "reward by the verifier and reward.terms, mean over the step's judged responses",
     of<&M::reward>},
    {"reward/term/NAME", "",
     "with reward.terms: mean score of each term over the judged responses, without its weight; NAME \"verifier\": "
     "that "
     "of reward.verifier",
     nullptr},
    {"reward/shaped", "", "the same with the overlong punishment", of<&M::shaped_reward>},
    {"reward/acc", "share", "judged responses that are right", of<&M::acc>},
    {"reward/found", "share", "judged responses in which the verifier found an answer", of<&M::found>},
    {"reward/verifier_errors", "responses", "responses that could not be judged; their groups are left out",
     of<&M::verifier_errors>},
    {"reward/verifier_slow", "responses", "responses that took more than a second to judge", of<&M::verifier_slow>},
    {"response/length_mean", "tokens", "mean length of a response, end id included", of<&M::length_mean>},
    {"response/length_max", "tokens", "length of the longest response", of<&M::length_max>},
    {"response/truncated", "share", "responses cut at data.max_response_length", of<&M::truncated>},
    {"groups/generated", "groups", "groups drawn in this step; a group is a prompt with rollout.n responses",
     of<&M::groups_generated>},
    {"groups/kept", "groups",
     "drawn groups fit to train on: those of right and wrong responses, or all judged ones without "
     "algorithm.filter_groups",
     of<&M::groups_kept>},
    {"groups/all_right", "groups", "drawn groups whose responses are all right", of<&M::groups_right>},
    {"groups/all_wrong", "groups", "drawn groups whose responses are all wrong", of<&M::groups_wrong>},
    {"groups/unjudged", "groups",
     "drawn groups with a response that could not be judged; counted neither as right nor as wrong",
     of<&M::groups_unjudged>},
    {"groups/from_bank", "groups", "groups trained on that were drawn in an earlier step", of<&M::groups_from_bank>},
    {"groups/banked", "groups", "surplus groups in the bank for the next step (algorithm.surplus)",
     of<&M::groups_banked>},
    {"groups/dropped", "groups", "groups fit to train on, but dropped as surplus", of<&M::groups_dropped>},
    {"groups/unfinished", "groups", "groups whose responses go on in the next step (rollout.partial)",
     of<&M::groups_unfinished>},
    {"groups/expired", "groups", "banked groups dropped as older than algorithm.max_age", of<&M::groups_expired>},
    {"prompts/seen", "prompts", "prompts visited in this run", of<&M::prompts_seen>},
    {"prompts/solved", "prompts", "of these, those whose last visit was all right", of<&M::prompts_solved>},
    {"prompts/failed", "prompts", "of these, those whose last visit was all wrong", of<&M::prompts_failed>},
    {"prompts/skipped", "prompts", "prompts that this step passed over (algorithm.skip_solved)",
     of<&M::prompts_skipped>},
    {"groups/age_mean", "steps", "mean age of the groups trained on: steps since they were drawn", of<&M::age_mean>},
    {"groups/age_max", "steps", "age of the oldest group trained on", of<&M::age_max>},
    {"groups/generation_batches", "batches", "generation batches drawn until the step's batch was full",
     of<&M::generation_batches>},
    {"groups/trained", "groups", "groups trained on", of<&M::groups_trained>},
    {"train/acc", "share", "right responses among those trained on", of<&M::train_acc>},
    {"train/length_mean", "tokens", "mean length of the responses trained on", of<&M::train_length>},
    {"train/tokens", "tokens", "tokens with a weight in the loss, over all updates", of<&M::tokens_trained>},
    {"update/count", "updates", "updates applied", of<&M::updates>},
    {"update/refused", "updates", "updates refused because a number was not finite", of<&M::updates_refused>},
    {"update/loss", "", "mean of the mini-batches' losses", of<&M::loss>},
    {"update/entropy", "nats", "entropy of the policy, mean over the tokens trained on", of<&M::entropy>},
    {"update/kl", "nats", "old minus new log-prob, mean over the tokens trained on", of<&M::ratio_kl>},
    {"update/kl_ref", "nats",
     "KL from the policy to the reference (k3), mean over the tokens trained on; null without actor.kl_loss_coef",
     of<&M::ref_kl>},
    {"update/clip_low", "share", "tokens trained on that were clipped at 1 - actor.clip_ratio_low", of<&M::clip_low>},
    {"update/clip_high", "share", "tokens trained on that were clipped at 1 + actor.clip_ratio_high (Clip-Higher)",
     of<&M::clip_high>},
    {"update/clip_dual", "share", "tokens trained on that met the dual clip (actor.clip_ratio_c)", of<&M::clip_dual>},
    {"update/grad_norm", "", "norm of the gradient before clipping, mean over the updates", of<&M::grad_norm>},
    {"update/grad_norm_max", "", "largest norm of the gradient before clipping", of<&M::grad_norm_max>},
    {"update/mismatch", "nats",
     "largest difference between the log-probs of rollout and of training on the same weights: must be 0; null if no "
     "token was compared",
     of<&M::mismatch>},
    {"update/ratio_error", "", "the same as a ratio: its largest distance from 1; must be 0", of<&M::ratio_error>},
    {"update/mismatch_tokens", "tokens", "tokens compared for update/mismatch", of<&M::mismatch_tokens>},
    {"rollout/seconds", "s", "time to draw the responses, without reward/seconds",
     of_phase<Phase::rollout, &Row::seconds>},
    {"rollout/tokens", "tokens", "response tokens drawn", of_phase<Phase::rollout, &Row::tokens>},
    {"rollout/tokens_per_s", "tokens/s", "response tokens drawn a second", tokens_per_s<Phase::rollout>},
    {"rollout/gflops", "GFLOP/s", "rate of the model's products and attention in rollout", gflops<Phase::rollout>},
    {"rollout/preemptions", "sequences", "sequences preempted because KV pages ran out, and computed again",
     of<&M::preemptions>},
    {"reward/seconds", "s", "time waited for verdicts after the last response; judging otherwise runs beside rollout",
     of_phase<Phase::reward, &Row::seconds>},
    {"update/seconds", "s", "time of packing, forward, backward and AdamW", of_phase<Phase::update, &Row::seconds>},
    {"update/rows", "tokens", "tokens of the packs, prompts included, over all updates",
     of_phase<Phase::update, &Row::tokens>},
    {"update/rows_per_s", "tokens/s", "tokens of the packs a second", tokens_per_s<Phase::update>},
    {"update/gflops", "GFLOP/s", "rate of the model's products and attention in updates", gflops<Phase::update>},
    {"update/exchange_bytes", "bytes",
     "gradients and weights that a rank sends to its data-parallel ones in the updates, 6 (dp - 1) / dp a parameter of "
     "its part in bf16; of all ranks the most",
     of<&M::exchange_bytes>},
    {"update/exchange_seconds", "s",
     "time of summing gradients over those ranks, waiting for them included; of all ranks the most",
     of<&M::exchange_seconds>},
    {"update/exchange_hidden", "share", "of that time, what passed beside the backward; null without an exchange",
     exchange_hidden},
    {"data/prompts_dropped", "prompts", "training prompts that are empty or longer than data.max_prompt_length",
     of<&M::prompts_dropped>},
};

template <Estimate SetResult::*member, double Estimate::*part>
double part_of(const SetResult& r) {
  return r.*member.*part;
}

using S = SetResult;

/// A row without a value stands for SetResult::pass or maj_k, three fields a k.
constexpr Metric<SetResult> kEval[] = {
    {"eval/problems", "problems", "problems answered", of<&S::problems>},
    {"eval/n", "responses", "responses to each problem (eval.n)", of<&S::n>},
    {"eval/avg", "share", "avg@n: share of right responses, mean over problems", part_of<&S::avg, &Estimate::mean>},
    {"eval/low", "share",
     "lower end of the 95 % confidence interval of avg@n over problems (Student's t; Wilson's if all are equal)",
     part_of<&S::avg, &Estimate::low>},
    {"eval/high", "share", "upper end of that interval", part_of<&S::avg, &Estimate::high>},
    {"eval/maj", "share", "maj@n: problems whose most frequent answer is right; tied answers share the vote",
     part_of<&S::maj, &Estimate::mean>},
    {"eval/maj_low", "share", "lower end of its 95 % confidence interval", part_of<&S::maj, &Estimate::low>},
    {"eval/maj_high", "share", "upper end of it", part_of<&S::maj, &Estimate::high>},
    {"eval/pass@K", "share",
     "chance that K of the n responses, drawn without replacement, hold a right one, mean over problems; for each K of "
     "eval.pass_k up to n; the ends of its 95 % confidence interval are `eval/pass@K_low` and `eval/pass@K_high`",
     nullptr},
    {"eval/maj@K", "share",
     "maj@k: mean of maj over all choices of K of the n responses, exactly; for each K of eval.pass_k between 1 and n; "
     "the ends of its 95 % confidence interval are `eval/maj@K_low` and `eval/maj@K_high`",
     nullptr},
    {"eval/length_mean", "tokens", "mean length of a response, end id included", of<&S::length_mean>},
    {"eval/truncated", "share", "responses cut at data.max_response_length", of<&S::truncated>},
    {"eval/verifier_errors", "responses", "responses that could not be judged; they count as wrong",
     of<&S::verifier_errors>},
    {"eval/prompts_dropped", "prompts", "prompts that are empty or longer than data.max_prompt_length",
     of<&S::prompts_dropped>},
    {"eval/seconds", "s", "time of the whole evaluation", of<&S::seconds>},
    {"eval/tokens", "tokens", "response tokens drawn", of<&S::tokens>},
};

constexpr Metric<SftMetrics> kSft[] = {
    {"step", "", "number of the update, 1 for the first", of<&SftMetrics::step>},
    {"loss", "nats", "-log-prob, mean over the batch's response tokens", of<&SftMetrics::loss>},
    {"grad_norm", "", "norm of the gradient before clipping", of<&SftMetrics::grad_norm>},
    {"lr", "", "learning rate", of<&SftMetrics::lr>},
    {"tokens", "tokens", "tokens of the packs, prompts included", of<&SftMetrics::tokens>},
    {"seconds", "s", "time of the whole step", of<&SftMetrics::seconds>},
};

/// `several` adds the fields of a row without a value, which it gets by name.
template <class T, size_t n>
Fields fields_of(const T& m, const Metric<T> (&table)[n],
                 void (*several)(const T&, std::string_view row, Fields&) = nullptr) {
  Fields fields;
  for (const Metric<T>& metric : table)
    if (metric.value != nullptr)
      fields.emplace_back(metric.name, metric.value(m));
    else if (several != nullptr)
      several(m, metric.name, fields);
  return fields;
}

template <class T, size_t n>
std::string table_text(const Metric<T> (&table)[n]) {
  std::string out = "| name | unit | meaning |\n|---|---|---|\n";
  for (const Metric<T>& m : table) out += fmt::format("| `{}` | {} | {} |\n", m.name, m.unit, m.meaning);
  return out;
}

template <class T, size_t n>
std::optional<MetricInfo> find_info(std::string_view name, const Metric<T> (&table)[n]) {
  for (const Metric<T>& m : table)
    if (m.name == name) return MetricInfo{m.unit, m.meaning};
  return std::nullopt;
}

Fields set_fields(const SetResult& set) {
  return fields_of(
      set, kEval, +[](const SetResult& r, std::string_view row, Fields& fields) {
        for (const auto& [k, e] : row == "eval/pass@K" ? r.pass : r.maj_k) {
          const std::string name = fmt::format("{}{}", row.substr(0, row.size() - 1), k);
          for (const auto& [end, value] : {std::pair{"", e.mean}, {"_low", e.low}, {"_high", e.high}})
            fields.emplace_back(name + end, value);
        }
      });
}

}  // namespace

std::optional<MetricInfo> metric_info(std::string_view name) {
  std::string known(name);
  if (known.starts_with("reward/term/")) known = "reward/term/NAME";
  if (known.starts_with("eval/"))  // of one of several sets: "eval/SET/avg"
    if (const size_t slash = known.rfind('/'); slash > 4) known = "eval/" + known.substr(slash + 1);
  if (known.starts_with("eval/pass@")) known = "eval/pass@K";
  if (known.starts_with("eval/maj@")) known = "eval/maj@K";
  if (const auto info = find_info(known, kStep)) return info;
  if (const auto info = find_info(known, kEval)) return info;
  return find_info(known, kSft);
}

Fields StepMetrics::fields() const {
  return fields_of(
      *this, kStep, +[](const StepMetrics& m, std::string_view, Fields& fields) {
        for (const auto& [name, value] : m.terms) fields.emplace_back("reward/term/" + name, value);
      });
}

Fields SftMetrics::fields() const {
  return fields_of(*this, kSft);
}

Fields EvalResult::fields() const {
  if (sets.size() == 1) return set_fields(sets[0]);
  Fields fields = {{"eval/avg", 0}};
  for (const SetResult& set : sets) {
    fields[0].second += set.avg.mean / sets.size();
    for (const auto& [name, value] : set_fields(set))
      fields.emplace_back(fmt::format("eval/{}/{}", set.name, name.substr(name.find('/') + 1)), value);
  }
  return fields;
}

std::string metrics_text() {
  return "# Metrics\n\n"
         "Written by `make docs` from host/train/metrics_table.cpp (`./dapo_train --metrics`). metrics.jsonl holds a "
         "JSON object a line.\nA share is a number from 0 to 1; a mean over nothing is null.\n\n"
         "## dapo_train: a line a step\n\n" +
         table_text(kStep) +
         "\n`alarms` is a list of messages about what deserves attention, such as a collapsed entropy: each once, when "
         "it "
         "begins, and\nagain only after 50 steps without it ([looking.md](looking.md) lists them).\n\n"
         "## Evaluation: in the line of every `eval.every`th step; also printed by `dapo eval`\n\n" +
         table_text(kEval) +
         "\nWith several sets in data.val_files every name has the set's: `eval/SET/avg`; `eval/avg` is then the mean "
         "over the sets.\n\n## dapo sft: a line an update\n\n" +
         table_text(kSft);
}

}  // namespace dapo
