// Settings with wrong values, and files that hold none: every mistake is reported with its place.
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>

#include "core/choices.h"
#include "host/train/settings_table.h"
#include "tests/host/train/settings_case.h"

namespace dapo {
namespace {

TEST_F(ConfigTest, ValuesThatAreNotToml) {
  const auto hint = [&](const std::string& line) {
    const std::string what = error("[x]\n" + line + "\n");
    EXPECT_EQ(what.substr(0, 8), "a.cfg:2:") << what;
    const size_t at = what.rfind("; ");
    return what.substr(at == what.npos ? 9 : at + 2);
  };
  EXPECT_EQ(hint("path = models/qwen"), "text needs quotes: path = \"models/qwen\"");
  EXPECT_EQ(hint("path = ~/qwen  # mine"), "text needs quotes: path = \"~/qwen\"");
  EXPECT_EQ(hint("verifier = math_dapo"), "text needs quotes: verifier = \"math_dapo\"");
  EXPECT_EQ(hint("shuffle = True"), "write shuffle = true");
  EXPECT_EQ(hint("shuffle = yes"), "write shuffle = true or shuffle = false");
  EXPECT_EQ(hint("lr = .5"), "write lr = 0.5");
  EXPECT_EQ(hint("lr = 5."), "5. is not how TOML writes a number (1.0, 1e-6, 1_000)");
  EXPECT_EQ(hint("lr ="), "lr has no value");
  EXPECT_EQ(hint("seed = None"), "leave seed out for its default");
  EXPECT_EQ(hint("lr: 1e-6"), "write lr = 1e-6");
}

/// Words and variables that would become a text or the name of a folder.
TEST_F(ConfigTest, TextsThatWereMeantOtherwise) {
  for (const char* word : {"null", "None", "none"}) {
    const std::string given = fmt::format("data.system_prompt={}", word);
    EXPECT_EQ(
        error(kLeast, {given}),
        fmt::format("--set {}: leave data.system_prompt out for its default; write data.system_prompt=\"\" for none, "
                    "or data.system_prompt='\"{}\"' for the word itself",
                    given, word));
  }
  EXPECT_NE(error(kLeast, {"data.val_files=None"}).find("write data.val_files=[] for none"), std::string::npos);
  EXPECT_EQ(error(kLeast, {"data.system_prompt=\"None\"", "data.prompt_suffix=None of these"}), "");
  EXPECT_EQ(error(kLeast, {"data.val_files=[]", "data.system_prompt="}), "");
  EXPECT_EQ(error(kLeast + "[trainer]\nrun_dir = \"$HOME/runs\"\n"),
            "trainer.run_dir = \"$HOME/runs\": variables of the shell are not replaced here; write the path itself, or "
            "--set trainer.run_dir=... in double quotes");
  EXPECT_NE(error(kLeast, {"sft.out=${OUT}/model"}).find("sft.out = "), std::string::npos);
  EXPECT_EQ(error(kLeast, {"trainer.run_dir=runs/cost_5$"}), "");
}

TEST_F(ConfigTest, WrongKindsAndValues) {
  EXPECT_EQ(error(kLeast + "[rollout]\nn = 1.5\n"), "a.cfg:6: rollout.n expects a whole number, found a number");
  EXPECT_EQ(error(kLeast + "[rollout]\nn = \"16\"\n"), "a.cfg:6: rollout.n expects a whole number, found a text");
  EXPECT_EQ(error(kLeast + "[rollout]\nn = 99999999999\n"),
            "a.cfg:6: rollout.n = 99999999999 is too large: at most 65536");
  EXPECT_EQ(error(kLeast, {"actor.ppo_epochs=99999999999"}),
            "--set actor.ppo_epochs=99999999999: actor.ppo_epochs = 99999999999 is outside -2147483648 ... 2147483647");
  EXPECT_EQ(error(kLeast, {"rollout.top_p=0"}), "--set rollout.top_p=0: rollout.top_p = 0 is too small: more than 0");
  EXPECT_EQ(error(kLeast, {"actor.lr=nan"}), "--set actor.lr=nan: actor.lr = nan is not a finite number");
  EXPECT_EQ(error(kLeast, {"rollout.top_p=1.01"}),
            "--set rollout.top_p=1.01: rollout.top_p = 1.01 is too large: at most 1");
  EXPECT_EQ(error(kLeast, {"model.device=gpu"}),
            "--set model.device=gpu: model.device = \"gpu\" is not known: one of auto|cpu|cuda");
  EXPECT_EQ(error(kLeast, {"model.device=cpu|cuda"}),
            "--set model.device=cpu|cuda: model.device = \"cpu|cuda\" is not known: one of auto|cpu|cuda");
  EXPECT_EQ(error(kLeast, {"data.shuffle=yes"}),
            "--set data.shuffle=yes: expects a number, true/false, \"text\" or a [list] after =; write data.shuffle = "
            "true or "
            "data.shuffle = false");
  EXPECT_EQ(error(kLeast, {"actor.lr="}),
            "--set actor.lr=: expects a number, true/false, \"text\" or a [list] after =");
  EXPECT_EQ(error(kLeast, {"actor.lr"}), "--set actor.lr: expects section.field=value, such as --set actor.lr=1e-6");
  EXPECT_EQ(error(kLeast, {"learning_rate=1"}),
            "--set learning_rate=1: expects section.field=value, such as --set actor.lr=1e-6; did you mean actor.lr?");
  EXPECT_EQ(error(kLeast, {"actor.lr = x"}).substr(0, 35), "--set actor.lr = x: expects a numbe");
  EXPECT_EQ(error(kLeast, {"actor.lr = 1e-6"}), "");
  EXPECT_EQ(error(kLeast, {"actor.lr=1\neps = 2"}).substr(0, 6), "--set ");
  EXPECT_EQ(error(kLeast + "[eval]\npass_k = [1, \"8\"]\n"),
            "a.cfg:6: eval.pass_k expects a whole number, found a text");
  EXPECT_EQ(error(kLeast + "[actor.lr]\nx = 1\n"), "a.cfg:5: actor.lr expects a number, found a section");
  EXPECT_EQ(error(kLeast, {"trainer.seed=-1"}).substr(0, 24), "--set trainer.seed=-1: t");
}

TEST_F(ConfigTest, SettingsThatCannotWork) {
  EXPECT_EQ(error(kLeast, {"actor.ppo_mini_batch_size=24"}),
            "a.cfg: actor.ppo_mini_batch_size = 24 does not divide data.train_batch_size = 512; 16 would (both count "
            "prompts)");
  EXPECT_NE(error(kLeast, {"actor.ppo_mini_batch_size=1024"}), "");
  EXPECT_NE(error(kLeast, {"data.max_response_length=4095"}), "");  // overlong_buffer_len is 4096
  EXPECT_EQ(error(kLeast, {"data.max_response_length=4095", "reward.overlong_buffer=false"}), "");
  EXPECT_NE(error(kLeast, {"rollout.n=1"}), "");
  EXPECT_EQ(error(kLeast, {"rollout.n=1", "algorithm.filter_groups=false"}), "");
  EXPECT_NE(error(kLeast, {"rollout.page_size=96"}), "");
  EXPECT_NE(error(kLeast, {"actor.ppo_max_token_len=22527"}), "");  // 2048 + 20480 = 22528
  EXPECT_EQ(error(kLeast, {"actor.ppo_max_token_len=22528"}), "");
  EXPECT_NE(error(kLeast, {"data.gen_batch_size=51"}), "");
  EXPECT_EQ(error(kLeast, {"data.gen_batch_size=52"}), "");
  EXPECT_NE(error(kLeast, {"actor.beta2=1"}), "");
  EXPECT_NE(error(kLeast, {"reward.correct=-1"}), "");
  EXPECT_EQ(error(kLeast, {"rollout.temperature=1e-30"}),
            "--set rollout.temperature=1e-30: rollout.temperature = 1e-30 is too small: at least 0.0001");
  EXPECT_NE(error(kLeast, {"eval.temperature=1e-30"}).find("0: the most probable token"), std::string::npos);
  EXPECT_EQ(error(kLeast, {"eval.temperature=0"}), "");
  EXPECT_EQ(error(kLeast, {"parallel.tp=2"}), "");
  EXPECT_EQ(error(kLeast, {"parallel.tp=0"}), "--set parallel.tp=0: parallel.tp = 0 is too small: at least 1");
  EXPECT_NE(error(kLeast, {"parallel.dp=1025"}).find("parallel.dp = 1025: a mini-batch has 512 responses"),
            std::string::npos);
  EXPECT_EQ(error(kLeast, {"parallel.dp=1025", "parallel.tp=auto"}), "");  // then all ranks
  EXPECT_EQ(error(kLeast, {"parallel.dp=2"}), "");
  const std::string eval = "[model]\npath = \"m\"\n[data]\nval_files = \"v\"\n";
  EXPECT_EQ(error(eval, {"data.train_batch_size=7"}, Use::eval), "");  // concerns training alone
  EXPECT_NE(error(eval, {"rollout.page_size=96"}, Use::eval), "");
  EXPECT_EQ(error(eval, {"parallel.dp=2"}, Use::eval), "");  // dapo eval runs on one rank
  const std::string sft = "[model]\npath = \"m\"\n[sft]\nfiles = \"f\"\nout = \"o\"\n";
  EXPECT_NE(error(sft, {"sft.beta1=1"}, Use::sft), "");
  EXPECT_NE(error(sft, {"parallel.dp=2"}, Use::sft), "");
}

TEST_F(ConfigTest, AWordMayStandForANumber) {
  for (const char* given : {"parallel.tp=auto", "parallel.tp=\"auto\""}) {
    const Config c = load_config(file(kLeast), {given, "parallel.dp=8"});
    EXPECT_EQ(c.parallel.tp, 0);
    EXPECT_EQ(c.parallel.ranks(), 8);
    EXPECT_NE(config_text(c).find("\ntp = \"auto\"\n"), std::string::npos);
    EXPECT_EQ(config_text(load_config(file(config_text(c)), {})), config_text(c));
  }
  EXPECT_EQ(load_config(file(kLeast + "[parallel]\ntp = \"auto\"\n"), {}).parallel.tp, 0);
  EXPECT_NE(error(kLeast, {"parallel.tp=most"}), "");
  EXPECT_EQ(load_config(file(kLeast), {"parallel.dp=auto"}).parallel.dp, 0);
  EXPECT_EQ(load_config(file(kLeast), {"parallel.dp=auto"}).parallel.ranks(), 1) << "until the ranks are counted";
}

TEST_F(ConfigTest, RewardTermsAreTables) {
  const std::string terms =
      "[reward]\nverifier = \"boxed\"\nterms = [\n  {name = \"format\", verifier = \"format\", pattern = \"<a>*</a>\", "
      "weight = 0.25},\n  {name = \"own\", verifier = \"command\", command = [\"python3\", \"x y.py\"]},\n]\n";
  const std::string sections =
      "[[reward.terms]]\nname = \"format\"\nverifier = \"format\"\npattern = \"<a>*</a>\"\nweight = 0.25\n"
      "[[reward.terms]]\nname = \"own\"\nverifier = \"command\"\ncommand = [\"python3\", \"x y.py\"]\n";
  const std::vector<RewardTerm> expected = {{"format", "format", 0.25, "<a>*</a>", {}},
                                            {"own", "command", 1, "", {"python3", "x y.py"}}};
  const Config c = load_config(file(kLeast + terms), {});
  EXPECT_EQ(c.reward.terms, expected);
  EXPECT_EQ(load_config(file(kLeast + sections), {}).reward.terms, expected);
  EXPECT_EQ(load_config(file(config_text(c)), {}).reward.terms, expected);
  EXPECT_EQ(load_config(file(kLeast), {"reward.terms=[{name = \"f\", verifier = \"exact\"}]"}).reward.terms,
            (std::vector<RewardTerm>{{"f", "exact", 1, "", {}}}));
  const Config own = load_config(file(kLeast), {"reward.verifier=command", "reward.command=python3 r.py"});
  EXPECT_EQ(own.reward.command, std::vector<std::string>{"python3 r.py"});

  const auto with = [&](const std::string& table) { return error(kLeast, {"reward.terms=" + table}); };
  EXPECT_NE(with("3").find("reward.terms expects a list of tables"), std::string::npos) << with("3");
  EXPECT_NE(
      with("[{name = \"f\", verifier = \"exact\", wieght = 2}]").find("the unknown field wieght: known are name, "),
      std::string::npos);
  EXPECT_NE(with("[{name = 3}]").find("reward.terms.name expects a text, found a whole number"), std::string::npos);
  EXPECT_NE(with("[{name = \"f\", verifier = \"nobody\"}]").find("reward.terms[f].verifier = \"nobody\" is not known"),
            std::string::npos);
  EXPECT_NE(with("[{verifier = \"exact\"}]").find("should be a word"), std::string::npos);
  EXPECT_NE(with("[{name = \"verifier\", verifier = \"exact\"}]").find("is taken"), std::string::npos);
  EXPECT_NE(with("[{name = \"f\", verifier = \"exact\"}, {name = \"f\", verifier = \"exact\"}]").find("is taken"),
            std::string::npos);
  EXPECT_NE(with("[{name = \"f\", verifier = \"format\"}]").find("needs reward.terms[f].pattern"), std::string::npos);
  EXPECT_NE(error(kLeast, {"reward.verifier=command"}).find("reward.verifier = \"command\" needs reward.command"),
            std::string::npos);
  EXPECT_NE(error(kLeast, {"reward.command=x"}).find("does not use reward.command; leave it out, or set"),
            std::string::npos);
  EXPECT_NE(error(kLeast, {"reward.timeout=0"}), "");
}

TEST_F(ConfigTest, WhatEachProgramNeeds) {
  EXPECT_EQ(error("[data]\ntrain_files = \"t\"\n").substr(0, 30), "a.cfg: model.path is not set; ");
  EXPECT_EQ(error("[model]\npath = \"m\"\n").substr(0, 36), "a.cfg: data.train_files is not set; ");
  EXPECT_EQ(error("[model]\npath = \"m\"\n", {}, Use::sft).substr(0, 28), "a.cfg: sft.files is not set;");
  EXPECT_EQ(
      error("[model]\npath = \"m\"\n[sft]\nfiles = \"f\"\nout = \"o\"\n", {"data.max_response_length=48"}, Use::sft),
      "");
  EXPECT_EQ(error("[model]\npath = \"m\"\n", {}, Use::eval).substr(0, 33), "a.cfg: data.val_files is not set;");
}

TEST_F(ConfigTest, HostileFiles) {
  EXPECT_EQ(error("[model\n").substr(0, 8), "a.cfg:1:");
  EXPECT_EQ(error("a = \xff\xfe\n").substr(0, 8), "a.cfg:1:");
  EXPECT_NE(error("[model]\npath = \"a\"\npath = \"b\"\n"), "");
  EXPECT_NE(error("a = " + std::string(100000, '[')), "");
  EXPECT_NE(error("[{a = 1}]\n").find("a.cfg: not valid TOML"), std::string::npos);  // an assertion of toml++ 3.3
  EXPECT_NE(error(kLeast, {"actor.lr=1\n[{"}).find("not valid TOML"), std::string::npos);
  for (const char* text : {"[model]\n\xc3\xa9 = 1\n", "# \xc3\xa9 \"\n\xc3\xa9", "a = 'x\\'\n\xc3\xa9 = 1",
                           "a = \"\"\"\n\xc3\xa9\"\"\" \xc3\xa9", "a = \"\\\"\"\npath\xc3\xa9= 1"})
    EXPECT_EQ(error(text).substr(0, 31), "a.cfg:2: a letter outside ASCII") << text;
  EXPECT_EQ(error("[model]\npath = \"\xc3\xa9\" # \xc3\xa9\n", {}, Use::sft).find("ASCII"), std::string::npos);
  EXPECT_NE(error(std::string((1 << 20) + 1, '#')), "");
  EXPECT_NE(error("[model]\npath = \"a\\u0000b\"\n"), "");
  EXPECT_EQ(error("").substr(0, 6), "a.cfg:");
  try {
    load_config((folder_ / "absent.cfg").string(), {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), kExitUsage);
  }
  try {
    load_config(folder_.string(), {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), kExitUsage);
  }
}

TEST_F(ConfigTest, DerivedNumbers) {
  const std::string text = derived_numbers(load_config(file(kLeast), {}));
  EXPECT_NE(text.find("8192 = 512 prompts x 16"), std::string::npos) << text;
  EXPECT_NE(text.find("16, each on 512 responses"), std::string::npos) << text;
  EXPECT_NE(text.find("20480 at most, punished beyond 16384"), std::string::npos) << text;
}

}  // namespace
}  // namespace dapo
