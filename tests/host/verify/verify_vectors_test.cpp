// The verifiers against the verdicts of reference programs: on the project's vectors (tests/goldens/verifier) and, if
// present, on larger sets from outside the tree. Known differences are counted exactly, so that a change in
// either direction is noticed.
#include <simdjson.h>

#include <functional>
#include <map>
#include <set>

#include "host/verify/verify.h"
#include "tests/testdata.h"

namespace dapo {
namespace {
using simdjson::dom::element;

size_t each_row(const std::string& path, const std::function<void(element)>& body) {
  simdjson::dom::parser parser;
  simdjson::dom::document_stream rows;
  const simdjson::padded_string text = simdjson::padded_string::load(path);
  if (parser.parse_many(text, size_t{1} << 24).get(rows) != simdjson::SUCCESS) return 0;
  size_t n = 0;
  for (const element row : rows) body(row), ++n;
  return n;
}
std::string text(element row, const char* key) {
  std::string_view s;
  return row[key].get(s) == simdjson::SUCCESS ? std::string(s) : std::string();
}

using Files = std::vector<std::pair<std::string, size_t>>;  // and their rows

/// The project's vectors, and the larger file of the same layout from outside the tree.
Files vectors(const std::string& own, size_t own_rows, const std::string& outside, size_t outside_rows) {
  Files files;
  for (const std::string& path : golden_files("verifier/" + own, "verifier/" + outside))
    files.emplace_back(path, files.empty() ? own_rows : outside_rows);
  return files;
}

void expect_math_dapo(const std::string& path, size_t expected_rows) {
  VerifierOptions strict;
  strict.strict_box = true;
  const auto loose_box = make_verifier("math_dapo"), strict_box = make_verifier("math_dapo", strict);
  const size_t rows = each_row(path, [&](element row) {
    const Verdict v =
        (bool(row["strict_box"]) ? strict_box : loose_box)->verify(text(row, "solution"), text(row, "ground_truth"));
    ASSERT_FALSE(v.error) << v.reason;
    ASSERT_EQ(v.score, double(row["score"])) << text(row, "solution");
    ASSERT_EQ(v.acc, bool(row["acc"]));
    ASSERT_EQ(v.pred, text(row, "pred")) << text(row, "solution");
    ASSERT_TRUE(v.found || row["pred"].is_null() || v.pred == "[INVALID]");
    ASSERT_FALSE(v.found && row["pred"].is_null());
  });
  EXPECT_EQ(rows, expected_rows) << path;
}

TEST(VerifyVectors, MathDapo) {
  for (const auto& [path, rows] : vectors("math_dapo.jsonl", 285, "gen_dapo_vectors.jsonl", 3402))
    expect_math_dapo(path, rows);
}

TEST(VerifyVectors, Normalize) {
  for (const auto& [path, expected] : vectors("normalize.jsonl", 152, "gen_normalize_vectors.jsonl", 797)) {
    const size_t rows = each_row(path, [&](element row) {
      EXPECT_EQ(normalize_dapo(text(row, "input")), text(row, "dapo_normalize")) << text(row, "input");
    });
    EXPECT_EQ(rows, expected) << path;
  }
}

void expect_gsm8k(const std::string& path, size_t expected_rows) {
  VerifierOptions flexible;
  flexible.flexible = true;
  const auto strict = make_verifier("gsm8k"), loose = make_verifier("gsm8k", flexible);
  const size_t rows = each_row(path, [&](element row) {
    const Verdict s = strict->verify(text(row, "solution"), text(row, "ground_truth"));
    const Verdict f = loose->verify(text(row, "solution"), text(row, "ground_truth"));
    EXPECT_EQ(s.acc, double(row["strict"]) == 1);
    EXPECT_EQ(f.acc, double(row["flexible"]) == 1);
    EXPECT_EQ(s.pred, text(row, "extracted_strict"));
    EXPECT_EQ(s.found, !row["extracted_strict"].is_null());
    EXPECT_EQ(f.pred, text(row, "extracted_flexible"));
  });
  EXPECT_EQ(rows, expected_rows) << path;
}

TEST(VerifyVectors, Gsm8kStrictAndFlexible) {
  for (const auto& [path, rows] : vectors("gsm8k.jsonl", 108, "gen_gsm8k_vectors.jsonl", 880)) expect_gsm8k(path, rows);
}

/// Each pair in both directions, in a box. If Math-Verify's verdict differs, the row has the reason.
TEST(VerifyVectors, PairsAgainstMathVerify) {
  const auto boxed = make_verifier("boxed");
  size_t differ = 0;
  const size_t rows = each_row(golden("verifier/pairs.jsonl"), [&](element row) {
    const std::string a = text(row, "a"), b = text(row, "b");
    const bool same = row["same"];
    EXPECT_EQ(boxed->verify("\\boxed{" + a + "}", b).acc, same) << a << "  against  " << b;
    EXPECT_EQ(boxed->verify("\\boxed{" + b + "}", a).acc, same) << b << "  against  " << a;
    const bool reason = !text(row, "why").empty();
    EXPECT_EQ(same != bool(row["math_verify"]), reason) << a << "  against  " << b;
    differ += reason;
  });
  EXPECT_EQ(rows, 86u);
  EXPECT_EQ(differ, 12u);
}

TEST(VerifyVectors, RealModelOutputsAgreeWithTheirLabels) {
  REQUIRE_DATA(path, "verifier/gsm8k_example_model_solutions.jsonl");
  const auto verifier = make_verifier("gsm8k");
  const auto marked = [](std::string s) {  // these rows end in "A: 10", but the verifier's format is "#### 10"
    if (const size_t at = s.rfind("\nA: "); at != s.npos) s.replace(at, 4, "\n#### ");
    return s;
  };
  size_t agree = 0, judged = 0;
  each_row(path, [&](element row) {
    std::string gold = text(row, "ground_truth");
    gold.erase(0, gold.rfind("\nA: ") + 4);
    std::erase(gold, ',');
    for (const char* model : {"6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"}) {
      element answer = row[model];
      const Verdict v = verifier->verify(marked(text(answer, "solution")), gold);
      EXPECT_FALSE(v.error) << v.reason;
      agree += v.acc == bool(answer["is_correct"]);
      ++judged;
    }
  });
  RecordProperty("agree", static_cast<int>(agree));
  EXPECT_EQ(judged, 4u * 1319);
  EXPECT_EQ(agree, judged);
}

/// math_equal against a column of verdicts: counts {both yes, only ours, only theirs, both no}.
struct Table {
  size_t both = 0, ours = 0, theirs = 0, neither = 0;
  void add(bool we, bool they) { ++(we ? they ? both : ours : they ? theirs : neither); }
};

TEST(VerifyVectors, EquivalentPairs) {
  REQUIRE_DATA(path, "verifier/gen_equiv_pairs.jsonl");
  Table hendrycks, qwen;
  std::set<std::string> ours_alone;
  const size_t rows = each_row(path, [&](element row) {
    const bool we = math_equal(text(row, "pred"), text(row, "gold")), they = bool(row["hendrycks_is_equiv"]);
    EXPECT_EQ(we, math_equal(text(row, "gold"), text(row, "pred")));
    hendrycks.add(we, they);
    if (we && !they) ours_alone.insert(text(row, "pred") + "  ~  " + text(row, "gold"));
    bool other;
    if (row["qwen_math_equal"].get(other) == simdjson::SUCCESS) {
      qwen.add(we, other);
    }
  });
  EXPECT_EQ(rows, 1110u);
  EXPECT_EQ(hendrycks.both, 786u);
  EXPECT_EQ(hendrycks.theirs, 0u);
  EXPECT_EQ(hendrycks.ours, 60u);
  // Other spellings: sqrt(51) = \sqrt{51}; 3, 7, 5 = 3, 5, 7; C = \text{(C)}; ... Each was inspected.
  EXPECT_EQ(ours_alone.size(), 58u);
  EXPECT_EQ(qwen.both + qwen.neither, 109u);
  EXPECT_EQ(qwen.theirs, 0u);
  EXPECT_EQ(qwen.ours, 1u);  // 10000 = 10{,}000
}

TEST(VerifyVectors, OtherLibrariesCases) {
  REQUIRE_DATA(path, "verifier/gen_parametrized_cases.jsonl");
  // Ground truths are LaTeX, sometimes in prose, that the libraries simplify with sympy; ours does no algebra. It must
  // never accept what they reject.
  const auto boxed = make_verifier("boxed");
  Table all;
  size_t without_verdict = 0;
  each_row(path, [&](element row) {
    int64_t expected = 0;
    if (row["expected"].get(expected) != simdjson::SUCCESS && row["result"].get(expected) != simdjson::SUCCESS) {
      ++without_verdict;
      return;
    }
    const std::string gold = text(row, "gold"), pred = text(row, "pred");
    const bool in_box = pred.find("\\boxed{") != pred.npos;
    const bool we = in_box && !gold.empty() ? boxed->verify(pred, gold).acc : math_equal(pred, gold);
    all.add(we, expected == 1);
    EXPECT_FALSE(we && expected != 1) << pred << "  against  " << gold;
  });
  EXPECT_EQ(without_verdict, 35u);
  EXPECT_EQ(all.ours, 0u);
  EXPECT_EQ(all.neither, 62u);
  EXPECT_EQ(all.both, 222u);
  EXPECT_EQ(all.theirs, 189u);
}

}  // namespace
}  // namespace dapo
