// The pool of threads that judge responses.
#include "host/verify/pool.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "host/verify/verify.h"

namespace dapo {
namespace {

TEST(VerifierPool, VerdictsAreInOrderForAnyNumberOfWorkers) {
  for (const int threads : {1, 3}) {
    VerifierPool pool(make_verifier("math_dapo"), threads);
    std::vector<std::future<std::vector<Verdict>>> futures;
    for (int b = 0; b < 20; ++b) {
      std::vector<VerifyItem> items;
      items.reserve(7 * b);
      for (int i = 0; i < 7 * b; ++i) items.push_back({fmt::format("Answer: {}", i), i % 3 ? std::to_string(i) : "x"});
      futures.push_back(pool.submit(std::move(items)));
    }
    uint64_t right = 0, items = 0;
    for (int b = 0; b < 20; ++b) {
      const std::vector<Verdict> verdicts = futures[static_cast<size_t>(b)].get();
      ASSERT_EQ(verdicts.size(), static_cast<size_t>(7 * b));
      for (size_t i = 0; i < verdicts.size(); ++i) {
        EXPECT_EQ(verdicts[i].acc, i % 3 != 0);
        EXPECT_EQ(verdicts[i].pred, std::to_string(i));
        right += verdicts[i].acc;
        ++items;
      }
    }
    const VerifierCounters c = pool.counters();
    EXPECT_EQ(c.items, items);
    EXPECT_EQ(c.right, right);
    EXPECT_EQ(c.found, items);
    EXPECT_EQ(c.errors, 0u);
    EXPECT_GT(c.seconds, 0);
    EXPECT_GE(c.seconds, c.worst_seconds);
  }
}

class Sleepy final : public AnswerVerifier {
 public:
  using AnswerVerifier::AnswerVerifier;

 private:
  void judge(std::string_view response, std::string_view, Verdict& out) const override {
    if (response == "throw") throw std::runtime_error("deliberate");
    if (response == "sleep") std::this_thread::sleep_for(std::chrono::milliseconds(30));
    out.acc = true;
  }
};

TEST(VerifierPool, CountsErrorsAndSlowItemsAndDropsTheRestAtTheEnd) {
  std::future<std::vector<Verdict>> pending;
  {
    VerifierPool pool(std::make_shared<Sleepy>(VerifierOptions{}), 2, 0.02);
    const auto verdicts = pool.submit({{"throw", "x"}, {"sleep", "x"}, {"", "x"}, {"", ""}}).get();
    EXPECT_TRUE(verdicts[0].error);
    EXPECT_EQ(verdicts[0].reason, "error: deliberate");
    EXPECT_FALSE(verdicts[1].error);
    const VerifierCounters c = pool.counters();
    EXPECT_EQ(c.items, 4u);
    EXPECT_EQ(c.errors, 2u);
    EXPECT_EQ(c.right, 2u);
    EXPECT_GE(c.slow, 1u);
    EXPECT_GE(c.worst_seconds, 0.03);
    pending = pool.submit(std::vector<VerifyItem>(64 * 1000, {"sleep", "x"}));  // 16 minutes of work
  }
  EXPECT_THROW(pending.get(), std::future_error);
}

}  // namespace
}  // namespace dapo
