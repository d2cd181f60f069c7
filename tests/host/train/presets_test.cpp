// algorithm.preset: what it sets, and that single keys go over it.
#include <gtest/gtest.h>

#include <set>
#include <sstream>

#include "core/choices.h"
#include "host/train/settings_table.h"
#include "tests/testdata.h"

namespace dapo {
namespace {

class Presets : public ::testing::Test {
 protected:
  std::string file(const std::string& text) { return scratch_.write("a.cfg", text); }
  std::string error(const std::string& text, const std::vector<std::string>& settings) {
    return error_of(kExitUsage, [&] { load_config(file(text), settings); });
  }
  const ScratchFolder scratch_;
};

const std::string kLeast = "[model]\npath = \"m\"\n[data]\ntrain_files = [\"t.jsonl\"]\n";

TEST_F(Presets, AreInTheOrderOfTheEnumAndSetKnownSettings) {
  for (size_t i = 0; i < all_presets().size(); ++i) {
    const PresetInfo& p = all_presets()[i];
    EXPECT_EQ(static_cast<size_t>(p.preset), i);
    EXPECT_NE(p.paper.find("arXiv"), std::string::npos) << p.paper;
    Config c;
    apply_settings(c, {fmt::format("algorithm.preset={}", choice_name(p.preset))});
    std::set<std::string> changed;  // lines of the configuration
    std::istringstream now(config_text(c)), then(config_text(Config()));
    for (std::string a, b; std::getline(now, a) && std::getline(then, b);)
      if (a != b) changed.insert(a.substr(0, a.find(' ')));
    EXPECT_EQ(changed.erase("preset"), p.preset == Preset::dapo ? 0u : 1u);
    std::set<std::string> named;
    for (const std::string_view s : p.settings) {
      const std::string_view key = s.substr(0, s.find('='));
      ASSERT_NE(find_setting(key), nullptr) << key;
      named.insert(std::string(find_setting(key)->field()));
      EXPECT_NE(settings_help().find(key.substr(key.find('.') + 1)), std::string::npos);
    }
    for (const std::string& field : changed) EXPECT_TRUE(named.contains(field)) << field;
  }
  EXPECT_EQ(all_presets().size(), 7u);
}

TEST_F(Presets, SingleKeysGoOverThePresetWhereverTheyAreWritten) {
  const auto gspo = [&](const std::string& text, const std::vector<std::string>& settings = {}) {
    const Config c = load_config(file(kLeast + text), settings);
    EXPECT_EQ(c.actor.policy_loss, LossKind::gspo) << text;
    EXPECT_EQ(c.actor.clip_ratio_low, 3e-4) << text;
    EXPECT_FALSE(c.algorithm.filter_groups) << text;
    return c;
  };
  EXPECT_EQ(gspo("[algorithm]\npreset = \"gspo\"\n").actor.clip_ratio_high, 4e-4);
  for (const char* text : {"[algorithm]\npreset = \"gspo\"\n[actor]\nclip_ratio_high = 0.5\n",
                           "[actor]\nclip_ratio_high = 0.5\n[algorithm]\npreset = \"gspo\"\n"})
    EXPECT_EQ(gspo(text).actor.clip_ratio_high, 0.5) << text;
  // A value that is the default counts as well, and so does one from the command line, before or after the preset.
  EXPECT_EQ(gspo("[actor]\nclip_ratio_high = 0.28\n", {"algorithm.preset=gspo"}).actor.clip_ratio_high, 0.28);
  EXPECT_EQ(gspo("", {"actor.clip_ratio_high=0.28", "algorithm.preset=gspo"}).actor.clip_ratio_high, 0.28);
  EXPECT_EQ(gspo("", {"algorithm.preset=gspo", "actor.clip_ratio_high=0.28"}).actor.clip_ratio_high, 0.28);
  // The last preset wins, and leaves nothing of the first.
  const Config c = load_config(file(kLeast + "[algorithm]\npreset = \"rloo\"\n"), {"algorithm.preset=gspo"});
  EXPECT_EQ(c.actor.kl_loss_coef, 0);
  EXPECT_EQ(c.algorithm.adv_estimator, AdvEstimator::grpo);
  // What is written is complete: read again, it is the same, even if the presets have changed since.
  const std::string text = config_text(gspo("", {"algorithm.preset=gspo", "actor.clip_ratio_high=0.28"}));
  EXPECT_NE(text.find("preset = \"gspo\"\n"), std::string::npos);
  EXPECT_EQ(config_text(load_config(file(text), {})), text);
}

TEST_F(Presets, ObjectivesThatCannotWork) {
  EXPECT_NE(error(kLeast, {"actor.clip_ratio_c=0.5"}).find("more than 1, or 0: off"), std::string::npos);
  EXPECT_NE(error(kLeast, {"algorithm.preset=rloo", "rollout.n=1"}).find("mean of the other responses"),
            std::string::npos);
  EXPECT_NE(error(kLeast, {"algorithm.preset=ppo"}).find("one of dapo|grpo|dr_grpo"), std::string::npos);
}

}  // namespace
}  // namespace dapo
