#include "host/verify/verify.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "core/check.h"
#include "data/synthetic.h"
#include "host/verify/pool.h"
#include "host/verify/text.h"
#include "tests/growth.h"

namespace dapo {
namespace {

std::string repeat(std::string_view s, size_t n) {
  std::string out;
  out.reserve(s.size() * n);
  while (n-- > 0) out += s;
  return out;
}

TEST(Verify, UnknownNameIsAnError) {
  try {
    make_verifier("regex");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), kExitUsage);
    EXPECT_NE(std::string(e.what()).find("math_dapo, gsm8k, boxed, math, countdown, exact, format, command"),
              std::string::npos);
  }
}

TEST(Verify, ScoresFollowTheOptions) {
  VerifierOptions o;
  o.right = 2, o.wrong = 0.5f;
  const auto v = make_verifier("exact", o);
  EXPECT_EQ(v->verify(" a b\n", "a b").score, 2);
  EXPECT_EQ(v->verify("a  b", "a b").score, 0.5f);
  EXPECT_FALSE(v->verify(" \n", "a").found);
}

TEST(Verify, FailuresAreReportedNeverSilent) {
  for (const char* name : {"math_dapo", "gsm8k", "boxed", "math", "countdown", "exact"}) {
    const Verdict v = make_verifier(name)->verify("Answer: ", "");
    EXPECT_TRUE(v.error) << name;
    EXPECT_FALSE(v.acc);
    EXPECT_EQ(v.score, -1);
    EXPECT_EQ(v.reason.substr(0, 7), "error: ") << v.reason;
  }
  const auto countdown = make_verifier("countdown");
  for (const char* bad : {"23", "{}", "{\"target\":1}", "{\"target\":\"x\",\"numbers\":[1]}",
                          "{\"target\":1,\"numbers\":[]}", "{\"target\":1,\"numbers\":[1.5]}", "[", "null"})
    EXPECT_TRUE(countdown->verify("<answer>1</answer>", bad).error) << bad;
  EXPECT_TRUE(countdown->verify("<answer>1</answer>", std::string(5000, '[')).error);
}

TEST(MathDapo, CasesBeyondTheVectors) {
  const auto v = make_verifier("math_dapo");
  EXPECT_TRUE(v->verify("An\u017Fwer: 42", "42").acc);           // Python folds the long s
  EXPECT_TRUE(v->verify("Answer\u00A0:\u3000\n 42", "42").acc);  // Unicode white space
  EXPECT_TRUE(
      v->verify("Answer: \u0664\u0662,\u0661", "\u0664\u0662\u0661").acc);  // commas go between digits of any script
  EXPECT_FALSE(v->verify("Answer: 4\u0662,x", "4\u0662x").acc);
  EXPECT_EQ(v->verify("Answer: 1\nAnswer:\n\n", "1").pred, "1");  // a match needs at least one character on its line
  EXPECT_EQ(v->verify("Answer: 1\nAnswer: \n\n", "1").pred, "");  // one blank is enough
  EXPECT_EQ(v->verify("AnsweR :x\nanswer", "x").pred, "x");
  EXPECT_EQ(v->verify("aAnswer answer:7", "7").pred, "7");
  EXPECT_EQ(v->verify("Answer: \\boxed{a}b}c", "x").pred, "a}bc");  // greedy, to the last brace
  EXPECT_EQ(normalize_dapo("\\text{a\nb}c}"), "\\text{a\nb}c}");
  EXPECT_EQ(normalize_dapo("x$1$y\n$2"), "1\n2");
  EXPECT_EQ(normalize_dapo("\\fracfrac12"), "\\frac{f}{r}ac12");
  EXPECT_EQ(normalize_dapo("\\frac\u00E9\u00E82"), "\\frac{\u00E9}{\u00E8}2");
  EXPECT_EQ(normalize_dapo("a=b="), "");
  const std::string broken = "Answer: \xC3\x28\xFF";
  EXPECT_FALSE(v->verify(broken, "42").error);
}

