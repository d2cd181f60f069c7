// Rollout on a toy model: a response depends on weights, prompt and key alone; its log-probs have the bits of
// training's.
#include "host/rollout/rollout.h"

#include <gtest/gtest.h>

#include "host/train/packing.h"
#include "tests/host/toy.h"

namespace dapo {
namespace {

std::vector<Request> requests(int count, int samples, int max_new) {
  std::vector<Request> out;
  for (int i = 0; i < count; ++i) {
    Request r;
    r.id = 100 + i;
    for (int k = 0; k < 3 + 29 * i % 70; ++k) r.prompt.push_back((i * 31 + k * 7) % 256);
    r.samples = samples;
    r.max_new = max_new;
    r.step = 5;
    r.prompt_key = i;
    out.push_back(r);
  }
  return out;
}

ModelLimits limits(int batch, int prefill_tokens, int page_size, int64_t pages, int steps) {
  ModelLimits l;
  l.max_length = 256;
  l.batch = batch;
  l.prefill_tokens = prefill_tokens;
  l.page_size = page_size;
  l.kv_pages = pages;
  l.decode_steps = steps;
  l.pack_tokens = l.pack_segments = l.pack_head_rows = 4096;
  return l;
}

struct Result {
  std::vector<Completion> groups;
  Rollout::Stats stats, next;  ///< next: of the following round, with one short response
};

Result generate(const ModelLimits& l, std::vector<Request> requests, const Sampling& s) {
  Toy toy;
  ModelMemory memory(toy.weights, l);
  Decoder decoder(memory);
  Learner learner(memory);
  Rollout rollout(decoder, {256});
  Request small = requests[0];
  small.samples = 1, small.max_new = 2;
  Result r;
  r.groups = rollout.generate(std::move(requests), s);
  r.stats = rollout.stats();
  // training computes the same log-probs, bit for bit
  std::vector<PackInput> packed;
  for (const Completion& g : r.groups) {
    packed.push_back({g.prompt, {}});
    for (const Response& a : g.responses) packed.back().responses.push_back({a.ids, a.log_prob, 1});
  }
  learner.begin();
  for (MicroBatch& p : pack_groups(packed, {4096, 4096})) {
    learner.score(p.pack, s.temperature > 0 ? s.temperature : 1.0f);
    EXPECT_EQ(p.pack.log_prob, p.pack.old_log_prob);
  }
  rollout.generate({small}, s);
  r.next = rollout.stats();
  return r;
}

void expect_same(const Result& a, const Result& b) {
  ASSERT_EQ(a.groups.size(), b.groups.size());
  for (size_t g = 0; g < a.groups.size(); ++g) {
    EXPECT_EQ(a.groups[g].id, b.groups[g].id);
    ASSERT_EQ(a.groups[g].responses.size(), b.groups[g].responses.size());
    for (size_t i = 0; i < a.groups[g].responses.size(); ++i) {
      const Response &x = a.groups[g].responses[i], &y = b.groups[g].responses[i];
      EXPECT_EQ(x.ids, y.ids) << "group " << g << " response " << i;
      EXPECT_EQ(x.log_prob, y.log_prob) << "group " << g << " response " << i;
      EXPECT_EQ(x.finish, y.finish);
    }
  }
}

TEST(Rollout, ScheduleDoesNotChangeResponses) {
  Sampling s;
  s.seed = 3;
  const std::vector<Request> r = requests(4, 4, 140);
  const Result all = generate(limits(32, 1000, 64, 200, 1), r, s);
  EXPECT_EQ(all.stats.preemptions, 0);
  int stopped = 0;
  for (const Completion& g : all.groups)
    for (const Response& a : g.responses) {
      stopped += a.finish == Finish::stop;
      EXPECT_EQ(a.finish == Finish::stop, a.ids.back() == 256);
      EXPECT_TRUE(a.finish == Finish::stop || a.ids.size() == 140);
      EXPECT_EQ(a.ids.size(), a.log_prob.size());
      for (size_t k = 0; k + 1 < a.ids.size(); ++k) EXPECT_TRUE(a.ids[k] != 256);
    }
  EXPECT_GT(stopped, 0);
  EXPECT_LT(stopped, 16);
  expect_same(all, generate(limits(5, 1000, 64, 200, 1), r, s));    // a small batch
  expect_same(all, generate(limits(32, 16, 64, 200, 1), r, s));     // prompts in parts
  expect_same(all, generate(limits(32, 1000, 128, 100, 7), r, s));  // larger pages, several steps a synchronization
  const Result few = generate(limits(32, 50, 64, 7, 3), r, s);      // hardly any pages
  EXPECT_GT(few.stats.preemptions, 0);
  EXPECT_EQ(few.next.preemptions, 0);  // counted anew in the next round
  expect_same(all, few);
}

TEST(Rollout, EveryEndIdEndsAResponse) {
  Sampling s;
  s.seed = 3;
  const std::vector<Request> r = requests(4, 4, 140);
  const Result all = generate(limits(32, 1000, 64, 200, 1), r, s);
  const int32_t other = all.groups[0].responses[0].ids[1];  // a second end id, one that occurs
  Toy toy;
  ModelMemory memory(toy.weights, limits(32, 1000, 64, 200, 1));
  Decoder decoder(memory);
  Rollout rollout(decoder, {256, other});
  const std::vector<Completion> cut = rollout.generate(r, s);
  int by_other = 0;
  for (size_t g = 0; g < cut.size(); ++g)
    for (size_t i = 0; i < cut[g].responses.size(); ++i) {
      std::vector<int32_t> want = all.groups[g].responses[i].ids;
      const auto at = std::find(want.begin(), want.end(), other);
      by_other += at != want.end();
      if (at != want.end()) want.erase(at + 1, want.end());
      EXPECT_EQ(cut[g].responses[i].ids, want);
      EXPECT_EQ(cut[g].responses[i].finish == Finish::stop, want.back() == 256 || want.back() == other);
    }
  EXPECT_GT(by_other, 0);
}

TEST(Rollout, OrderAndOtherRequestsDoNotMatter) {
  Sampling s;
  s.seed = 4;
  s.top_p = 0.9f;
  s.temperature = 0.8f;
  std::vector<Request> r = requests(3, 4, 40);
  const Result all = generate(limits(32, 1000, 64, 200, 1), r, s);
  for (size_t i = 0; i < r.size(); ++i) {
    const Result one = generate(limits(32, 1000, 64, 200, 1), {r[i]}, s);
    expect_same({{all.groups[i]}, {}, {}}, one);
  }
  Request late = r[1];  // two of the samples by themselves
  late.first_sample = 2;
  late.samples = 2;
  const Result part = generate(limits(32, 1000, 64, 200, 1), {late}, s);
  EXPECT_EQ(part.groups[0].responses[1].ids, all.groups[1].responses[3].ids);
  s.seed = 5;
  EXPECT_NE(generate(limits(32, 1000, 64, 200, 1), r, s).groups[0].responses[0].ids, all.groups[0].responses[0].ids);
}

TEST(Rollout, RequestsMayBeAddedWhileItRuns) {
  Sampling s;
  std::vector<Request> r = requests(6, 4, 30);
  const Result all = generate(limits(8, 100, 64, 30, 1), r, s);
  Toy toy;
  ModelMemory memory(toy.weights, limits(8, 100, 64, 30, 1));
  Decoder decoder(memory);
  Rollout rollout(decoder, {256});
  int64_t heard = 0;
  rollout.on_token = [&](int64_t, int, int32_t) { ++heard; };
  rollout.begin(s);
  std::map<int64_t, Completion> got;
  size_t added = 0;
  for (int turn = 0; rollout.busy() || added < r.size(); ++turn) {
    if (turn % 5 == 0 && added < r.size()) rollout.add(r[added++]);
    for (Completion& g : rollout.advance()) got.emplace(g.id, std::move(g));
  }
  ASSERT_EQ(got.size(), r.size());
  for (const Completion& g : all.groups)
    for (size_t i = 0; i < g.responses.size(); ++i) EXPECT_EQ(got.at(g.id).responses[i].ids, g.responses[i].ids);
  EXPECT_EQ(heard, rollout.stats().drawn_tokens);
  EXPECT_EQ(rollout.stats().finished, 24);
}

TEST(Rollout, RefusesWhatDoesNotFit) {
  Toy toy;
  ModelMemory memory(toy.weights, limits(8, 100, 64, 5, 1));
  Decoder decoder(memory);
  Rollout rollout(decoder, {256});
  rollout.begin({});
  Request r = requests(1, 2, 254)[0];
  EXPECT_THROW(rollout.add(r), Error);  // 257 tokens
  r.max_new = 253;
  EXPECT_NO_THROW(rollout.add(r));
  r.samples = 9;
  EXPECT_THROW(rollout.add(r), Error);
  r.samples = 1;
  r.prompt.clear();
  EXPECT_THROW(rollout.add(r), Error);
}

}  // namespace
}  // namespace dapo
