// The line of a running phase, and the time left.
#include "host/app/live_line.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace dapo {
namespace {

TEST(Eta, RecentStepsWeighMore) {
  Eta eta;
  EXPECT_EQ(eta.left(10, 0, 0), 0);  // unknown before the first step
  for (int i = 0; i < 100; ++i) eta.add(2);
  EXPECT_NEAR(eta.left(10, 0, 0), 20, 1e-9);
  EXPECT_NEAR(eta.left(10, 1.5, 0), 18.5, 1e-9);
  for (int i = 0; i < 20; ++i) eta.add(8);
  EXPECT_GT(eta.each(), 7.5);
  EXPECT_LT(eta.each(), 8);
  EXPECT_EQ(eta.left(0, 0, 0), 0);
}

TEST(Eta, AStepThatTakesLongerThanTheOthersIsNotOver) {
  Eta eta;
  eta.add(1);
  EXPECT_NEAR(eta.left(1, 21, 4), 4, 1e-9);  // the phase under way needs 4 s
  EXPECT_NEAR(eta.left(3, 21, 4), 6, 1e-9);
  EXPECT_EQ(eta.left(1, 21, 0), 0);  // unknown
}

PhaseState phase() {
  return {.step = 3, .steps = 100, .phase = "rollout", .done = 312, .total = 1024, .tokens = 12000, .seconds = 10};
}

TEST(LiveLine, IsAsWideAsTheTerminalAndNoWider) {
  EXPECT_EQ(live_text(phase(), 7390, 0, false),
            "step 3/100  rollout 312/1024  1200 tok/s  22.8 s left  run 2:03:10 left");
  EXPECT_EQ(live_text(phase(), 7390, 120, false),
            "step 3/100  rollout [=========>                    ] 312/1024  1200 tok/s  22.8 s left  run 2:03:10 left");
  for (int width = 1; width < 200; ++width) {
    const std::string text = live_text(phase(), 7390, width, false);
    EXPECT_LT(std::ssize(text), width) << text;
  }
  EXPECT_EQ(live_text(phase(), 7390, 60, false), "step 3/100  rollout [===>      ] 312/1024  run 2:03:10 left");
  EXPECT_NE(live_text(phase(), 7390, 120, true).find("\u2501\u2500"), std::string::npos);
}

TEST(LiveLine, NothingIsLeftOnlyIfNothingRuns) {
  PhaseState p = phase();
  p.done = 1023, p.seconds = 1;  // a millisecond
  for (const double run : {0.0, 0.01, 0.04}) {
    const std::string text = live_text(p, run, 0, false);
    EXPECT_EQ(text.find("0.0 s"), std::string::npos) << text;
    EXPECT_NE(text.find("<1 s left"), std::string::npos) << text;
  }
  p.done = p.total;  // waiting for verdicts
  EXPECT_EQ(live_text(p, 0, 0, false).find("left"), std::string::npos);
}

TEST(LiveLine, LocalesThatAreUtf8) {
  const auto with = [](const char* all, const char* lang) {
    setenv("LC_ALL", all, 1), unsetenv("LC_CTYPE"), setenv("LANG", lang, 1);
    return utf8_locale();
  };
  EXPECT_TRUE(with("", "de_DE.UTF-8"));
  EXPECT_TRUE(with("C.utf8", "C"));
  EXPECT_FALSE(with("C", "de_DE.UTF-8"));
  EXPECT_FALSE(with("", ""));
}

}  // namespace
}  // namespace dapo