TEST(Boxed, TakesTheLastBalancedBox) {
  const auto v = make_verifier("boxed");
  EXPECT_TRUE(v->verify("\\boxed{1} then \\boxed{\\frac{1}{2}} so", "1/2").acc);
  EXPECT_TRUE(v->verify("\\boxed{\\boxed{42}}", "42").acc);
  EXPECT_TRUE(v->verify("\\boxed{ 42 }", "\\boxed{42}").acc);
  EXPECT_FALSE(v->verify("\\boxed{42} \\boxed{42", "42").found);
  EXPECT_FALSE(v->verify("42", "42").found);
  EXPECT_FALSE(v->verify("\\boxed{}", "0").acc);
  EXPECT_EQ(v->verify("\\boxed{41}", "42").reason, "differs");
  EXPECT_EQ(v->verify("\\boxed{0.50}", "42").pred, "1/2");
  EXPECT_EQ(v->verify("\\boxed{(0.5, -\\frac12)}", "42").pred, "(1/2,-1/2)");
  EXPECT_EQ(v->verify("\\boxed{" + std::string(30, '7') + "}", "42").pred, std::string(30, '7') + "e0");
}

TEST(Boxed, ComparesByValue) {
  struct Pair {
    const char *a, *b;
    bool equal;
  };
  for (const Pair& p : {Pair{"1000", "1,000", true},
                        {"1000", "1000.0", true},
                        {"1000", "\\$1{,}000", true},
                        {"1000", "1\\,000", true},
                        {"1000", "1,\\!000", true},
                        {"1000", "1 000", true},
                        {"1000", "$1000$", true},
                        {"1000", "1000.", true},
                        {"1000", "10,00", false},
                        {"1000", "1,0000", false},
                        {"1000", "1000.1", false},
                        {"1000", "100", false},
                        {"0.5", ".5", true},
                        {"0.5", "1/2", true},
                        {"0.5", "\\frac12", true},
                        {"0.5", "\\dfrac{1}{2}", true},
                        {"0.5", "0.50", true},
                        {"-0.5", "-\\frac{1}{2}", true},
                        {"-0.5", "\\frac{-1}{2}", true},
                        {"0.5", "\\frac{2}{4}", true},
                        {"0.5", "-0.5", false},
                        {"1.5", "1\\frac{1}{2}", true},
                        {"-1.5", "-1\\frac12", true},
                        {"1.5", "3/2", true},
                        {"50\\%", "50", true},
                        {"50\\%", "0.5", true},
                        {"50%", "\\frac{1}{2}", true},
                        {"0.5", "50", false},
                        {"50\\%", "5", false},
                        {"12.5\\%", "1/8", true},
                        {"0", "-0", true},
                        {"0", "0.000", true},
                        {"007", "7", true},
                        {"90^\\circ", "90", true},
                        {"3\\text{ cm}", "3", true},
                        {"3 \\mbox{ cm}^2", "3", true},
                        {"+3", "3", true},
                        {"\u22123", "-3", true},
                        {"1/0", "1/0", true},
                        {"1/0", "0/0", false},
                        {"1/3", "0.3333", false},
                        {"(1,4.5)", "\\left(1,\\frac{9}{2}\\right)", true},
                        {"(1,2)", "(2,1)", false},
                        {"[1,2)", "[1,2]", false},
                        {"(1,2)", "(1,2,3)", false},
                        {"x=5", "5", true},
                        {"\\sqrt3", "\\sqrt{3}", true},
                        {"x^2", "x^{2}", true},
                        {"x = 0.5", "0.5", true},
                        {"x = 3/4", "3/4", true},
                        {"32, 349", "32349", false},
                        {"", "0", false},
                        {"-", "0", false},
                        {".", "0", false},
                        {"\\frac", "0", false},
                        {"123456789012345678901234567890", "123,456,789,012,345,678,901,234,567,890.00", true},
                        {"123456789012345678901234567890", "123456789012345678901234567891", false},
                        {"1/1000000000000000000", "0.000000000000000001", true},
                        {"A", "A", true},
                        {"\\text{A}", "A", true}}) {
    EXPECT_EQ(math_equal(p.a, p.b), p.equal) << p.a << "  " << p.b;
    EXPECT_EQ(math_equal(p.b, p.a), p.equal) << p.b << "  " << p.a;
    // One spelling per value, except for "50%", which equals both 1/2 and 50.
    if (std::string_view(p.a).find('%') != std::string_view::npos) continue;
    EXPECT_EQ(canonical_answer(p.a) == canonical_answer(p.b), p.equal)
        << canonical_answer(p.a) << "  " << canonical_answer(p.b);
  }
}

