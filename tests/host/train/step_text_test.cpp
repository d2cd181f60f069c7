// Metrics as text: the table of steps, and durations.
#include "host/train/step_text.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace dapo {
namespace {

StepMetrics metrics() {
  StepMetrics m;
  m.step = 4;
  m.seconds = 1.444;
  m.reward = 0.6411, m.acc = 0.8207, m.length_mean = 25.84, m.length_max = 43, m.truncated = 0;
  m.groups_generated = 38, m.groups_kept = 34, m.groups_right = 4;
  m.updates = 2, m.entropy = 0.0431, m.grad_norm = 0.08731;
  m.mismatch_tokens = 6582;
  m.phases[Phase::rollout] = {.seconds = 0.53, .tokens = 15800};
  m.phases[Phase::update] = {.seconds = 0.92, .tokens = 13700};
  return m;
}

TEST(StepText, ColumnsAreAligned) {
  EXPECT_EQ(
      step_head(20),
      "step        reward     acc   length    max     cut  kept  right  wrong  entropy      grad  mismatch     time  "
      "rollout   update   tok/s  train/s      left");
  EXPECT_EQ(
      step_text(metrics().fields(), 20, 18.3),
      "step 4/20   +0.641   82.1%     25.8     43    0.0%    34      4      0    0.043    0.0873         0    1.44s  "
      "  0.53s    0.92s   29.8k    14.9k    18.3 s");
  EXPECT_EQ(step_text(metrics().fields(), 20, 18.3).size(), step_head(20).size());
  EXPECT_EQ(step_text(metrics().fields(), 100000, 1).size(), step_head(100000).size());
}

TEST(StepText, ANarrowTerminalShowsTheImportantColumns) {
  for (const int width : {60, 80, 100, 120, 140, 160}) {
    const std::string head = step_head(20, width), line = step_text(metrics().fields(), 20, 18.3, width);
    EXPECT_LT(std::ssize(head), width);
    EXPECT_EQ(head.size(), line.size());
    for (const char* name : {"step", "reward", "acc", "left"}) EXPECT_NE(head.find(name), head.npos) << head;
  }
  EXPECT_EQ(step_head(20, 400), step_head(20));
  EXPECT_EQ(step_head(20, 80), "step        reward     acc   length     cut  kept  entropy     time      left");
}

TEST(StepText, UnknownNumbersAndWhatIsUnusual) {
  StepMetrics m = metrics();
  m.groups_generated = 0;
  m.acc = m.reward = m.length_mean = m.truncated = m.mismatch = NAN;
  m.age_mean = 1, m.age_max = 1, m.updates_refused = 1;
  const std::string line = step_text(m.fields(), 20, 0);
  EXPECT_NE(line.find("step 4/20        -       -        -"), line.npos) << line;
  EXPECT_NE(line.find("  updates refused 1  all groups from the bank  age 1.00 (max 1)"), line.npos) << line;
  for (int width = 80; width < 240; ++width) EXPECT_LT(std::ssize(step_text(m.fields(), 20, 0, width)), width);
  EXPECT_EQ(step_text({}, 20, 0).find("step nan/20"), 0u);  // a line without figures is a line
}

TEST(StepText, TimeLeft) {
  EXPECT_EQ(left_text(0), "");
  EXPECT_EQ(left_text(std::nan("")), "");
  EXPECT_EQ(left_text(0.03), "<1 s left");
  EXPECT_EQ(left_text(59.96), "1:00 left");
  EXPECT_EQ(left_text(7390), "2:03:10 left");
  EXPECT_NE(step_text(metrics().fields(), 20, 0.03).find("<1 s"), std::string::npos);
}

}  // namespace
}  // namespace dapo
