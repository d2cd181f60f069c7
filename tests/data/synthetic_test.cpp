#include "data/synthetic.h"

#include <cmath>
#include <map>
#include <set>

#include "core/check.h"
#include "tests/testdata.h"

namespace dapo {
namespace {

/// The result of a chain, computed from its prompt, independently of the generator.
int evaluate(const std::string& prompt) {
  int a = prompt[0] - '0';
  for (size_t i = 1; i + 1 < prompt.size() && prompt[i] != ' ' && prompt[i] != '\n'; i += 2)
    a = (prompt[i] == '+' ? a + (prompt[i + 1] - '0') : a - (prompt[i + 1] - '0') + 10) % 5;
  return a;
}

size_t operations(const std::string& prompt) {
  return (prompt.find_last_of("01234") + 1) / 2;
}

/// Shares of rows by the teacher of the response, and of chains by length, derived from the text only.
struct Statistics {
  std::map<std::string, double> teacher;
  std::map<size_t, double> length;
  double right = 0, slip = 0;
};
Statistics statistics(const Dataset& set) {
  Statistics s;
  const double one = 1.0 / static_cast<double>(set.size());
  double sloppy_steps = 0, slips = 0;
  for (const Example& e : set) {
    const std::string& r = e.response;
    s.length[operations(e.prompt)] += one;
    const int said = r.back() - '0';
    s.right += said == evaluate(e.prompt) ? one : 0;
    if (r.starts_with("Answer")) {
      s.teacher["guess"] += one;
      continue;
    }
    if (r.find("hold on") != std::string::npos) {
      s.teacher["wordy"] += one;
      continue;
    }
    int a = e.prompt[0] - '0', wrong = 0;
    for (size_t i = 1, k = 1; k < r.size() && r[k - 1] == '='; i += 2, k += 2) {
      const int b = e.prompt[i + 1] - '0', expected = (e.prompt[i] == '+' ? a + b : a - b + 5) % 5;
      a = r[k] - '0';
      wrong += a != expected;
      sloppy_steps += 1;
    }
    slips += wrong;
    s.teacher[wrong ? "slipped" : "clean"] += one;
  }
  s.slip = slips / std::max(sloppy_steps, 1.0);
  return s;
}

TEST(Chain, RowsFollowTheTask) {
  const ScratchFolder folder;
  const ChainSizes sizes{100, 400, 600, 500};
  write_chain(folder.path(), 1, sizes);
  std::set<std::string> prompts;
  size_t rows = 0;
  for (const char* name : {"test", "train", "skill", "crowd"}) {
    const Dataset set = Dataset::load(fmt::format("{}/{}.jsonl", folder.path(), name));
    rows += set.size();
    for (const Example& e : set) {
      ASSERT_EQ(e.prompt.size(), 26u);
      EXPECT_EQ(e.prompt.back(), '\n');
      EXPECT_TRUE(operations(e.prompt) >= 2 && operations(e.prompt) <= 12);
      prompts.insert(e.prompt);
      if (!e.answer.empty()) {
        EXPECT_EQ(e.answer, std::to_string(evaluate(e.prompt)));
      }
      if (std::string(name) == "skill") {
        EXPECT_EQ(e.response.back() - '0', evaluate(e.prompt));
      }
    }
  }
  EXPECT_EQ(rows, 1600u);
  EXPECT_EQ(prompts.size(), rows);  // disjoint by prompt
}

TEST(Chain, DeterministicBySeed) {
  const ScratchFolder a, b, c;
  const ChainSizes sizes{10, 10, 10, 10};
  write_chain(a.path(), 1, sizes), write_chain(b.path(), 1, sizes), write_chain(c.path(), 2, sizes);
  for (const char* name : {"/test.jsonl", "/train.jsonl", "/skill.jsonl", "/crowd.jsonl"}) {
    EXPECT_EQ(slurp(a.path() + name), slurp(b.path() + name));
    EXPECT_NE(slurp(a.path() + name), slurp(c.path() + name));
  }
}

void expect_statistics(const std::string& reference_path, const ChainSizes& sizes) {
  SCOPED_TRACE(reference_path);
  const ScratchFolder folder;
  write_chain(folder.path(), 20241, sizes);
  const Dataset ours_set = Dataset::load(folder.path() + "/crowd.jsonl"), reference_set = Dataset::load(reference_path);
  ASSERT_EQ(ours_set.size(), reference_set.size());
  const Statistics ours = statistics(ours_set), reference = statistics(reference_set);
  const double n = static_cast<double>(ours_set.size());
  const auto close = [&](double p, double q) { return std::abs(p - q) < 5 * std::sqrt(2 * q * (1 - q) / n) + 1e-9; };
  for (const auto& [teacher, share] : reference.teacher)
    EXPECT_TRUE(close(ours.teacher.at(teacher), share)) << teacher << " " << ours.teacher.at(teacher) << " " << share;
  for (const auto& [length, share] :
       reference.length)  // short chains run out: their share equals that of the reference too
    EXPECT_TRUE(close(ours.length.count(length) ? ours.length.at(length) : 0, share)) << length;
  EXPECT_TRUE(close(ours.right, reference.right)) << ours.right << " " << reference.right;
  EXPECT_NEAR(ours.slip, reference.slip, 0.01);
}

TEST(Chain, SameStatisticsAsTheReference) {
  ChainSizes few;
  few.test = few.train = few.skill = 1, few.crowd = 4096;
  expect_statistics(golden("chain/crowd.jsonl.gz"), few);
  const std::string outside = test_data("chain/crowd.jsonl");
  if (!outside.empty()) expect_statistics(outside, {});
}

TEST(Chain, FolderThatCannotBeCreated) {
  EXPECT_THROW(write_chain("/dev/null/x", 1, {1, 1, 1, 1}), Error);
}

TEST(Countdown, RowsLoadAndAreDistinct) {
  const ScratchFolder folder;
  const std::string path = folder.path() + "/countdown.jsonl";
  write_countdown(path, 500, 3);
  Dataset set = Dataset::load(path);
  ASSERT_EQ(set.size(), 500u);
  EXPECT_EQ(set[0].messages.size(), 1u);
  EXPECT_EQ(set[0].data_source, "countdown");
  EXPECT_TRUE(set[0].answer.starts_with("{\"target\":")) << set[0].answer;
  EXPECT_EQ(set.dedupe().problems, 500u);
  write_countdown(folder.path() + "/again.jsonl", 500, 3);
  EXPECT_EQ(slurp(path), slurp(folder.path() + "/again.jsonl"));
}

TEST(Countdown, ParsesTheCompactLayout) {
  const auto t = parse_countdown("30,100, 93", "23");
  ASSERT_TRUE(t.has_value());
  EXPECT_EQ(t->numbers, (std::vector<int>{30, 100, 93}));
  EXPECT_EQ(t->target, 23);
  for (const char* bad : {"", "1,", ",1", "1;2", "1 2", "99999999999999", "1.5"})
    EXPECT_FALSE(parse_countdown(bad, "3").has_value()) << bad;
  EXPECT_FALSE(parse_countdown("1,2", "x").has_value());
}

}  // namespace
}  // namespace dapo
