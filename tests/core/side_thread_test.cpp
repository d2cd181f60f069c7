// A thread beside a rank's own, and what the rank's heartbeat says meanwhile.
#include "core/side_thread.h"

#include <gtest/gtest.h>

#include <future>
#include <vector>

#include "core/check.h"
#include "core/heartbeat.h"

namespace dapo {
namespace {

TEST(SideThread, DoesItsWorkInOrderAndInOneThread) {
  SideThread side;
  EXPECT_EQ(side.seconds(), 0);
  std::vector<int> order;
  std::vector<std::thread::id> threads;
  uint64_t last = 0;
  for (int i = 0; i < 100; ++i) {
    const uint64_t number = side.give([&, i] {
      order.push_back(i), threads.push_back(std::this_thread::get_id());
      EXPECT_TRUE(works_beside);
    });
    EXPECT_EQ(number, ++last);
    if (i % 7 == 0) {
      side.wait(number);
      EXPECT_EQ(std::ssize(order), i + 1);
    }
  }
  side.wait(last);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
  for (const std::thread::id id : threads) EXPECT_TRUE(id == threads[0] && id != std::this_thread::get_id());
  EXPECT_FALSE(works_beside);
  EXPECT_GT(side.seconds(), 0);
}

TEST(SideThread, AnErrorIsThrownByWaitAndDropsTheRest) {
  SideThread side;
  bool ran = false;
  side.give([] { fail_input("no room"); });
  const uint64_t last = side.give([&] { ran = true; });
  for (int i = 0; i < 2; ++i) EXPECT_THROW(side.wait(last), Error);
  EXPECT_FALSE(ran);
}

TEST(SideThread, EndsAfterTheWorkUnderWay) {
  bool done = false;
  {
    SideThread side;
    std::promise<void> begun;
    side.give([&] {
      begun.set_value();
      done = true;
    });
    begun.get_future().wait();
  }
  EXPECT_TRUE(done);
  const SideThread idle;
}

TEST(SideThread, ItsCallsAreCountedButAreNotWhereTheRankIs) {
  Heartbeat heartbeat;
  SideThread side;
  std::promise<void> inside, go;
  const Entered own(&heartbeat, "all_to_all", Among::tensor, 7);
  const uint64_t number = side.give([&] {
    const Entered other(&heartbeat, "all_gather", Among::data, 3);
    inside.set_value();
    go.get_future().wait();
  });
  inside.get_future().wait();
  const auto expect_own = [&] {
    EXPECT_TRUE(heartbeat.inside);
    EXPECT_EQ(heartbeat.op.text(), "all_to_all");
    EXPECT_EQ(heartbeat.among, Among::tensor);
    EXPECT_EQ(heartbeat.calls_of(Among::tensor), 7u);
    EXPECT_EQ(heartbeat.calls_of(Among::data), 3u);
  };
  expect_own();
  const uint64_t beats = heartbeat.beats;
  go.set_value();
  side.wait(number);
  expect_own();
  EXPECT_GT(heartbeat.beats, beats);
}

}  // namespace
}  // namespace dapo
