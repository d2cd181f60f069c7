// Checks across settings, and the numbers that follow from them.
#include <algorithm>
#include <cctype>
#include <tuple>

#include "core/backend.h"
#include "core/check.h"
#include "core/choices.h"
#include "host/train/objective.h"
#include "host/train/settings_table.h"
#include "host/verify/verify.h"

namespace dapo {

namespace {
void check_inputs(const Config& c, Use use, const std::string& where) {
  const auto need = [&](bool given, std::string_view key) {
    const std::string_view help = find_setting(key)->help;
    if (!given) fail_input("{}: {} is not set; it names {}", where, key, help.substr(0, help.find(';')));
  };
  need(!c.model.path.empty(), "model.path");
  if (use == Use::train) need(!c.data.train_files.empty(), "data.train_files");
  if (use == Use::train) need(!c.trainer.run_dir.empty(), "trainer.run_dir");
  if (use == Use::sft) need(!c.sft.files.empty(), "sft.files");
  if (use == Use::sft) need(!c.sft.out.empty(), "sft.out");
  if (use == Use::eval) need(!c.data.val_files.empty(), "data.val_files");
}
}  // namespace

namespace {
/// What a verifier needs beside its name.
void check_verifier(const std::string& where, std::string_view key, std::string_view verifier, bool command,
                    bool pattern) {
  for (const auto& [name, field, given] : {std::tuple{"command", "command", command}, {"format", "pattern", pattern}})
    if ((verifier == name) != given)
      fail_input("{}: {}.verifier = \"{}\" {}; {}", where, key, verifier,
                 given ? fmt::format("does not use {}.{}", key, field) : fmt::format("needs {}.{}", key, field),
                 given ? fmt::format("leave it out, or set {}.verifier = \"{}\"", key, name)
                       : "./dapo_train --settings explains it");
}

void check_reward(const RewardSection& r, const std::string& where) {
  check_verifier(where, "reward", r.verifier, !r.command.empty(), !r.pattern.empty());
  std::vector<std::string> names = {"verifier"};  // the verifier's own, in the metrics
  for (const RewardTerm& t : r.terms) {
    const auto letter = [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-' || c == '.'; };
    if (t.name.empty() || !std::ranges::all_of(t.name, letter))
      fail_input("{}: reward.terms: name = \"{}\" should be a word of letters, digits, _ - and . for the metrics",
                 where, t.name);
    if (std::ranges::find(names, t.name) != names.end())
      fail_input("{}: reward.terms: the name \"{}\" is taken; give each term its own", where, t.name);
    names.push_back(t.name);
    const std::string key = fmt::format("reward.terms[{}]", t.name);
    if (choice_index(kVerifierNames, t.verifier) < 0)
      fail_input("{}: {}.verifier = \"{}\" is not known: one of {}", where, key, t.verifier,
                 choice_list(kVerifierNames, ", "));
    check_verifier(where, key, t.verifier, !t.command.empty(), !t.pattern.empty());
  }
}
}  // namespace

void check_config(const Config& c, Use use, const std::string& where) {
  check_inputs(c, use, where);
  const auto require = [&]<class... A>(bool holds, fmt::format_string<A...> text, A&&... args) {
    if (!holds) fail_input("{}: {}", where, fmt::format(text, std::forward<A>(args)...));
  };
  const int64_t longest = int64_t{c.data.max_prompt_length} + c.data.max_response_length;
  require(c.reward.correct > c.reward.incorrect, "reward.correct = {} is not above reward.incorrect = {}",
          c.reward.correct, c.reward.incorrect);
  if (use != Use::sft) check_reward(c.reward, where);
  require(c.rollout.page_size % kKvTile == 0, "rollout.page_size = {} is not a multiple of {}", c.rollout.page_size,
          kKvTile);
  require(use == Use::eval || c.actor.ppo_max_token_len == 0 || c.actor.ppo_max_token_len >= longest,
          "actor.ppo_max_token_len = {} does not hold one prompt and response: data.max_prompt_length + "
          "data.max_response_length = {}; raise it, or 0 to choose by memory",
          c.actor.ppo_max_token_len, longest);
  for (const auto& [key, beta] : {std::pair{"actor.beta1", c.actor.beta1},
                                  {"actor.beta2", c.actor.beta2},
                                  {"sft.beta1", c.sft.beta1},
                                  {"sft.beta2", c.sft.beta2}})
    require(beta < 1, "{} = {} must be below 1", key, beta);
  require(c.actor.clip_ratio_c == 0 || c.actor.clip_ratio_c > 1,
          "actor.clip_ratio_c = {} must be more than 1, or 0: off", c.actor.clip_ratio_c);
  require(c.eval.temperature == 0 || c.eval.temperature >= static_cast<float>(kLeastTemperature),
          "eval.temperature = {:g} is too small: at least {}, or 0: the most probable token", c.eval.temperature,
          kLeastTemperature);
  require(use != Use::sft || c.parallel.ranks() == 1,
          "parallel.dp x parallel.tp = {} ranks: dapo sft runs on one; set both to 1", c.parallel.ranks());
  if (use != Use::train) return;

  const int batch = c.data.train_batch_size, mini = c.actor.ppo_mini_batch_size;

  int divisor = std::max(1, std::min(mini, batch));
  while (batch % divisor != 0) --divisor;
  require(batch % mini == 0,
          "actor.ppo_mini_batch_size = {} does not divide data.train_batch_size = {}; {} would (both count prompts)",
          mini, batch, divisor);

  require(
      c.parallel.tp == 0 || int64_t{mini} * c.rollout.n >= c.parallel.dp,
      "parallel.dp = {}: a mini-batch has {} responses (actor.ppo_mini_batch_size x rollout.n), and some ranks would "
      "never have one; lower parallel.dp, or raise parallel.tp instead",
      c.parallel.dp, int64_t{mini} * c.rollout.n);

  const int64_t most = int64_t{c.data.gen_batch_size} * c.algorithm.max_num_gen_batches;
  require(c.data.gen_batch_size == 0 || most >= batch,
          "data.gen_batch_size = {} x algorithm.max_num_gen_batches = {} never fills data.train_batch_size = {}; raise "
          "one of the first two",
          c.data.gen_batch_size, c.algorithm.max_num_gen_batches, batch);

  require(
      c.rollout.n >= 2 || !c.algorithm.filter_groups,
      "rollout.n = {} with algorithm.filter_groups = true keeps no group: one needs both right and wrong responses; "
      "set rollout.n to 2 or more",
      c.rollout.n);
  require(
      c.rollout.n >= 2 || c.algorithm.adv_estimator != AdvEstimator::rloo,
      "rollout.n = {} with algorithm.adv_estimator = \"rloo\": the baseline is the mean of the other responses; set "
      "rollout.n to 2 or more",
      c.rollout.n);
  require(!c.reward.overlong_buffer || c.reward.overlong_buffer_len <= c.data.max_response_length,
          "reward.overlong_buffer_len = {} is longer than data.max_response_length = {}; shorten it, or set "
          "reward.overlong_buffer = false",
          c.reward.overlong_buffer_len, c.data.max_response_length);
}

std::string derived_numbers(const Config& c) {
  const int64_t responses = int64_t{c.data.train_batch_size} * c.rollout.n;
  const int updates = c.data.train_batch_size / c.actor.ppo_mini_batch_size * c.actor.ppo_epochs;
  const int64_t longest = int64_t{c.data.max_prompt_length} + c.data.max_response_length;
  std::string out;
  const auto line = [&]<class... A>(const char* name, fmt::format_string<A...> text, A&&... args) {
    out += fmt::format("  {:<24} {}\n", name, fmt::format(text, std::forward<A>(args)...));
  };
  line("responses a step", "{} = {} prompts x {}", responses, c.data.train_batch_size, c.rollout.n);
  line("updates a step", "{}, each on {} responses", updates, int64_t{c.actor.ppo_mini_batch_size} * c.rollout.n);
  line("tokens a sequence", "{} at most = {} + {}", longest, c.data.max_prompt_length, c.data.max_response_length);
  line("tokens a response", "{} at most{}", c.data.max_response_length,
       c.reward.overlong_buffer
           ? fmt::format(", punished beyond {}", c.data.max_response_length - c.reward.overlong_buffer_len)
           : "");
  line("objective", "{} (preset {}), advantages {}, {}{}{}", choice_name(c.actor.policy_loss),
       choice_name(c.algorithm.preset), choice_name(c.algorithm.adv_estimator), choice_name(c.actor.loss_agg_mode),
       c.actor.kl_loss_coef > 0 ? fmt::format(", {} x KL ({}) to {}", c.actor.kl_loss_coef,
                                              choice_name(c.actor.kl_loss_type), reference_folder(c))
                                : "",
       c.actor.entropy_coeff > 0 ? fmt::format(", {} x entropy", c.actor.entropy_coeff) : "");
  line("response tokens a step", "{} at most", responses * c.data.max_response_length);
  if (c.algorithm.filter_groups)
    line("surplus groups", "{}",
         banks_surplus(c.algorithm, c.data)
             ? fmt::format("banked, up to {}: trained on within {} step{}, off-policy by as much (groups/age_max)",
                           c.data.train_batch_size, c.algorithm.max_age, c.algorithm.max_age == 1 ? "" : "s")
             : "dropped");
  line("pack", "{}",
       c.actor.ppo_max_token_len ? fmt::format("{} tokens", c.actor.ppo_max_token_len)
                                 : "as many tokens as memory allows");
  line("run", "{} steps, {} updates, {} responses", c.trainer.total_steps, int64_t{c.trainer.total_steps} * updates,
       c.trainer.total_steps * responses);
  return out;
}

}  // namespace dapo
