// What a run owns and what it leaves alone: folders, locks, files on full disks; and when it stops on its own.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "core/check.h"
#include "host/app/folders.h"
#include "host/app/provenance.h"
#include "host/app/streams.h"
#include "host/app/unmet.h"
#include "host/train/stuck.h"
#include "tests/testdata.h"

namespace dapo {
namespace {

namespace fs = std::filesystem;

class Folders : public ::testing::Test {
 protected:
  std::string at(const std::string& name) const { return scratch_.path(name); }
  /// Publishes a folder with one file, which contains `text`.
  std::string make(const std::string& name, const std::string& text, const std::string& file = "weights") {
    FreshFolder fresh(at(name), Overwrite::yes);
    std::ofstream(fresh.path() + "/" + file) << text;
    return fresh.publish("{}");
  }
  void expect_refused(const std::string& name, Overwrite overwrite, const std::string& part) {
    const std::string what = error_of(kExitUsage, [&] { FreshFolder fresh(at(name), overwrite); });
    EXPECT_NE(what.find(part), std::string::npos) << what;
  }
  const ScratchFolder scratch_;
};

TEST_F(Folders, ForeignFoldersAreLeftAlone) {
  scratch_.write("box/models/qwen/x", "w");
  scratch_.write("box/m2/y", "w");
  for (const Overwrite overwrite : {Overwrite::no, Overwrite::yes})
    for (const char* name : {"box", "box/models", "box/m2/..", "box/m2/../models", "box/models/"})
      expect_refused(name, overwrite, "this program did not write it");
  expect_refused("box/m2/y", Overwrite::yes, "a file of that name exists");
  fs::create_symlink(at("nowhere"), at("link"));
  expect_refused("link", Overwrite::yes, "a dangling symbolic link");
  expect_refused("/proc", Overwrite::yes, "");
  EXPECT_EQ(slurp(at("box/models/qwen/x")) + slurp(at("box/m2/y")), "ww");
  scratch_.write("new.tmp/z", "w");
  expect_refused("new", Overwrite::yes, "in the way");
  EXPECT_EQ(slurp(at("new.tmp/z")), "w");
}

TEST_F(Folders, OurOwnIsReplacedAndForeignFilesStay) {
  EXPECT_EQ(make("a/m", "old", "only_old"), at("a/m"));
  expect_refused("a/m", Overwrite::no, "give --overwrite");
  scratch_.write("a/m/notes.txt", "mine");
  scratch_.write("a/m/sub/deep", "mine");
  scratch_.write("a/m/weights", "mine");  // a name that the new one also writes
  EXPECT_EQ(make("a/m", "new"), at("a/m"));
  EXPECT_EQ(slurp(at("a/m/weights")), "new");
  EXPECT_EQ(slurp(at("a/m/weights.kept")), "mine");
  EXPECT_EQ(slurp(at("a/m/notes.txt")) + slurp(at("a/m/sub/deep")), "minemine");
  EXPECT_FALSE(fs::exists(at("a/m/only_old")));
  EXPECT_FALSE(fs::exists(at("a/m.tmp")));
  fs::create_directory(at("empty"));
  EXPECT_EQ(make("empty", "x"), at("empty"));
  fs::create_directory_symlink(at("a/m"), at("link"));
  make("link", "through");
  EXPECT_TRUE(fs::is_symlink(at("link")));
  EXPECT_EQ(slurp(at("a/m/weights")), "through");
}

TEST_F(Folders, AFolderThatAppearsInTheMeantimeIsNotReplaced) {
  FreshFolder fresh(at("m"), Overwrite::yes);
  std::ofstream(fresh.path() + "/weights") << "new";
  scratch_.write("m/theirs", "x");
  EXPECT_EQ(fresh.publish("{}"), at("m-2"));
  EXPECT_EQ(slurp(at("m/theirs")) + slurp(at("m-2/weights")), "xnew");
}

TEST_F(Folders, LeftoversOfACrash) {
  // half-written
  scratch_.write("m.tmp/dapo.json", "{\"pid\": 1}");
  scratch_.write("m.tmp/model.safetensors", "half");
  make("m", "whole");
  EXPECT_EQ(slurp(at("m/weights")), "whole");
  // after the exchange: the older folder has the temporary name and contains a user's file
  scratch_.write("m.tmp/dapo.json", "{\"files\": [\"weights\"]}");
  scratch_.write("m.tmp/weights", "older");
  scratch_.write("m.tmp/notes", "mine");
  make("m", "newer");
  EXPECT_EQ(slurp(at("m/weights")) + slurp(at("m/notes")), "newermine");
  // nothing is published: the older one stays, and there is no temporary one
  { FreshFolder dropped(at("m"), Overwrite::yes); }
  EXPECT_EQ(slurp(at("m/weights")), "newer");
  EXPECT_FALSE(fs::exists(at("m.tmp")));
}

TEST_F(Folders, TheErrorOfASecondProcessNamesTheFirst) {
  fs::create_directory(at("run"));
  FolderLock first(at("run"));
  first.write("{}");
  const std::string what = error_of(kExitUsage, [&] { FolderLock second(at("run")); });
  EXPECT_NE(what.find("process " + std::to_string(getpid()) + " is writing there"), std::string::npos) << what;
  FreshFolder fresh(at("m"), Overwrite::no);
  EXPECT_NE(error_of(kExitUsage, [&] { FreshFolder again(at("m"), Overwrite::yes); }).find("is writing there"),
            std::string::npos);
}

TEST_F(Folders, LinesThatDoNotFitOnTheDiskAreWrittenLater) {
  std::signal(SIGXFSZ, SIG_IGN);
  AppendFile file(at("lines"));
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = 100;
  EXPECT_TRUE(file.append("first\n"));
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string line(200, 'x');
  const bool refused = !file.append(line + "\n");
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_TRUE(refused);
  EXPECT_TRUE(file.append("last\n"));
  EXPECT_EQ(slurp(at("lines")), "first\n" + line + "\nlast\n");
}

TEST_F(Folders, FingerprintsDifferIfFilesDo) {
  const std::string a = scratch_.write("a", "same"), b = scratch_.write("b", "same"), c = scratch_.write("c", "sane");
  EXPECT_EQ(print_of(a).hash, print_of(b).hash);
  EXPECT_NE(print_of(a).hash, print_of(c).hash);
  EXPECT_EQ(print_of(a).bytes, 4u);
  EXPECT_EQ(print_of(scratch_.write("d", "a")).hash, "fnv1a:af63dc4c8601ec8c");  // FNV's published value
  EXPECT_EQ(print_of(at("absent")).hash, "unreadable");
}

StepMetrics step_of(int64_t right, int64_t wrong, int64_t mixed) {
  StepMetrics m;
  m.groups_generated = right + wrong + mixed;
  m.groups_right = right;
  m.groups_wrong = wrong;
  return m;
}

TEST(Stuck, StepsWithoutAMixedGroupInARow) {
  Config config;
  config.trainer.stuck_patience = 3;
  StuckWatch watch(config);
  EXPECT_EQ(watch.after(step_of(0, 8, 0)), "");
  EXPECT_EQ(watch.after(step_of(0, 8, 0)), "");
  EXPECT_EQ(watch.after(step_of(0, 7, 1)), "");  // one group to learn from
  EXPECT_EQ(watch.after(step_of(0, 8, 0)), "");
  EXPECT_EQ(watch.after(step_of(0, 0, 0)), "");  // all from the bank: also trained on
  for (int i = 0; i < 2; ++i) EXPECT_EQ(watch.after(step_of(0, 8, 0)), "");
  const std::string wrong = watch.after(step_of(0, 8, 0));
  for (const char* part : {"3 steps", "trainer.stuck_patience", "all 24 groups are wrong", "math_dapo",
                           "prompt_template", "prompt_suffix", "actor.lr"})
    EXPECT_NE(wrong.find(part), std::string::npos) << wrong;

  StuckWatch right(config), both(config);
  std::string all_right, neither;
  for (int i = 0; i < 3; ++i) all_right = right.after(step_of(8, 0, 0)), neither = both.after(step_of(4, 4, 0));
  EXPECT_NE(all_right.find("all 24 groups are right"), std::string::npos) << all_right;
  EXPECT_NE(neither.find("rollout.temperature"), std::string::npos) << neither;
  StuckWatch unjudged(config);
  StepMetrics error = step_of(0, 0, 8);
  error.groups_unjudged = 8;
  std::string none;
  for (int i = 0; i < 3; ++i) none = unjudged.after(error);
  EXPECT_NE(none.find("none of 24 groups could be judged"), std::string::npos) << none;
  config.trainer.stuck_patience = 0;
  StuckWatch never(config);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(never.after(step_of(0, 8, 0)), "");
}

TEST(Unmet, PassAtMoreThanN) {
  EvalSection eval;
  eval.n = 32;
  EXPECT_EQ(unmet_pass_k(eval), "");
  eval.n = 4;
  EXPECT_EQ(unmet_pass_k(eval),
            "pass@8, pass@32 left out: it needs that many responses per problem, and eval.n (-n) = 4");
}

TEST_F(Folders, SystemMessagesOfRows) {
  const std::string rows = scratch_.write(
      "rows.jsonl",
      "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"1\"}]}\n"
      "{\"messages\": [{\"role\": \"user\", \"content\": \"2\"}]}\n");
  Config config;
  config.data.train_batch_size = 2;
  const Dataset data = Dataset::load(rows);
  EXPECT_TRUE(unmet_rows(config, data).empty());
  config.data.system_prompt = "be brief";
  ASSERT_EQ(unmet_rows(config, data).size(), 1u);
  EXPECT_EQ(unmet_rows(config, data)[0].substr(0, 42), "1 of 2 rows have their own system message:");
}

TEST_F(Folders, GroundTruthsThatAreComparedAsText) {
  const std::string rows = scratch_.write(
      "rows.jsonl", "{\"prompt\": \"1\", \"answer\": \"033\"}\n{\"prompt\": \"2\", \"answer\": \"0\"}\n");
  Config config;
  config.data.train_batch_size = 2;
  const Dataset data = Dataset::load(rows);
  config.reward.verifier = "boxed";
  EXPECT_TRUE(unmet_rows(config, data).empty());
  config.reward.verifier = "math_dapo";
  ASSERT_EQ(unmet_rows(config, data).size(), 1u);
  EXPECT_EQ(unmet_rows(config, data)[0],
            "1 of 2 ground truths have leading zeros, such as \"033\": reward.verifier = \"math_dapo\" compares text, "
            "so that "
            "33 is wrong; \"boxed\" compares numbers");
}

}  // namespace
}  // namespace dapo
