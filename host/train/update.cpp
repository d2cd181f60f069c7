// The trainer's mini-batch updates.
#include <algorithm>
#include <cmath>
#include <exception>

#include "core/nvtx.h"
#include "host/train/limits.h"
#include "host/train/share.h"
#include "host/train/trainer.h"

namespace dapo {
namespace {

/// Whether the loss sees a response. Overlong filtering masks truncated ones (they still count in the advantages).
bool trained_on(const Sample& s, const AlgorithmSection& a) {
  return !(a.overlong_filtering && s.response.finish == Finish::length);
}

const std::vector<float>& old_log_prob(const Sample& s) {
  return s.old_log_prob.empty() ? s.response.log_prob : s.old_log_prob;
}

bool all_finite(const std::vector<float>& v) {
  return std::ranges::all_of(v, [](float x) { return std::isfinite(x); });
}

PackInput pack_input(const Group& g, bool mask, const AlgorithmSection& a) {
  PackInput out{g.prompt, {}};
  for (const Sample& s : g.samples) {
    const bool seen = !mask || trained_on(s, a);
    out.responses.push_back(
        {seen ? s.response.ids : std::span<const int32_t>(), old_log_prob(s), float(s.advantage), s.ref_log_prob});
  }
  return out;
}

/// Rows of a pack: its tokens, but for the last of each response, which is a target only.
int64_t tokens_of(const PackPlan& plan, const std::vector<PackInput>& inputs) {
  int64_t sum = 0;
  for (const PackPiece& p : plan.pieces) {
    sum += inputs[p.group].prompt.size();
    for (int i = p.begin; i < p.end; ++i) sum += std::max<int64_t>(0, std::ssize(inputs[p.group].responses[i].ids) - 1);
  }
  return sum;
}

/// The values of a response's tokens, from those of its pack's head rows.
std::vector<float> tokens_of(const Placement& p, const std::vector<float>& by_head_row) {
  std::vector<float> out(p.length);
  for (int k = 0; k < p.length; ++k) out[k] = by_head_row[p.head_row(k)];
  return out;
}

}  // namespace

/// Groups [begin, end) in packs, their tokens weighted so that the losses of all ranks' packs add up to the mini-batch's. A
/// mini-batch of fewer groups than actor.ppo_mini_batch_size weighs that much less, as in verl: its gradient is
/// noisier, and Adam would take it for a full one.
Trainer::MiniBatch Trainer::pack(size_t begin, size_t end) const {
  std::vector<PackInput> inputs;
  std::vector<size_t> first;  // index of each input's first response among all of the mini-batch's
  size_t responses = 0;
  for (size_t g = begin; g < end; ++g) {
    inputs.push_back(pack_input(now_.groups[g], true, config_.algorithm));
    first.push_back(responses);
    responses += inputs.back().responses.size();
  }
  const std::vector<PackPlan> plans = plan_packs(inputs, pack_limits(config_, learner_), grid_.data.size());
  MiniBatch out;
  constexpr int kMasked = -1;
  std::vector<int> tokens(responses, 0), pack_of(responses, kMasked);  // masked responses have no tokens
  for (size_t k = 0; k < plans.size(); ++k)
    for (const PackPiece& p : plans[k].pieces) {
      for (int i = p.begin; i < p.end; ++i) {
        const int length = inputs[p.group].responses[i].ids.size();
        tokens[first[p.group] + i] = length;
        if (length > 0) pack_of[first[p.group] + i] = k;
      }
    }
  int last = 0;
  for (int& pack : pack_of) {
    if (pack == kMasked) pack = last;  // counts in the pack of the response before it
    last = pack;
  }
  const std::vector<double> weights =
      loss_weights(config_.actor.loss_agg_mode, tokens, pack_of, config_.data.max_response_length);
  const double share = double(end - begin) / config_.actor.ppo_mini_batch_size;
  std::vector<size_t> packs(static_cast<size_t>(grid_.data.size()));
  for (const PackPlan& plan : plans) {
    out.tokens += tokens_of(plan, inputs);
    out.most_packs = std::max(out.most_packs, ++packs[static_cast<size_t>(plan.rank)]);
    if (plan.rank != grid_.data.rank()) continue;
    MicroBatch& packed = out.packs.emplace_back(build_pack(inputs, plan));
    std::vector<double> of_pack;
    for (const Placement& p : packed.placements) of_pack.push_back(share * weights[first[p.group] + p.response]);
    set_weights(packed, of_pack);
  }
  return out;
}

namespace {

/// What one rank adds to a mini-batch. The first rank's sums go on from the step's.
struct OwnPass {
  LossStats loss;
  Agreement agreement;
  double flops = 0;
  bool finite_inputs = true;
};

}  // namespace

/// Adds the gradient of a mini-batch, which begins with group `begin`, and its statistics to `loss`: of the packs of all
/// ranks. False if a number is not finite on any: the mini-batch has been refused.
bool Trainer::forward_backward(MiniBatch& mini_batch, size_t begin, LossStats& loss) {
  const DapoLoss terms = loss_of(config_.actor);
  PhaseTimes::Row& phase = sums_.phases[Phase::update];
  OwnPass own;
  if (grid_.data.rank() == 0) own.loss = loss, own.flops = phase.flops;
  const auto run = [&] {
    int64_t total = 0, done = 0;
    for (const MicroBatch& packed : mini_batch.packs) {
      const Pack& p = packed.pack;
      total += p.ids.size();
      own.finite_inputs = own.finite_inputs && all_finite(p.advantage) && all_finite(p.old_log_prob) &&
                          all_finite(p.weight) && all_finite(p.ref_log_prob);
    }
    if (!own.finite_inputs) return;
    for (MicroBatch& packed : mini_batch.packs) {
      Pack& p = packed.pack;
      learner_.train(p, config_.rollout.temperature, terms);
      if (after_pack) after_pack(p);
      add_loss_stats(own.loss, p.log_prob, p.old_log_prob, p.entropy, p.loss, p.weight, p.clip, p.ref_log_prob);
      if (sums_.updates == 0) compare_log_probs(packed, begin, own.agreement);
      done += p.ids.size();
      own.flops += 3 * learner_.config().forward_flops(p.ids.size(), attention_pairs(p), p.head_rows.size());
      if (terms.kind == LossKind::gspo) own.flops += learner_.config().forward_flops(0, 0, p.head_rows.size());
      const int64_t of_all =
          mini_batch.tokens * done / std::max<int64_t>(1, total);  // the ranks have about the same share
      // A signal to one rank of a tensor group: the others must not go on to the next pack.
      grid_.tensor.together([&] { progress_.report(Phase::update, of_all, mini_batch.tokens, phase.tokens + of_all); });
    }
  };
  // The last pack exchanges gradients before the ranks agree on errors. So a rank that fails still takes part in all of
  // the exchange, with whatever its gradients are: they are discarded on all ranks.
  grid_.world.together([&] {
    learner_.begin_gradients(mini_batch.packs.size(), mini_batch.most_packs);
    std::exception_ptr failed;
    try {
      run();
    } catch (...) {
      failed = std::current_exception();
    }
    try {
      learner_.end_gradients();
    } catch (const Error&) {
      if (!failed) throw;
    }
    if (failed) std::rethrow_exception(failed);
  });
  bool finite_inputs = true;
  loss = {}, phase.flops = 0;
  for (const OwnPass& pass : gather_values(grid_.data, own)) {
    loss.add(pass.loss);
    sums_.agreement.add(pass.agreement);
    phase.flops += pass.flops;
    finite_inputs = finite_inputs && pass.finite_inputs;
  }
  if (!finite_inputs) {
    refuse("an advantage, or a log-prob of the old policy or the reference, is not finite");
    return false;
  }
  phase.tokens += mini_batch.tokens;
  if (!loss.finite) refuse("a log-prob, entropy or loss is not finite");
  return loss.finite;
}

/// Applies the gradient; `loss`: the step's statistics including this mini-batch.
void Trainer::update(const LossStats& loss) {
  if (sums_.updates == 0) compare_one_group();
  const ActorSection& a = config_.actor;
  const Learner::UpdateResult r = learner_.update({.lr = float(sums_.lr),
                                                   .beta1 = float(a.beta1),
                                                   .beta2 = float(a.beta2),
                                                   .eps = float(a.eps),
                                                   .weight_decay = float(a.weight_decay),
                                                   .step = state_.updates + 1,
                                                   .max_norm = float(a.grad_clip)});
  if (grid_.data.size() > 1) {
    Learner::UpdateResult::Exchange most;
    for (const auto& of_rank : gather_values(grid_.world, r.exchange)) {
      most.bytes = std::max(most.bytes, of_rank.bytes);
      most.seconds = std::max(most.seconds, of_rank.seconds);
      most.waited = std::max(most.waited, of_rank.waited);
    }
    sums_.exchange_bytes += most.bytes, sums_.exchange_seconds += most.seconds, sums_.exchange_waited += most.waited;
  }
  if (!r.applied) return refuse("the gradient's norm is not finite");
  sums_.loss = loss;
  sums_.grad_norm += r.grad_norm;
  sums_.grad_norm_max = std::max(sums_.grad_norm_max, r.grad_norm);
  ++sums_.updates;
  ++state_.updates;
  state_.refused = 0;
}

/// Leaves weights and moments as they are, and discards the gradient.
void Trainer::refuse(const char* reason) {
  learner_.zero_gradients();
  ++sums_.updates_refused;
  ++state_.refused;
  sums_.alarms.push_back(fmt::format("update refused: {}", reason));
  if (state_.refused >= config_.trainer.nonfinite_patience)
    fail(kExitNumerics,
         "step {}: {}; {} updates refused in a row (trainer.nonfinite_patience); lower actor.lr, or look at the step's "
         "rollouts",
         sums_.step, reason, state_.refused);
}

/// Compares a pack's log-probs with the rollout's, for the groups that the current weights drew (those of this step,
/// before its first update). `begin`: index of the group that the pack calls 0.
void Trainer::compare_log_probs(const MicroBatch& packed, size_t begin, Agreement& agreement) const {
  for (const Placement& p : packed.placements) {
    const Group& g = now_.groups[begin + p.group];
    if (g.step != sums_.step) continue;
    const std::vector<float>& drawn = g.samples[p.response].response.log_prob;
    const std::vector<float> trained = tokens_of(p, packed.pack.log_prob);
    for (size_t k = 0; k < trained.size(); ++k) agreement.compare(drawn[k], trained[k]);
  }
}

/// Makes every step that draws show the equality: if no mini-batch before the first update held a response of this step
/// (banked groups came first, or all were masked), the first tensor group scores one of its groups.
void Trainer::compare_one_group() {
  if (sums_.agreement.tokens > 0) return;
  const auto fresh = std::ranges::find(now_.groups, sums_.step, &Group::step);
  if (fresh == now_.groups.end()) return;
  Agreement own;
  grid_.world.together([&] {
    if (grid_.data.rank() != 0) return;
    const PackInput input = pack_input(*fresh, false, config_.algorithm);
    for (MicroBatch& packed : pack_groups({&input, 1}, pack_limits(config_, learner_))) {
      learner_.score(packed.pack, config_.rollout.temperature);
      compare_log_probs(packed, fresh - now_.groups.begin(), own);
    }
  });
  sums_.agreement = value_of_first(grid_.data, own);
}

/// Gives every rank the values of the response tokens of all ranks' packs of the whole step.
void Trainer::share_scores(const std::vector<MicroBatch>& packs, std::vector<float> Pack::*values,
                           const std::function<void(Group&, Sample&, std::vector<float>)>& store) {
  ByteWriter own;
  for (const MicroBatch& packed : packs)
    for (const Placement& p : packed.placements) {
      own.put(p.group), own.put(p.response);
      own.put(tokens_of(p, packed.pack.*values));
    }
  for (const std::string& bytes : grid_.data.all_gather_bytes(own.bytes()))
    for (ByteReader in(bytes); !in.done();) {
      Group& g = now_.groups[in.get<int>()];
      Sample& s = g.samples[in.get<int>()];
      std::vector<float> scores;
      in.get(scores);
      store(g, s, std::move(scores));
    }
}

/// Scores the responses of this step by the weights that drew them: their log-probs must be the rollout's, and the
/// mismatch shows if they are not. Banked groups keep those of the older weights that drew them.
void Trainer::recompute_old_log_probs() {
  const NvtxRange range("old log-probs");
  MiniBatch all = pack(0, now_.groups.size());
  Agreement own;
  grid_.world.together([&] {
    for (MicroBatch& packed : all.packs) {
      learner_.score(packed.pack, config_.rollout.temperature);
      compare_log_probs(packed, 0, own);
    }
  });
  for (const Agreement& agreement : gather_values(grid_.data, own)) sums_.agreement.add(agreement);
  share_scores(all.packs, &Pack::log_prob, [&](Group& g, Sample& s, std::vector<float> scores) {
    if (g.step == sums_.step) s.old_log_prob = std::move(scores);
  });
}

/// Log-probs by the reference of every response that the loss sees.
void Trainer::score_reference() {
  const NvtxRange range("reference log-probs");
  CHECK(reference_ != nullptr, "actor.kl_loss_coef = {}: use_reference() comes first", config_.actor.kl_loss_coef);
  MiniBatch all = pack(0, now_.groups.size());
  double own = 0;
  grid_.world.together([&] {
    for (MicroBatch& packed : all.packs) {
      const Pack& p = packed.pack;
      learner_.score_reference(packed.pack, config_.rollout.temperature, *reference_);
      own += learner_.config().forward_flops(p.ids.size(), attention_pairs(p), p.head_rows.size());
    }
  });
  for (const double flops : gather_values(grid_.data, own)) sums_.phases[Phase::update].flops += flops;
  share_scores(all.packs, &Pack::ref_log_prob,
               [](Group&, Sample& s, std::vector<float> scores) { s.ref_log_prob = std::move(scores); });
}

}  // namespace dapo
