// The sets of data.val_files: names, known sets, what is missing.
#include "host/train/eval_sets.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/check.h"
#include "tests/testdata.h"

namespace dapo {
namespace {
namespace fs = std::filesystem;

/// Runs in a folder of its own, as known sets stand under datasets/ of the current one.
class EvalSets : public ::testing::Test {
 protected:
  void SetUp() override { fs::current_path(scratch_.path()); }
  void TearDown() override { fs::current_path(before_); }
  void put(const std::string& name, const std::string& answer) {
    if (fs::path(name).has_parent_path()) fs::create_directories(fs::path(name).parent_path());
    std::ofstream(name) << "{\"prompt\": \"" << name << "\", \"answer\": \"" << answer << "\"}\n";
  }
  std::vector<EvalSet> load(const std::vector<std::string>& entries) {
    DataSection data;
    data.val_files = entries;
    return load_eval_sets(data);
  }
  std::vector<std::string> names(const std::vector<std::string>& entries) {
    std::vector<std::string> out;
    for (const EvalSet& set : load(entries)) out.push_back(set.name);
    return out;
  }

  const fs::path before_ = fs::current_path();
  const ScratchFolder scratch_;
};

TEST_F(EvalSets, EachEntryIsASetWithAName) {
  put("a/x.jsonl", "1");
  put("b/x.jsonl", "2");
  put("b/y-1.jsonl", "3");
  put("b/y-2.jsonl", "4");
  put("data/my set/only.jsonl", "5");
  EXPECT_EQ(names({"a/x.jsonl", "b/x.jsonl", "b/y-*.jsonl", "data/my set/"}),
            (std::vector<std::string>{"x", "x-2", "y", "my-set"}));
  const std::vector<EvalSet> sets = load({"b/y-*.jsonl", "a/x.jsonl"});
  EXPECT_EQ(sets[0].data.size(), 2u);
  EXPECT_EQ(sets[1].data[0].answer, "1");
  EXPECT_TRUE(load({}).empty());
}

TEST_F(EvalSets, ObjectsAsGroundTruthsAreForVerifiersThatReadThem) {
  put("plain.jsonl", "{1, 2}");
  fs::create_directories("sets");
  std::ofstream("sets/object.jsonl") << "{\"prompt\": \"p\", \"answer\": {\"value\": 2}}\n";
  const Dataset plain = load({"plain.jsonl"})[0].data, object = load({"sets/object.jsonl"})[0].data;
  for (const char* verifier : {"math_dapo", "gsm8k", "boxed", "math"}) {
    EXPECT_NO_THROW(check_ground_truths(plain, verifier));
    EXPECT_THROW(check_ground_truths(object, verifier), Error) << verifier;
  }
  for (const char* verifier : {"command", "countdown", "exact", "format"})
    EXPECT_NO_THROW(check_ground_truths(object, verifier)) << verifier;
}

TEST_F(EvalSets, KnownNamesStandForTheFilesThatDownloadShWrites) {
  EXPECT_EQ(missing_set("aime-2025"),
            "aime-2025: datasets/aime-2025-I.jsonl is not there; fetch it with data/download.sh aime-2025");
  EXPECT_EQ(missing_set("some.jsonl"), "");
  try {
    load({"math-500"});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), kExitUsage);
    EXPECT_STREQ(e.what(), missing_set("math-500").c_str());
  }
  put("datasets/aime-2025-I.jsonl", "70");
  EXPECT_NE(missing_set("aime-2025"), "");  // half of it
  put("datasets/aime-2025-II.jsonl", "71");
  put("datasets/math-500.jsonl", "1");
  const std::vector<EvalSet> sets = load({"aime-2025", "math-500", "datasets/math-500.jsonl"});
  EXPECT_EQ(sets[0].name, "aime-2025");
  EXPECT_EQ(sets[0].data.size(), 2u);
  EXPECT_EQ(sets[1].name, "math-500");
  EXPECT_EQ(sets[2].name, "math-500-2");
  put("gsm8k/own.jsonl", "9");  // a folder of the user's goes before
  EXPECT_EQ(set_files("gsm8k"), std::vector<std::string>{"gsm8k"});
  EXPECT_EQ(load({"gsm8k"})[0].data[0].answer, "9");
}

TEST_F(EvalSets, TheyAreThoseOfDownloadSh) {
  const std::string script = slurp(before_ / "data/download.sh");
  if (script.empty()) GTEST_SKIP() << "skipped: not run in the project's root";
  for (const KnownSet& set : known_sets())
    for (const std::string& file : set_files(std::string(set.name))) {
      const std::string name = fs::path(file).filename();
      const size_t at = script.find(" " + name + "\n");
      ASSERT_NE(at, script.npos) << name;
      const size_t line = script.rfind('\n', at) + 1;
      EXPECT_EQ(script.substr(line, set.name.size() + 1), std::string(set.name) + " ") << name;
    }
}

TEST_F(EvalSets, RealSetsAreRead) {
  REQUIRE_DATA(amc, "eval/amc23.jsonl");
  REQUIRE_DATA(math, "eval/math500.jsonl");
  REQUIRE_DATA(gsm8k, "eval/gsm8k_test.jsonl");
  REQUIRE_DATA(aime25, "eval/aime25.jsonl");
  const std::vector<EvalSet> sets = load({amc, math, gsm8k, aime25});
  EXPECT_EQ(sets[0].data.size(), 40u);
  EXPECT_EQ(sets[0].data[0].answer, "27");
  EXPECT_EQ(sets[1].data.size(), 500u);
  EXPECT_EQ(sets[2].data.size(), 1319u);
  EXPECT_EQ(sets[3].data.size(), 30u);
}

}  // namespace
}  // namespace dapo
