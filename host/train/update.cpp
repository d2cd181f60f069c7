// The trainer's mini-batch updates and what a step reports of them.
#include <algorithm>
#include <cmath>

#include "core/nvtx.h"
#include "host/train/limits.h"
#include "host/train/trainer.h"

namespace dapo {
namespace {

/// Responses that the loss sees; overlong filtering masks truncated ones (they keep their part in the advantages).
bool trained_on(const Sample& s, const AlgorithmSection& a) {
  return !(a.overlong_filtering && s.response.finish == Finish::length);
}

const std::vector<float>& old_log_prob(const Sample& s) {
  return s.old_log_prob.empty() ? s.response.log_prob : s.old_log_prob;
}

bool all_finite(const std::vector<float>& v) {
  return std::all_of(v.begin(), v.end(), [](float x) { return std::isfinite(x); });
}

PackGroup pack_input(const SampleGroup& g, bool mask, const AlgorithmSection& a) {
  PackGroup out{g.prompt, {}};
  for (const Sample& s : g.samples) {
    const bool seen = !mask || trained_on(s, a);
    out.responses.push_back(
        {seen ? s.response.ids : std::span<const int32_t>(), old_log_prob(s), static_cast<float>(s.advantage)});
  }
  return out;
}

}  // namespace

/// Groups [begin, end) in packs, each token weighted so that the packs' losses add up to the mini-batch's. One of fewer
/// groups than actor.ppo_mini_batch_size counts for as much less, as in verl: Adam would take its noisier gradient for
/// a full one.
std::vector<PackedGroups> Trainer::pack(size_t begin, size_t end) const {
  std::vector<PackGroup> groups;
  std::vector<size_t> first_of;  // index of a group's first response in `tokens`
  size_t responses = 0;
  for (size_t g = begin; g < end; ++g) {
    groups.push_back(pack_input(groups_[g], true, config_.algorithm));
    first_of.push_back(responses);
    responses += groups.back().responses.size();
  }
  std::vector<PackedGroups> packs = pack_groups(groups, pack_limits(config_, model_));
  const auto index = [&](const PackedResponse& r) {
    return first_of[static_cast<size_t>(r.group)] + static_cast<size_t>(r.response);
  };
  std::vector<int> tokens(responses, 0), pack_of(responses, -1);  // masked responses have no tokens
  for (size_t k = 0; k < packs.size(); ++k)
    for (const PackedResponse& r : packs[k].responses) {
      tokens[index(r)] = r.length;
      pack_of[index(r)] = static_cast<int>(k);
    }
  for (size_t i = 0, last = 0; i < responses; ++i) {  // and count in the pack of the response before them
    if (pack_of[i] >= 0) last = static_cast<size_t>(pack_of[i]);
    pack_of[i] = static_cast<int>(last);
  }
  const std::vector<double> weights =
      loss_weights(config_.actor.loss_agg_mode, tokens, pack_of, config_.data.max_response_length);
  const double share = static_cast<double>(end - begin) / config_.actor.ppo_mini_batch_size;
  for (PackedGroups& p : packs) {
    std::vector<double> of_pack;
    for (const PackedResponse& r : p.responses) of_pack.push_back(share * weights[index(r)]);
    set_weights(p, of_pack);
  }
  return packs;
}

void Trainer::update(size_t begin, size_t end, StepMetrics& m) {
  const NvtxRange range("update");
  std::vector<PackedGroups> packs = pack(begin, end);
  if (packs.empty()) return;  // every response is masked
  for (const PackedGroups& p : packs)
    if (!all_finite(p.pack.advantage) || !all_finite(p.pack.old_log_prob) || !all_finite(p.pack.weight))
      return refuse("an advantage or an old log-prob is not finite", m);
  const ActorSection& a = config_.actor;
  const DapoLoss loss{.clip_low = static_cast<float>(a.clip_ratio_low),
                      .clip_high = static_cast<float>(a.clip_ratio_high),
                      .dual_clip = static_cast<float>(a.clip_ratio_c)};
  PhaseTimes::Row& phase = m.phases[Phase::update];
  int64_t total = 0, done = 0;
  for (const PackedGroups& p : packs) total += static_cast<int64_t>(p.pack.ids.size());
  LossStats stats = stats_;
  for (PackedGroups& packed : packs) {
    Pack& p = packed.pack;
    model_.train(p, config_.rollout.temperature, loss);
    if (after_pack) after_pack(p);
    add_loss_stats(stats, p.log_prob, p.old_log_prob, p.entropy, p.loss, p.weight, p.clip);
    if (m.updates == 0) compare_log_probs(packed, begin, m.step);
    done += static_cast<int64_t>(p.ids.size());
    phase.flops += 3 * model_.config().forward_flops(static_cast<double>(p.ids.size()), attention_pairs(p),
                                                     static_cast<double>(p.rows.size()));
    progress_.report(Phase::update, done, total, phase.tokens + done);
  }
  phase.tokens += total;
  if (!stats.finite) return refuse("a log-prob, entropy or loss is not finite", m);
  if (m.updates == 0) compare_a_fresh_group(m.step);
  const Model::UpdateResult r = model_.update(
      {static_cast<float>(m.lr), static_cast<float>(a.beta1), static_cast<float>(a.beta2), static_cast<float>(a.eps),
       static_cast<float>(a.weight_decay), state_.updates + 1, static_cast<float>(a.grad_clip)});
  if (!r.applied) return refuse("the gradient's norm is not finite", m);
  stats_ = stats;
  grad_norms_ += r.grad_norm;
  m.grad_norm_max = std::max(m.grad_norm_max, r.grad_norm);
  ++m.updates;
  ++state_.updates;
  state_.refused = 0;
}

/// Leaves weights and moments as they are, and no trace of the bad gradient.
void Trainer::refuse(const char* what, StepMetrics& m) {
  model_.backend().zero(model_.gradients());
  ++m.updates_refused;
  ++state_.refused;
  m.alarms.push_back(fmt::format("update refused: {}", what));
  if (state_.refused >= config_.trainer.nonfinite_patience)
    fail(kExitNumerics,
         "step {}: {}; {} updates refused in a row (trainer.nonfinite_patience); lower actor.lr, or look at the step's "
         "rollouts",
         m.step, what, state_.refused);
}

/// Compares a pack's log-probs with the rollout's, for the groups that the present weights drew (those of this step,
/// before its first update). `begin`: index of the pack's group 0.
void Trainer::compare_log_probs(const PackedGroups& packed, size_t begin, int64_t step) {
  for (const PackedResponse& r : packed.responses) {
    const SampleGroup& g = groups_[begin + static_cast<size_t>(r.group)];
    if (g.step != step) continue;
    const std::vector<float>& drawn = g.samples[static_cast<size_t>(r.response)].response.log_prob;
    for (int k = 0; k < r.length; ++k)
      agreement_.compare(drawn[static_cast<size_t>(k)], packed.pack.log_prob[static_cast<size_t>(r.head_row(k))]);
  }
}

/// So that every step that draws shows the equality: where no mini-batch before the first update held one of its own
/// responses (the bank came first, or they are masked), one group is scored for it.
void Trainer::compare_a_fresh_group(int64_t step) {
  if (agreement_.tokens > 0) return;
  const auto fresh =
      std::find_if(groups_.begin(), groups_.end(), [step](const SampleGroup& g) { return g.step == step; });
  if (fresh == groups_.end()) return;
  const PackGroup input = pack_input(*fresh, false, config_.algorithm);
  for (PackedGroups& packed : pack_groups({&input, 1}, pack_limits(config_, model_))) {
    model_.score(packed.pack, config_.rollout.temperature);
    compare_log_probs(packed, static_cast<size_t>(fresh - groups_.begin()), step);
  }
}

/// Scores the responses of this step by the weights that drew them: the very log-probs of rollout, or a mismatch to be
/// seen. Banked groups keep those of the older weights that drew them.
void Trainer::recompute_old_log_probs(StepMetrics& m) {
  const NvtxRange range("old log-probs");
  for (PackedGroups& packed : pack(0, groups_.size())) {
    model_.score(packed.pack, config_.rollout.temperature);
    compare_log_probs(packed, 0, m.step);
    for (const PackedResponse& r : packed.responses) {
      SampleGroup& g = groups_[static_cast<size_t>(r.group)];
      if (g.step != m.step) continue;
      std::vector<float>& old = g.samples[static_cast<size_t>(r.response)].old_log_prob;
      for (int k = 0; k < r.length; ++k) old.push_back(packed.pack.log_prob[static_cast<size_t>(r.head_row(k))]);
    }
  }
}

}  // namespace dapo