TEST(Countdown, Verdicts) {
  const auto v = make_verifier("countdown");
  const std::string truth = R"({"target":23,"numbers":[30,100,93]})";
  const auto reason = [&](const std::string& expression) {
    return v->verify("<answer>" + expression + "</answer>", truth).reason;
  };
  EXPECT_EQ(reason("30 + 93 - 100"), "reached");
  EXPECT_EQ(reason("93-(100-30) = 23"), "reached");
  EXPECT_EQ(reason("-100 + (93 + 30)"), "reached");
  EXPECT_EQ(reason("$30 + 93 \u2212 100$"), "reached");
  EXPECT_EQ(reason("\\left(30 + 93\\right) - 100"), "reached");
  EXPECT_EQ(reason("30 + 93"), "not each number exactly once");
  EXPECT_EQ(reason("30 + 93 - 100 + 30"), "more numbers than given");
  EXPECT_EQ(reason("23"), "not each number exactly once");
  EXPECT_EQ(reason("30 * 93 - 100"), "makes 2690");
  EXPECT_EQ(reason("30 / 93 - 100"), "makes -3090/31");
  EXPECT_EQ(reason("(30 + 93 - 100"), "a parenthesis is not closed");
  EXPECT_EQ(reason("30 + 93) - 100"), "a closing parenthesis without an opening one");
  EXPECT_EQ(reason("30 93 - 100"), "no operator between two numbers");
  EXPECT_EQ(reason("30(93 - 100)"), "an operator is missing before a parenthesis");
  EXPECT_EQ(reason("30 + * 93"), "an operator without a value before it");
  EXPECT_EQ(reason("30 + ()"), "nothing before a closing parenthesis");
  EXPECT_EQ(reason("30 +"), "the expression ends in an operator");
  EXPECT_EQ(reason(""), "empty expression");
  EXPECT_EQ(reason("__import__('os')"), "not an arithmetic expression");
  EXPECT_EQ(reason("1e3"), "not an arithmetic expression");
  EXPECT_EQ(reason(std::string(1000, '9')), "a number is too long");
  EXPECT_EQ(reason(std::string(5000, '(')), "the expression is too long");
  EXPECT_TRUE(v->verify("\\boxed{30+93-100}", truth).acc);
  EXPECT_TRUE(v->verify("so\nAnswer: 30+93-100\n", truth).acc);
  EXPECT_FALSE(v->verify("30+93-100", truth).found);
  EXPECT_TRUE(v->verify("<answer>1</answer> no: <answer>30+93-100</answer>", truth).acc);
  EXPECT_TRUE(v->verify("<answer>3/(1-2/3)*1</answer>", R"({"target":9,"numbers":[1,3,2,3,1]})").acc);
  EXPECT_EQ(v->verify("<answer>1/(2-2)</answer>", R"({"target":9,"numbers":[1,2,2]})").reason, "division by zero");
  const std::string huge = "999999999999999999";
  EXPECT_EQ(v->verify("<answer>" + huge + "*" + huge + "</answer>",
                      R"({"target":9,"numbers":[999999999999999999,999999999999999999]})")
                .reason,
            "a result is too large");
}

TEST(Countdown, EveryGeneratedTaskIsReachedByItsSolution) {
  const auto v = make_verifier("countdown");
  Rng rng(5);
  for (int i = 0; i < 2000; ++i) {
    const Countdown task = draw_countdown(rng, rng.between(2, 6));
    const Verdict verdict = v->verify("<answer>" + task.solution + "</answer>", countdown_example(task).answer);
    ASSERT_TRUE(verdict.acc) << task.solution << " " << countdown_example(task).answer << " " << verdict.reason;
  }
}

