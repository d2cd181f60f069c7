// Config files and --set: every setting is written and read back, every mistake is reported with its place.
#include "host/train/settings.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "core/check.h"
#include "core/choices.h"
#include "host/train/settings_table.h"
#include "tests/host/train/settings_case.h"

namespace dapo {
namespace {

TEST_F(ConfigTest, DefaultsAreTheHeaders) {
  const Config c = load_config(file(kLeast), {});
  EXPECT_EQ(c.data.train_batch_size, 512);
  EXPECT_EQ(c.rollout.n, 16);
  EXPECT_EQ(c.actor.ppo_mini_batch_size, 32);
  EXPECT_EQ(c.actor.clip_ratio_high, 0.28);
  EXPECT_EQ(c.data.train_files, std::vector<std::string>{"t.jsonl"});
}

TEST_F(ConfigTest, FileThenSettingsInOrder) {
  const Config c = load_config(
      file(kLeast + "[actor]\nlr = 3e-4\nclip_ratio_high = 0.3\n[eval]\npass_k = [1, 4]\n"),
      {"actor.lr=1e-5", "actor.lr=2e-5", "data.prompt_template=raw", "model.recompute=true", "data.val_files=a.jsonl",
       "sft.files=[\"x\", \"y\"]", "eval.pass_k=[2, 3]", "data.prompt_suffix=\"\\n\\\\boxed{}\"",
       "data.system_prompt=a = b", "eval.top_p=0.5", "trainer.seed=9223372036854775807", "rollout.temperature=1"});
  EXPECT_EQ(c.actor.lr, 2e-5);
  EXPECT_EQ(c.actor.clip_ratio_high, 0.3);
  EXPECT_EQ(c.data.prompt_template, PromptStyle::raw);
  EXPECT_TRUE(c.model.recompute);
  EXPECT_EQ(c.data.val_files, std::vector<std::string>{"a.jsonl"});
  EXPECT_EQ(c.sft.files, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(c.eval.pass_k, (std::vector<int>{2, 3}));
  EXPECT_EQ(c.data.prompt_suffix, "\n\\boxed{}");
  EXPECT_EQ(c.data.system_prompt, "a = b");
  EXPECT_EQ(c.eval.top_p, 0.5f);
  EXPECT_EQ(c.rollout.temperature, 1.0f);
  EXPECT_EQ(c.trainer.seed, 9223372036854775807u);
}

TEST_F(ConfigTest, WhatIsWrittenIsReadBack) {
  Config c =
      load_config(file(kLeast), {"actor.lr=1.2345678901234567e-7", "eval.top_p=0.7", "trainer.seed=123456789012"});
  c.data.prompt_suffix = "quote \" backslash \\ newline \n tab \t bell \a delete \x7f umlaut \xc3\xbc";
  c.data.val_files = {"a b", "c"};
  const std::string text = config_text(c);
  const Config again = load_config(file(text), {});
  EXPECT_EQ(config_text(again), text);
  EXPECT_EQ(again.actor.lr, c.actor.lr);
  EXPECT_EQ(again.eval.top_p, c.eval.top_p);
  EXPECT_EQ(again.data.prompt_suffix, c.data.prompt_suffix);
  EXPECT_EQ(again.data.val_files, c.data.val_files);
}

/// Converts to the type of any field of an aggregate.
struct AnyValue {
  template <class T>
  operator T() const;
};
/// The number of fields of an aggregate: as many initializers as it takes.
template <class T, class... Values>
consteval int fields() {
  if constexpr (requires { T{Values{}..., AnyValue{}}; })
    return fields<T, Values..., AnyValue>();
  else
    return sizeof...(Values);
}

TEST_F(ConfigTest, EveryFieldHasARow) {
  std::map<std::string_view, int> rows;
  std::set<const void*> members;
  Config config;
  for (const Setting& s : all_settings()) {
    ++rows[s.section()];
    members.insert(std::visit([](auto* member) -> const void* { return member; }, s.member(config)));
    EXPECT_FALSE(s.help.empty()) << s.key;
  }
  EXPECT_EQ(members.size(), all_settings().size());
  const std::map<std::string_view, int> expected = {
      {"model", fields<ModelSection>()},
      {"data", fields<DataSection>()},
      {"rollout", fields<RolloutSection>()},
      {"actor", fields<ActorSection>()},
      {"algorithm", fields<AlgorithmSection>()},
      {"reward", fields<RewardSection>()},
      {"sft", fields<SftSection>()},
      {"eval", fields<EvalSection>()},
      {"trainer", fields<TrainerSection>()},
      {"parallel", fields<ParallelSection>()},
  };
  EXPECT_EQ(rows, expected);
  EXPECT_EQ(static_cast<int>(rows.size()), fields<Config>());
  EXPECT_EQ(rows.size(), all_sections().size());
  EXPECT_GT(all_settings().size(), 80u);
}

template <class E>
std::vector<std::string_view> names_of(std::initializer_list<E> values) {
  std::vector<std::string_view> names;
  for (const E value : values) names.push_back(choice_name(value));
  return names;
}

TEST_F(ConfigTest, WordsOfEnumsAreInTheOrderOfTheValues) {
  using Words = std::vector<std::string_view>;
  EXPECT_EQ(names_of({DeviceChoice::automatic, DeviceChoice::cpu, DeviceChoice::cuda}), (Words{"auto", "cpu", "cuda"}));
  EXPECT_EQ(names_of({DTypeChoice::automatic, DTypeChoice::bf16, DTypeChoice::f32}), (Words{"auto", "bf16", "f32"}));
  EXPECT_EQ(names_of({RowFormat::automatic, RowFormat::countdown}), (Words{"auto", "countdown"}));
  EXPECT_EQ(names_of({PromptStyle::automatic, PromptStyle::raw, PromptStyle::chatml, PromptStyle::dapo}),
            (Words{"auto", "raw", "chatml", "dapo"}));
  EXPECT_EQ(names_of({OverlongPrompts::drop, OverlongPrompts::error}), (Words{"drop", "error"}));
  EXPECT_EQ(names_of({LrSchedule::constant, LrSchedule::cosine, LrSchedule::linear}),
            (Words{"constant", "cosine", "linear"}));
  EXPECT_EQ(names_of({LossAgg::token_mean, LossAgg::seq_mean_token_mean, LossAgg::seq_mean_token_sum,
                      LossAgg::seq_mean_token_sum_norm, LossAgg::token_mean_per_micro_batch}),
            (Words{"token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm",
                   "token-mean-per-micro-batch"}));
  EXPECT_EQ(names_of({OldLogProbs::rollout, OldLogProbs::recompute}), (Words{"rollout", "recompute"}));
  EXPECT_EQ(names_of({LossKind::clip, LossKind::gspo, LossKind::cispo, LossKind::reinforce}),
            (Words{"clip", "gspo", "cispo", "reinforce"}));
  EXPECT_EQ(names_of({KlKind::k1, KlKind::k2, KlKind::k3}), (Words{"k1", "k2", "k3"}));
  EXPECT_EQ(names_of({AdvEstimator::grpo, AdvEstimator::rloo, AdvEstimator::reinforce_plus_plus,
                      AdvEstimator::reinforce_plus_plus_baseline}),
            (Words{"grpo", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline"}));
  EXPECT_EQ(names_of({Surplus::automatic, Surplus::bank, Surplus::drop}), (Words{"auto", "bank", "drop"}));
}

TEST_F(ConfigTest, EveryChoiceIsReadAndWritten) {
  int settings = 0;
  for (const Setting& s : all_settings()) {
    if (s.choices().empty()) continue;
    ++settings;
    for (std::string_view rest = s.choices(); !rest.empty();) {
      const std::string word(rest.substr(0, rest.find('|')));
      rest.remove_prefix(std::min(rest.size(), word.size() + 1));
      std::vector<std::string> set = {fmt::format("{}={}", s.key, word)};
      if (word == "format") set.push_back("reward.pattern=x");  // what these verifiers need beside their name
      if (word == "command") set.push_back("reward.command=x");
      const Config c = load_config(file(kLeast), set);
      EXPECT_NE(config_text(c).find(fmt::format("\n{} = \"{}\"\n", s.field(), word)), std::string::npos) << s.key;
    }
    EXPECT_NE(error(kLeast, {fmt::format("{}=", s.key)}).find(fmt::format("one of {}", s.choices())),
              std::string::npos);
  }
  EXPECT_EQ(settings, 16);
  EXPECT_EQ(parse_choice<Surplus>("--surplus", "drop"), Surplus::drop);
  const std::string refused = error_of(kExitUsage, [] { parse_choice<Surplus>("--surplus", "keep"); });
  EXPECT_EQ(refused, "--surplus keep: not known; one of auto, bank, drop");
}

TEST_F(ConfigTest, HelpIsACfgFileOfTheDefaults) {
  const std::vector<std::string> least = {"model.path=m", "data.train_files=t"};
  Config defaults;
  apply_settings(defaults, least);
  EXPECT_EQ(config_text(load_config(file(settings_help()), least)), config_text(defaults));
  std::istringstream help(settings_help());
  std::string uncommented;
  int keys = 0;
  for (std::string line, above; std::getline(help, line); above = line) {
    EXPECT_LE(line.size(), 100u) << line;
    if (line.starts_with('#') || line.empty()) continue;
    EXPECT_TRUE(above.starts_with("# ")) << line << ": no comment above";
    if (line.starts_with('[') && !uncommented.empty()) uncommented += '\n';
    uncommented += line + '\n';
    keys += !line.starts_with('[');
  }
  EXPECT_EQ(uncommented, config_text(Config()));
  EXPECT_EQ(keys, static_cast<int>(all_settings().size()));
  EXPECT_NE(settings_help().find("# auto | bf16 | f32\ndtype = \"auto\"\n"), std::string::npos);
  EXPECT_NE(settings_help().find("# more than 0, at most 1\ntop_p = 1\n"), std::string::npos);
}

TEST_F(ConfigTest, DocsAreUpToDate) {
  std::ifstream in("docs/settings.md");
  if (!in) GTEST_SKIP() << "skipped: docs/settings.md is not below the working directory";
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  EXPECT_TRUE(text == settings_markdown()) << "docs/settings.md is not what the table says: run `make docs`";
  for (const Setting& s : all_settings())
    EXPECT_NE(text.find(fmt::format("\n| `{}` | `", s.field())), std::string::npos) << s.key;
}

TEST_F(ConfigTest, UnknownKeysNameTheNearest) {
  EXPECT_EQ(error(kLeast + "[actor]\nlr = 1e-6\nclip_ratio_hihg = 0.3\n"),
            "a.cfg:7: unknown setting actor.clip_ratio_hihg; did you mean actor.clip_ratio_high?");
  EXPECT_EQ(error(kLeast, {"algorithm.clip_ratio_high=0.3"}),
            "--set algorithm.clip_ratio_high=0.3: unknown setting algorithm.clip_ratio_high; did you mean "
            "actor.clip_ratio_high?");
  EXPECT_EQ(error("lr = 1\n" + kLeast),
            "a.cfg:1: lr stands outside of any section, such as [actor]; did you mean actor.lr?");
  EXPECT_EQ(error(kLeast + "[aktor]\nlr = 1\n"), "a.cfg:6: unknown setting aktor.lr; did you mean actor.lr?");
  EXPECT_EQ(error(kLeast + "[aktor]\n"), "a.cfg:5: unknown section [aktor]");
}

TEST_F(ConfigTest, NamesOfOtherProgramsLeadToOurs) {
  const auto hint = [&](const std::string& key) {
    const std::string what = error(kLeast, {key + "=1"});
    return what.substr(std::min(what.size(), what.find("; ") + 2));
  };
  for (const auto& [name, key] : {std::pair{"actor.learning_rate", "actor.lr"},
                                  {"actor.optim.lr", "actor.lr"},
                                  {"trainer.learning_rate", "actor.lr"},
                                  {"rollout.max_tokens", "data.max_response_length"},
                                  {"rollout.num_generations", "rollout.n"},
                                  {"data.batch_size", "data.train_batch_size (prompts a step)"},
                                  {"actor.epsilon_high", "actor.clip_ratio_high"},
                                  {"actor.epsilon", "actor.clip_ratio_low and actor.clip_ratio_high"},
                                  {"trainer.output_dir", "trainer.run_dir"},
                                  {"trainer.total_epochs", "trainer.total_steps (rollout steps)"},
                                  {"reward.overlong_buffer.len", "reward.overlong_buffer_len"},
                                  {"model.pth", "model.path"},
                                  {"data.top_p", "rollout.top_p"}})
    EXPECT_EQ(hint(name), std::string("did you mean ") + key + "?") << name;
  for (const char* name : {"actor.use_kl_loss", "algorithm.kl_coef", "algorithm.beta", "actor.init_kl_coef"})
    EXPECT_EQ(hint(name), "did you mean actor.kl_loss_coef?") << name;
  EXPECT_NE(hint("algorithm.use_kl_in_reward").find("the KL goes into the loss"), std::string::npos);
  int names = 0;
  for (const Setting& s : all_settings()) {
    const std::string verl(s.other.verl), trl(s.other.trl);
    std::vector<std::string> others;
    if (!verl.empty()) others.push_back("actor_rollout_ref." + verl);
    if (!verl.empty() && find_setting(verl) == nullptr) others.push_back(verl);
    if (!trl.empty()) others.push_back("args." + trl);
    for (const std::string& other : others) EXPECT_NE(hint(other).find(s.key), std::string::npos) << other;
    names += static_cast<int>(others.size());
  }
  EXPECT_GT(names, 40);
  EXPECT_NE(hint("algorithm.critic_warmup").find("no critic"), std::string::npos);
  EXPECT_EQ(hint("actor.zebra_crossing"), "./dapo_train --settings lists them all");
}

}  // namespace
}  // namespace dapo
