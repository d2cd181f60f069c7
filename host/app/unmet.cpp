#include "host/app/unmet.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/choices.h"

namespace dapo {

std::string unmet_pass_k(const EvalSection& eval) {
  std::vector<int> left_out;
  for (const int k : eval.pass_k)
    if (k > eval.n) left_out.push_back(k);
  if (left_out.empty()) return "";
  return fmt::format("pass@{} left out: it needs that many responses per problem, and eval.n (-n) = {}",
                     fmt::join(left_out, ", pass@"), eval.n);
}

std::vector<std::string> unmet_settings(const Config& given, const Config& fitted, double kv_gb,
                                        const Backend& backend) {
  std::vector<std::string> out;
  const auto add = [&]<class... A>(bool holds, fmt::format_string<A...> text, A&&... args) {
    if (holds) out.push_back(fmt::format(text, std::forward<A>(args)...));
  };
  const double kv = given.rollout.kv_memory_gb, total = static_cast<double>(backend.memory_total()) / 1e9;
  add(kv > total, "rollout.kv_memory_gb = {:g} is more than this machine's {:.3g} GB: {:.3g} GB are used", kv, total,
      kv_gb);
  add(kv > 0 && kv <= total && fitted.rollout.kv_memory_gb < kv,
      "rollout.kv_memory_gb = {:g} is more than the free memory: {:.3g} GB are used", kv, kv_gb);
  const TrainerSection& t = given.trainer;
  const bool evaluates = !given.data.val_files.empty() && (given.eval.before_train || given.eval.every > 0);
  if (const std::string pass = unmet_pass_k(given.eval); evaluates && !pass.empty()) out.push_back(pass);
  const ActorSection& a = given.actor;
  add(!given.model.reference.empty() && a.kl_loss_coef == 0,
      "model.reference is set, but actor.kl_loss_coef = 0: there is no KL, and no reference is loaded");
  add(a.kl_loss_coef > 0 && a.kl_loss_type == KlKind::k1,
      "actor.kl_loss_type = \"k1\": its expected gradient is 0, so the KL is measured but hardly limited; k2 or k3");
  add(a.policy_loss == LossKind::reinforce && (a.ppo_epochs > 1 || a.ppo_mini_batch_size < given.data.train_batch_size),
      "actor.policy_loss = \"reinforce\" corrects no ratio: all updates of a step but the first are off-policy; set "
      "actor.ppo_mini_batch_size = {} and actor.ppo_epochs = 1",
      given.data.train_batch_size);
  add(a.policy_loss == LossKind::gspo && a.loss_agg_mode != LossAgg::seq_mean_token_mean,
      "actor.policy_loss = \"gspo\" has the gradient of the sequences' ratios with actor.loss_agg_mode = "
      "\"seq-mean-token-mean\" only, not with \"{}\"",
      choice_name(a.loss_agg_mode));
  add(given.data.val_files.empty(), "data.val_files is not set: nothing is evaluated");
  add(given.actor.lr_warmup_steps > t.total_steps,
      "actor.lr_warmup_steps = {} is more than trainer.total_steps = {}: actor.lr = {:g} is never reached",
      given.actor.lr_warmup_steps, t.total_steps, given.actor.lr);
  return out;
}

std::vector<std::string> unmet_rows(const Config& config, const Dataset& train) {
  std::vector<std::string> out;
  const auto own = std::count_if(train.begin(), train.end(), [](const Example& e) {
    return !e.messages.empty() && e.messages[0].role == "system";
  });
  if (!config.data.system_prompt.empty() && own > 0)
    out.push_back(fmt::format("{} of {} rows have their own system message: data.system_prompt is not used for them",
                              own, train.size()));
  const auto padded = [](const Example& e) {
    return e.answer.size() > 1 && e.answer[0] == '0' && e.answer.find_first_not_of("0123456789") == std::string::npos;
  };
  const auto first = std::find_if(train.begin(), train.end(), padded);
  if (const std::string& verifier = config.reward.verifier;
      first != train.end() && (verifier == "math_dapo" || verifier == "exact"))
    out.push_back(fmt::format(
        "{} of {} ground truths have leading zeros, such as \"{}\": reward.verifier = \"{}\" compares text, so "
        "that {} is wrong; "
        "\"boxed\" compares numbers",
        std::count_if(train.begin(), train.end(), padded), train.size(), first->answer, verifier,
        first->answer.substr(std::min(first->answer.find_first_not_of('0'), first->answer.size() - 1))));
  if (config.data.train_batch_size > std::ssize(train))
    out.push_back(fmt::format("data.train_batch_size = {} is more than the {} rows: prompts repeat within a step",
                              config.data.train_batch_size, train.size()));
  return out;
}

}  // namespace dapo