TEST(Chain, TheTeachersAreJudgedCorrectly) {  // the demo's reward is math_dapo
  const auto v = make_verifier("math_dapo");
  Rng rng(6);
  for (int i = 0; i < 500; ++i) {
    const ::dapo::Chain c = draw_chain(rng);
    const std::string answer = std::to_string(c.answer());
    EXPECT_TRUE(v->verify(respond(rng, c, Teacher::kSteps), answer).acc);
    EXPECT_TRUE(v->verify(respond(rng, c, Teacher::kWordy), answer).acc);
    const std::string guess = respond(rng, c, Teacher::kGuess);
    EXPECT_EQ(v->verify(guess, answer).acc, guess.back() == answer[0]);
  }
}

struct Texts {
  std::string response, truth;
};
/// Time of v on the texts that make(bytes) returns, and on a part of them.
template <typename Make>
Growth verifier_growth(const Verifier& v, size_t bytes, Make&& make) {
  const Texts whole = make(bytes), part = make(bytes / kGrowthParts);
  const auto verify = [&](const Texts& t) {
    const Verdict verdict = v.verify(t.response, t.truth);
    EXPECT_FALSE(verdict.error) << verdict.reason;
  };
  return growth([&] { verify(whole); }, [&] { verify(part); }, 2e-3);
}

TEST(Verify, TimeIsLinear) {  // for hostile texts of 10 MB, and answers of 10^6 digits
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr size_t kBytes = 500'000, kLongest = kBytes;
#else
  // Growth is measured at sizes that fit in the L2 cache: beyond it a byte of math_dapo costs 2.2 times as much (1.8 to
  // 4.1 ns on a CPU with 2 MB of L2, constant from 5 MB on).
  constexpr size_t kBytes = 1'600'000, kLongest = 10'000'000;
#endif
  struct Case {
    const char *name, *before, *unit, *after;
  };
  const Case cases[] = {{"letters", "", "a", ""},
                        {"digits", "\\boxed{", "7", "}"},
                        {"digits answer", "Answer: ", "7", ""},
                        {"CJK", "\\boxed{", "\u6570", "}"},
                        {"combining marks", "\\boxed{e", "\u0301", "}"},
                        {"open braces", "\\boxed{", "{", ""},
                        {"boxes", "", "\\boxed{", ""},
                        {"box pairs", "", "\\boxed{1}", ""},
                        {"fracs", "\\boxed{", "\\frac", "}"},
                        {"texts", "\\boxed{1", "\\text{", "}"},
                        {"commas", "\\boxed{(", "1,", "1)}"},
                        {"answers", "", "answer ", ":"},
                        {"hashes", "", "#### ", ""},
                        {"spaces", "Answer:", " ", ""},
                        {"parentheses", "<answer>", "(", "</answer>"},
                        {"signs", "<answer>", "-", "1</answer>"},
                        {"tags", "", "<answer>", ""},
                        {"closing tags", "", "</answer>", ""},
                        {"continuation bytes", "Answer: ", "\x80", ""},
                        {"answer with spaces", "", "answer      ", ""},
                        {"markers", "", "the answer is ", ""},
                        {"markers that end", "", "answer 1.\n", ""},
                        {"money", "", "$1 \\$", "\n"},
                        {"formulas", "", "$1$ and ", ""},
                        {"open formulas", "", "\\( \\[ ", ""},
                        {"one marker", "the answer is ", "1, and ", ""},
                        {"numbers", "", "1,000.5/x2 ", ""},
                        {"lines", "", "$\n", ""}};
  double worst = 0;
  std::string where;
  for (const char* name : {"math_dapo", "gsm8k", "boxed", "math", "countdown", "exact"}) {
    const auto v = make_verifier(name);
    for (const Case& c : cases) {
      const std::string truth = std::string(name) == "countdown" ? R"({"target":1,"numbers":[1]})" : "1";
      const Growth g = verifier_growth(*v, kBytes, [&](size_t n) {
        return Texts{c.before + repeat(c.unit, n / std::string_view(c.unit).size()) + c.after, truth};
      });
      if (g.ratio > worst) worst = g.ratio, where = fmt::format("{} on {}, {:.1f} ms", name, c.name, 1e3 * g.seconds);
      EXPECT_LT(g.ratio, kGrowthBound) << name << " on " << c.name << ": " << g.seconds << " s";
      const std::string longest = c.before + repeat(c.unit, kLongest / std::string_view(c.unit).size()) + c.after;
      EXPECT_LT(thread_seconds([&] { v->verify(longest, truth); }), 1.0) << name << " on " << c.name;
    }
  }
  for (const char* name : {"math_dapo", "boxed"}) {  // the ground truth may also be long
    const auto v = make_verifier(name);
    const std::string open = std::string(name) == "boxed" ? "\\boxed{" : "Answer: ";
    const Growth g = verifier_growth(*v, 2'000'000, [&](size_t n) {
      return Texts{open + std::string(n, '7') + "}", std::string(n, '7')};
    });
    EXPECT_LT(g.ratio, kGrowthBound) << name;
  }
  for (const char* unit :
       {"$", "\\text{", "\\boxed{", "frac", "sqrt", "\\text{}", "a ", "=", ",", "\\boxed{}", "{,}", "/"}) {
    for (const auto& [name, response] : {std::pair{"math_dapo", "Answer: 1"}, {"boxed", "\\boxed{1}"}}) {
      const Growth g = verifier_growth(*make_verifier(name), kLongest / 5, [unit, text = response](size_t n) {
        return Texts{text, repeat(unit, n / std::string_view(unit).size())};
      });
      EXPECT_LT(g.ratio, kGrowthBound) << name << " on " << unit;
    }
  }
  RecordProperty("worst_ratio", fmt::format("{:.1f}: {}", worst, where));
}

