// The trainer's mini-batch updates and what a step reports of them.
#include <algorithm>
#include <cmath>

#include "host/limits.h"
#include "host/nvtx.h"
#include "host/trainer.h"

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

}  // namespace

/// Groups [begin, end) in packs, each token weighted so that the packs' losses add up to the mini-batch's.
std::vector<PackedGroups> Trainer::pack(size_t begin, size_t end) const {
  std::vector<PackGroup> groups;
  for (size_t g = begin; g < end; ++g) {
    groups.push_back({groups_[g].prompt, {}});
    for (const Sample& s : groups_[g].samples) {
      const bool seen = trained_on(s, config_.algorithm);
      groups.back().responses.push_back(
          {seen ? s.response.ids : std::span<const int32_t>(), old_log_prob(s), static_cast<float>(s.advantage)});
    }
  }
  std::vector<PackedGroups> packs = pack_groups(groups, pack_limits(config_, model_));
  std::vector<int> tokens, pack_of;
  for (size_t k = 0; k < packs.size(); ++k)
    for (const PackedResponse& r : packs[k].responses) {
      tokens.push_back(r.length);
      pack_of.push_back(static_cast<int>(k));
    }
  const std::vector<double> weights = loss_weights(parse_loss_agg(config_.actor.loss_agg_mode), tokens, pack_of);
  size_t next = 0;
  for (PackedGroups& p : packs) {
    set_weights(p, std::span(weights).subspan(next, p.responses.size()));
    next += p.responses.size();
  }
  return packs;
}

void Trainer::update(size_t begin, size_t end, bool first, StepMetrics& m) {
  const NvtxRange range("update");
  std::vector<PackedGroups> packs = pack(begin, end);
  if (packs.empty()) return;  // every response is masked
  for (const PackedGroups& p : packs)
    if (!all_finite(p.pack.advantage) || !all_finite(p.pack.old_log_prob) || !all_finite(p.pack.weight))
      return refuse("an advantage or an old log-prob is not finite", m);
  const ActorSection& a = config_.actor;
  const DapoLoss loss{static_cast<float>(a.clip_ratio_low), static_cast<float>(a.clip_ratio_high),
                      static_cast<float>(a.clip_ratio_c), 20.0f};
  PhaseTimes::Row& phase = m.phases[Phase::update];
  int64_t total = 0, done = 0;
  for (const PackedGroups& p : packs) total += static_cast<int64_t>(p.pack.ids.size());
  LossStats stats = stats_;
  for (PackedGroups& packed : packs) {
    Pack& p = packed.pack;
    model_.train(p, config_.rollout.temperature, loss);
    if (after_pack) after_pack(p);
    add_loss_stats(stats, p.log_prob, p.old_log_prob, p.entropy, p.loss, p.weight, p.clip,
                   first ? exact_rows(packed, begin, m.step) : std::vector<uint8_t>());
    done += static_cast<int64_t>(p.ids.size());
    phase.flops += 3 * model_.config().forward_flops(static_cast<double>(p.ids.size()), attention_pairs(p),
                                                     static_cast<double>(p.rows.size()));
    progress_.report(Phase::update, done, total, phase.tokens + done);
  }
  phase.tokens += total;
  if (!stats.finite) return refuse("a log-prob, entropy or loss is not finite", m);
  const Model::UpdateResult r = model_.update(
      {static_cast<float>(m.lr), static_cast<float>(a.beta1), static_cast<float>(a.beta2), static_cast<float>(a.eps),
       static_cast<float>(a.weight_decay), state_.updates + 1, static_cast<float>(a.grad_clip)});
  if (!r.applied) return refuse("the gradient's norm is not finite", m);
  stats_ = stats;
  m.grad_norm = r.grad_norm;
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

/// Rows whose old log-probs come from the weights that the first update finds: all but those of banked groups.
std::vector<uint8_t> Trainer::exact_rows(const PackedGroups& packed, size_t begin, int64_t step) const {
  const bool recomputed = config_.actor.old_logprobs == "recompute";
  std::vector<uint8_t> exact(packed.pack.rows.size(), 0);
  for (const PackedResponse& r : packed.responses)
    if (recomputed || groups_[begin + static_cast<size_t>(r.group)].step == step)
      for (int k = 0; k < r.length; ++k) exact[static_cast<size_t>(r.head_row(k))] = 1;
  return exact;
}

/// Scores every response by the present weights, and says how far that is from what rollout saw.
void Trainer::recompute_old_log_probs(StepMetrics& m) {
  const NvtxRange range("old log-probs");
  for (PackedGroups& packed : pack(0, groups_.size())) {
    model_.score(packed.pack, config_.rollout.temperature);
    for (const PackedResponse& r : packed.responses) {
      SampleGroup& g = groups_[static_cast<size_t>(r.group)];
      Sample& s = g.samples[static_cast<size_t>(r.response)];
      s.old_log_prob.resize(static_cast<size_t>(r.length));
      for (size_t k = 0; k < s.old_log_prob.size(); ++k) {
        const float now = packed.pack.log_prob[static_cast<size_t>(r.head_row(static_cast<int>(k)))];
        s.old_log_prob[k] = now;
        if (g.step == m.step) m.mismatch = std::max(m.mismatch, std::abs(double{now} - s.response.log_prob[k]));
      }
    }
  }
}

}  // namespace dapo
