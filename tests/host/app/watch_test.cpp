// Following a run's files while they grow, are cut back or replaced; and what dapo watch prints.
#include "host/app/watch.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/lines.h"
#include "tests/testdata.h"

namespace dapo {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> all_of(LineFollower& lines) {
  std::vector<std::string> out;
  for (std::string line; lines.next(line);) out.push_back(line);
  return out;
}
using Lines = std::vector<std::string>;

TEST(LineFollowerTest, AFileThatGrows) {
  const ScratchFolder scratch;
  LineFollower lines(scratch.path("f"));
  EXPECT_TRUE(all_of(lines).empty());  // does not exist yet
  EXPECT_FALSE(lines.exists());
  std::ofstream out(scratch.path("f"));
  out << "a\nb" << std::flush;
  EXPECT_EQ(all_of(lines), Lines{"a"});
  EXPECT_EQ(lines.unfinished(), 1u);
  out << "c\n\nd\n" << std::flush;
  EXPECT_EQ(all_of(lines), (Lines{"bc", "", "d"}));
  EXPECT_FALSE(lines.restarted());
  out << std::string(kLineLimit + 10, 'x') << "\nend\n" << std::flush;
  EXPECT_EQ(all_of(lines), (Lines{"", "end"}));
}

TEST(LineFollowerTest, AFileThatIsCutBackOrReplaced) {
  const ScratchFolder scratch;
  const std::string path = scratch.write("f", "1\n2\n3\n");
  LineFollower lines(path);
  EXPECT_EQ(all_of(lines), (Lines{"1", "2", "3"}));
  fs::resize_file(path, 2);
  EXPECT_EQ(all_of(lines), Lines{"1"});
  EXPECT_TRUE(lines.restarted());
  EXPECT_FALSE(lines.restarted());
  fs::rename(scratch.write("g", "new 1\nnew 2\nnew 3\n"), path);
  EXPECT_EQ(all_of(lines), (Lines{"new 1", "new 2", "new 3"}));
  EXPECT_TRUE(lines.restarted());
  fs::remove(path);
  EXPECT_TRUE(all_of(lines).empty());
}

MetricsLine step(int64_t number, double acc, double seconds = 2) {
  return {
      number, {{"seconds", seconds}, {"reward/mean", 2 * acc - 1}, {"reward/acc", acc}, {"groups/generated", 4.0}}, {}};
}

TEST(WatchTextTest, StepsAndEvaluationsAsTheTrainerPrintsThem) {
  WatchText text(10);
  const Lines first = text.lines(step(1, 0.5), 0);
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(first[0].substr(0, 18), "step        reward");
  EXPECT_EQ(first[1].substr(0, 26), "step 1/10   +0.000   50.0%");
  EXPECT_NE(first[1].find("18.0 s"), std::string::npos);  // nine steps of two seconds
  MetricsLine with_eval = step(2, 0.75);
  for (const auto& [name, value] : Fields{{"eval/problems", 8},
                                          {"eval/n", 2},
                                          {"eval/avg", 0.5},
                                          {"eval/low", 0.25},
                                          {"eval/high", 0.75},
                                          {"eval/pass@2", 0.625},
                                          {"eval/maj@3", 0.25},
                                          {"eval/maj", 0.5},
                                          {"eval/length_mean", 10},
                                          {"eval/truncated", 0},
                                          {"eval/seconds", 1}})
    with_eval.fields.emplace_back(name, value);
  const Lines second = text.lines(with_eval, 0);
  ASSERT_EQ(second.size(), 2u);
  EXPECT_EQ(second[1],
            "eval after step 2: avg@2 50.0 % (25.0 to 75.0 with 95 % confidence)  pass@2 62.5 %  maj@3 25.0 %  maj@2 "
            "50.0 %  8 problems  "
            "length 10.0  cut 0.0 %  1.0 s");
}

TEST(WatchTextTest, AResumedRun) {
  WatchText text(10);
  text.skip(step(1, 0.1));
  for (int i = 2; i <= 4; ++i) EXPECT_FALSE(text.lines(step(i, 0.1 * i), 0).empty());
  // the file was cut back to step 2 and is read again
  EXPECT_TRUE(text.lines(step(1, 0.1), 0).empty());
  EXPECT_TRUE(text.lines(step(2, 0.2), 0).empty());
  const Lines again = text.lines(step(3, 0.3, 7), 0);  // another time
  ASSERT_EQ(again.size(), 2u);
  EXPECT_EQ(again[0], "the run goes on from an earlier step: 3");
  EXPECT_EQ(text.lines(step(4, 0.4, 7), 0).size(), 1u);
  EXPECT_EQ(text.last_step(), 4);
}

TEST(WatchTextTest, LinesOfTheLog) {
  EXPECT_EQ(closing_words("2026-11-26 07:08:09 done after step 20: model in m"), "done after step 20: model in m");
  EXPECT_EQ(closing_words("2026-11-26 07:08:09 interrupted after step 2"), "interrupted after step 2");
  EXPECT_EQ(closing_words("2026-11-26 07:08:09  4/20  +0.641"), "");
  EXPECT_EQ(closing_words("done after step 20"), "");
  EXPECT_EQ(note_of("2026-11-26 07:08:09   note: the disk is full"), "  note: the disk is full");
  EXPECT_EQ(note_of(""), "");
}

TEST(WatchTextTest, MetricsLinesOfAllSorts) {
  EXPECT_FALSE(parse_metrics(""));
  EXPECT_FALSE(parse_metrics("{}"));
  EXPECT_FALSE(parse_metrics("{\"step\": -1}"));
  EXPECT_FALSE(parse_metrics("{\"step\": 1.5}"));
  EXPECT_FALSE(parse_metrics("{\"step\": 99999999999999999999}"));
  const auto line = parse_metrics(R"({"step": 3, "a": 1, "b": null, "c": -Infinity, "d": "x", "alarms": ["y", 1]})");
  ASSERT_TRUE(line);
  EXPECT_EQ(line->step, 3);
  ASSERT_EQ(line->fields.size(), 3u);
  EXPECT_EQ(line->fields[0], (std::pair<std::string, double>("a", 1)));
  EXPECT_TRUE(std::isnan(line->fields[1].second) && std::isnan(line->fields[2].second));
  EXPECT_EQ(line->alarms, Lines{"y"});
}

}  // namespace
}  // namespace dapo
