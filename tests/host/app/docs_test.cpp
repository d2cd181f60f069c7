// What the pages under docs/ name exists: settings, metrics, files.
#include <gtest/gtest.h>

#include <filesystem>
#include <regex>
#include <set>

#include "host/train/settings_table.h"
#include "tests/testdata.h"

namespace dapo {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> in_backticks(const std::string& text) {
  std::vector<std::string> out;
  const std::regex quoted("`([^`\n]+)`");
  for (std::sregex_iterator at(text.begin(), text.end(), quoted), end; at != end; ++at) out.push_back((*at)[1]);
  return out;
}

class Docs : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists("docs/migrating.md")) GTEST_SKIP() << "skipped: docs/ is not here; run tests in the project's root";
  }
  static std::string page(const std::string& name) { return slurp("docs/" + name); }
};

TEST_F(Docs, SettingsOfMigratingAreOurs) {
  const std::string text = page("migrating.md");
  std::set<std::string> ours;
  size_t rows = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("| `")) continue;
    ++rows;
    std::string section;
    for (std::string name : in_backticks(line.substr(0, line.find('|', 2)))) {
      if (name.find('.') == name.npos) name = section + "." + name;  // "`eval.n`, `top_p`"
      section = name.substr(0, name.find('.'));
      EXPECT_NE(find_setting(name), nullptr) << name;
      ours.insert(name);
    }
  }
  EXPECT_GT(rows, 40u);
  for (const Setting& s : all_settings())  // each that has a name elsewhere has a row
    if (!s.other.verl.empty() || !s.other.trl.empty()) {
      EXPECT_TRUE(ours.contains(std::string(s.key))) << s.key;
    }
}

TEST_F(Docs, NamesElsewhereAreThoseThatErrorsKnow) {
  const std::string text = page("migrating.md");
  for (const Setting& s : all_settings()) {
    std::string verl(s.other.verl);
    if (verl.starts_with("rollout.val_kwargs.")) verl = "rollout.val_kwargs.*";
    for (const std::string& name : {verl, std::string(s.other.trl)})
      if (!name.empty()) {
        EXPECT_NE(text.find("`" + name + "`"), std::string::npos) << s.key << ": " << name;
      }
  }
}

TEST_F(Docs, SettingsAndMetricsOfTroubleshootingExist) {
  const std::string metrics = page("metrics.md");
  const std::regex key("(model|data|rollout|actor|algorithm|reward|sft|eval|trainer)\\.[a-z_]+[a-z0-9_]*"),
      metric("(data|groups|reward|response|rollout|train|update|eval)/[a-z_]+");
  for (const char* name : {"troubleshooting.md", "reproducibility.md"})
    for (const std::string& text : in_backticks(page(name))) {
      const std::string word = text.substr(0, text.find(' '));
      if (std::regex_match(word, key)) {
        EXPECT_NE(find_setting(word), nullptr) << name << ": " << word;
      }
      if (std::regex_match(word, metric)) {
        EXPECT_NE(metrics.find("`" + word + "`"), std::string::npos) << name << ": " << word;
      }
    }
}

}  // namespace
}  // namespace dapo