TEST(Verify, RandomBytesNeverFault) {
  std::mt19937 rng(9);
  const char* pieces[] = {"Answer", ":",      " ",      "\n", "\\boxed{", "}", "{",        "$",
                          "\\frac", "\\sqrt", "1",      "23", ",",        ".", "=",        "\\text{",
                          "####",   "%",      "-",      "/",  "(",        ")", "<answer>", "</answer>",
                          "\xC3",   "\xA9",   "\u00A0", "a",  "\xFF"};
  const std::unique_ptr<Verifier> all[] = {make_verifier("math_dapo"), make_verifier("gsm8k"), make_verifier("boxed"),
                                           make_verifier("math"), make_verifier("exact")};
  const auto countdown = make_verifier("countdown");
  for (int i = 0; i < 20000; ++i) {
    std::string a, b;
    for (size_t k = rng() % 24; k > 0; --k) a += pieces[rng() % std::size(pieces)];
    for (size_t k = 1 + rng() % 6; k > 0; --k) b += pieces[rng() % std::size(pieces)];
    for (const auto& v : all) {
      const Verdict verdict = v->verify(a, b);
      ASSERT_EQ(verdict.error, verify::strip(b).empty()) << verdict.reason;
      ASSERT_EQ(verdict.score, verdict.acc ? 1 : -1);
    }
    ASSERT_FALSE(countdown->verify(a, R"({"target":24,"numbers":[1,23]})").error);
    ASSERT_EQ(math_equal(a, b), math_equal(b, a)) << a << " ~ " << b;
  }
}

TEST(Verify, WhiteSpaceAroundTheGroundTruthDoesNotCount) {
  EXPECT_TRUE(make_verifier("gsm8k")->verify("so\n#### 5", "5\n").acc);
  EXPECT_TRUE(make_verifier("gsm8k")->verify("so\n#### 5", " 5").acc);
  EXPECT_TRUE(make_verifier("exact")->verify("5", " 5\n").acc);
  for (const char* name : {"gsm8k", "exact", "boxed", "math", "math_dapo"})
    EXPECT_TRUE(make_verifier(name)->verify("", " \n").error) << name;
}

}  // namespace
}  // namespace dapo
