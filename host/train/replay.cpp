// Looking into a mini-batch whose update was refused.
#include <algorithm>
#include <cmath>

#include "host/train/limits.h"
#include "host/train/trainer.h"

namespace dapo {
namespace {

/// Lists the first of many findings.
class Findings {
 public:
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    constexpr int kShown = 12;
    if (++count_ <= kShown) text_ += fmt::format(format, std::forward<Args>(args)...) + "\n";
  }
  std::string text() const { return text_ + (count_ > 12 ? fmt::format("... {} findings in all\n", count_) : ""); }

 private:
  int count_ = 0;
  std::string text_;
};

/// Non-finite values of a flat buffer by parameter.
void look(Findings& out, const Learner& learner, const char* what, const Tensor& flat) {
  if (!flat) return;
  const ParamTable& params = learner.weights().params();
  for (const Param& p : params.all) {
    std::vector<float> values(p.numel());
    const Tensor part = flat.rows(p.offset, p.numel());
    if (flat.dtype == DType::f32) {
      learner.backend().copy_out_now(values.data(), part);
    } else {
      std::vector<bf16> half(values.size());
      learner.backend().copy_out_now(half.data(), part);
      std::ranges::transform(half, values.begin(), [](bf16 v) { return to_float(v); });
    }
    const auto bad = std::ranges::count_if(values, [](float v) { return !std::isfinite(v); });
    if (bad > 0) out.add("{} of {}: {} of {} values are not finite", what, p.name, bad, values.size());
  }
}

}  // namespace

std::string Trainer::replay() {
  CHECK_EQ(grid_.world.size(), 1, "a replay runs on one rank");
  Findings out;
  look(out, learner_, "weights", learner_.weights().flat());
  look(out, learner_, "first moments", learner_.moment1());
  look(out, learner_, "second moments", learner_.moment2());
  learner_.begin();
  const size_t size = config_.actor.ppo_mini_batch_size, groups = now_.groups.size();
  if (groups == 0) return out.text();
  const size_t begin = now_.mini_batches % ((groups + size - 1) / size) * size;
  const DapoLoss terms = loss_of(config_.actor);
  if (config_.actor.kl_loss_coef > 0) score_reference();
  for (MicroBatch& packed : pack(begin, std::min(begin + size, groups)).packs) {
    Pack& p = packed.pack;
    learner_.train(p, config_.rollout.temperature, terms);
    if (after_pack) after_pack(p);
    for (const Placement& place : packed.placements) {
      const Group& g = now_.groups[begin + place.group];
      for (int k = 0; k < place.length; ++k) {
        const int row = place.head_row(k);
        const std::pair<const char*, float> numbers[] = {
            {"advantage", p.advantage[row]},
            {"old log-prob", p.old_log_prob[row]},
            {"weight", p.weight[row]},
            {"log-prob", p.log_prob[row]},
            {"entropy", p.entropy[row]},
            {"loss", p.loss[row]},
            {"reference's log-prob", p.ref_log_prob.empty() ? 0.0f : p.ref_log_prob[row]}};
        for (const auto& [name, value] : numbers)
          if (!std::isfinite(value))
            out.add("row {} of the data, response {}, token {} (id {}): {} = {}", g.example, place.response, k,
                    g.samples[place.response].response.ids[k], name, value);
      }
    }
  }
  look(out, learner_, "gradient", learner_.gradients());
  learner_.zero_gradients();
  return out.text();
}

}  // namespace dapo
