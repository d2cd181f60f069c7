// The scheduler on random workloads: invariants after every move, every token once, prompts before their tokens.
#include "host/rollout/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace dapo {
namespace {

/// Plays the rollout: records how many tokens of each sequence are in pages, and checks every batch against that.
struct Engine {
  explicit Engine(const SchedulerLimits& limits) : scheduler(limits) {}

  void run(const Scheduler::Batch& w) {
    if (w.kind == Scheduler::Batch::prefill) {
      int tokens = 0, draws = 0;
      ASSERT_FALSE(w.chunks.empty());
      for (const Scheduler::Chunk& c : w.chunks) prefill(c, tokens, draws);
      EXPECT_LE(tokens, scheduler.limits().prefill_tokens);
      EXPECT_LE(draws, scheduler.limits().batch);
      EXPECT_LE(std::ssize(w.chunks), scheduler.limits().batch);
    } else {
      ASSERT_EQ(w.kind, Scheduler::Batch::decode);
      ASSERT_GE(w.steps, 1);
      ASSERT_LE(std::ssize(w.sequences), scheduler.limits().batch);
      const std::vector<int> batch(w.sequences.begin(), w.sequences.end());
      for (int s : batch) decode(s, w.steps);
    }
  }

  void prefill(const Scheduler::Chunk& c, int& tokens, int& draws) {
    const Scheduler::Prompt p = scheduler.prompt(c.prompt);
    auto& in_pages = c.of_prompt() ? prompt_tokens[p.pages.at(0)] : own_tokens[c.sequence];
    if (c.begin == 0) in_pages = 0;
    ASSERT_EQ(c.begin, in_pages);
    in_pages += c.tokens;
    tokens += c.tokens;
    prefilled += c.tokens;
    if (!c.of_prompt()) {
      ASSERT_EQ(prompt_tokens[p.pages.at(0)], p.length);
      ASSERT_LE(in_pages, scheduler.sequence(c.sequence).tokens - 1);
    }
    if (!c.draws) return;
    ASSERT_EQ(in_pages, p.length);
    draws += p.samples;
    for (int i = 0; i < p.samples; ++i) token(p.first_sequence + i);
  }

  void decode(int s, int steps) {
    const Scheduler::Sequence seq = scheduler.sequence(s);
    ASSERT_EQ(prompt_tokens[scheduler.prompt(seq.prompt).pages.at(0)], scheduler.prompt(seq.prompt).length);
    ASSERT_EQ(own_tokens[s], seq.tokens - 1);
    ASSERT_GE(std::ssize(seq.pages) * scheduler.limits().page_size, own_tokens[s] + steps);
    own_tokens[s] += steps;
    for (int i = 0; i < steps; ++i)
      if (scheduler.sequence(s).state == Scheduler::Sequence::running) token(s);
  }

  void token(int s) {
    const Scheduler::Sequence& seq = scheduler.sequence(s);
    scheduler.accept(s, seq.tokens + 1 == length.at(s));
    ++drawn;
  }

  Scheduler scheduler;
  std::map<int, int> length;  // of each response
  std::map<int32_t, int> prompt_tokens;
  std::map<int, int> own_tokens;
  int64_t drawn = 0, prefilled = 0;
};

TEST(Pages, CountsHolders) {
  Pages p(2);
  const int32_t a = p.allocate(), b = p.allocate();
  EXPECT_NE(a, b);
  EXPECT_THROW(p.allocate(), Error);
  p.retain(a);
  p.release(a);
  EXPECT_EQ(p.free(), 0);
  p.release(a);
  EXPECT_EQ(p.free(), 1);
  EXPECT_THROW(p.release(a), Error);
  EXPECT_THROW(p.retain(a), Error);
  EXPECT_EQ(p.allocate(), a);
}

TEST(Scheduler, RandomWorkloadsKeepEveryInvariant) {
  int64_t preemptions = 0;
  for (unsigned seed = 0; seed < 300; ++seed) {
    std::mt19937 rng(seed);
    const auto pick = [&](int low, int high) { return low + int(rng() % unsigned(high - low + 1)); };
    SchedulerLimits l{pick(1, 12), pick(1, 40), pick(1, 8), 0, pick(1, 5)};
    const int most_prompt = 20, most_new = 30, samples = pick(1, l.batch);
    l.pages = (most_prompt + l.page_size - 1) / l.page_size + (most_new + l.page_size - 1) / l.page_size + pick(0, 30);
    Engine e(l);
    int64_t tokens = 0;
    int left = pick(1, 12);
    const auto add = [&] {
      const int max_new = pick(1, most_new), p = e.scheduler.add(pick(1, most_prompt), samples, max_new);
      for (int i = 0; i < samples; ++i) {
        const int n = pick(1, max_new);
        e.length[e.scheduler.prompt(p).first_sequence + i] = n;
        tokens += n;
      }
      --left;
    };
    add();
    int moves = 0;
    while (e.scheduler.busy() || left > 0) {
      if (left > 0 && (!e.scheduler.busy() || rng() % 3 == 0)) add();
      e.run(e.scheduler.next());
      ASSERT_NO_THROW(e.scheduler.check()) << "seed " << seed;
      if (HasFatalFailure()) FAIL() << "seed " << seed;
      ASSERT_LT(++moves, 200000) << "seed " << seed;
    }
    EXPECT_EQ(e.drawn, tokens) << "seed " << seed;
    EXPECT_EQ(e.scheduler.pages().free(), l.pages);
    EXPECT_EQ(e.scheduler.next().kind, Scheduler::Batch::none);
    preemptions += e.scheduler.preemptions();
    e.scheduler.clear();
    e.scheduler.check();
  }
  EXPECT_GT(preemptions, 100);  // else the workloads do not test preemption
}

TEST(Scheduler, APromptIsPrefilledOnceWhereThereIsRoom) {
  Engine e({64, 1000, 16, 1000, 1});
  for (int i = 0; i < 8; ++i) {
    const int p = e.scheduler.add(10, 8, 20);
    for (int s = 0; s < 8; ++s) e.length[e.scheduler.prompt(p).first_sequence + s] = 5 + s;
  }
  const Scheduler::Batch first = e.scheduler.next();
  ASSERT_EQ(first.kind, Scheduler::Batch::prefill);
  EXPECT_EQ(first.chunks.size(), 8u);  // all prompts in one call
  e.run(first);
  const Scheduler::Batch second = e.scheduler.next();
  ASSERT_EQ(second.kind, Scheduler::Batch::decode);
  EXPECT_EQ(second.sequences.size(), 64u);  // all sequences in one batch
  e.run(second);
  while (e.scheduler.busy()) e.run(e.scheduler.next());
  EXPECT_EQ(e.prefilled, 80);
  EXPECT_EQ(e.scheduler.preemptions(), 0);
}

TEST(Scheduler, RefusesWhatNeverFits) {
  Scheduler s({4, 16, 8, 4, 1});
  EXPECT_NO_THROW(s.add(8, 4, 25));
  EXPECT_THROW(s.add(9, 4, 25), Error);
  EXPECT_THROW(s.add(8, 5, 8), Error);
}

}  // namespace
}  // namespace dapo
