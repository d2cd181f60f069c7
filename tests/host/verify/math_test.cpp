// Verifier `math`: where it finds an answer. How it compares is tested with `boxed`.
#include <gtest/gtest.h>

#include "host/verify/find_answer.h"
#include "host/verify/verify.h"

namespace dapo {
namespace {

std::string found(const std::string& response) {
  return verify::find_answer(response).value_or(verify::FoundAnswer{"(none)", ""}).text;
}
std::string value(const std::string& response) {
  return verify::find_answer(response).value_or(verify::FoundAnswer{"", "(none)"}).value;
}

TEST(FindAnswer, ABoxGoesBeforeEverythingElse) {
  EXPECT_EQ(found("\\boxed{1} so the answer is 2."), "1");
  EXPECT_EQ(found("\\boxed{1}, then \\boxed{2}, $3$"), "2");
}

TEST(FindAnswer, BoxesInOneListAreOneAnswer) {
  EXPECT_EQ(found("\\boxed{1} and \\boxed{2}, \\boxed{3}"), "1, 2, 3");
  EXPECT_EQ(found("$$\\boxed{(2, 2)} \\quad \\text{and} \\quad \\boxed{(6, 2)}$$"), "(2, 2), (6, 2)");
  EXPECT_EQ(found("$\\boxed{7}$ is wrong, $\\boxed{1}$ or $\\boxed{2}$ right"), "1, 2");
  EXPECT_EQ(found("\\boxed{1}\n\\boxed{2}"), "2");  // a second try is not a list
  EXPECT_EQ(found("\\boxed{1}\\boxed{2}"), "2");
}

TEST(FindAnswer, AChainOfEquationsComesToItsLastSide) {
  EXPECT_EQ(value("We have\n$(1-2)+(3-4) = 2(-1) = -2.$"), "-2.");
  EXPECT_EQ(value("The answer is $3! \\times 5! = 720$."), "720");
  EXPECT_EQ(value("\\[\\begin{aligned} a &= 375 + 523 \\\\ &= 898. \\end{aligned}\\]"), "898.");
  EXPECT_EQ(value("So:\n\\begin{align*}\nx &= 4 \\\\\n&= \\frac{17}{21}\n\\end{align*}"), "\\frac{17}{21}");
  EXPECT_EQ(value("The line is $5x - 7y + 4 = 0$."), "5x - 7y + 4 = 0");
  EXPECT_EQ(value("The solutions are $x = 1, y = 2$."), "x = 1, y = 2");
  EXPECT_EQ(value("The answer is $x >= 5$."), "x >= 5");
  EXPECT_EQ(value("\\boxed{1+1=2}"), "1+1=2");  // a box is taken as it is
}

TEST(FindAnswer, WhatFollowsTheLastMarker) {
  EXPECT_EQ(found("First, the answer is 1.\nNo: the final answer is $\\frac{1}{2}$. I hope it is correct."),
            "\\frac{1}{2}");
  EXPECT_EQ(found("Answer: 42"), "42");
  EXPECT_EQ(found("**Final Answer:** \n\n**42**"), "42");
  EXPECT_EQ(found("Answer:\n42\nThe check is left out: 17."), "42");
  EXPECT_EQ(found("The answer to the question is therefore \\(x = 5\\)."), "x = 5");
  EXPECT_EQ(found("So the answers are $1$, $2$ and $3$.\n"), "1, 2, 3");
  EXPECT_EQ(found("The answer is $28$ percent of it."), "28");
  EXPECT_EQ(found("The answer is $28$ percent."), "28\\%");
  EXPECT_EQ(found("The answer is equal to 42 apples."), "42 apples");
  EXPECT_EQ(found("The answer is 3.5; one checks that 3.5 > 3."), "3.5");
  EXPECT_EQ(found("The answer is 42, which is 6 times 7."), "42");
  EXPECT_EQ(found("The answer is (1, 2)."), "(1, 2)");
  EXPECT_EQ(found("the answer is Evelyn."), "Evelyn");
  EXPECT_EQ(found("Final Answer: The largest $n$ is 34."), "34");
  EXPECT_EQ(found("The answer to what the value of $x$ is: it is $5$"), "5");
  EXPECT_EQ(found("The answer is 1,000."), "1,000");
  EXPECT_EQ(found("We answered this before. The unanswered question is hard, and 7 remains.\nSo 8 then."), "8");
}

TEST(FindAnswer, WhatStandsInAnswerTags) {
  EXPECT_EQ(found("<think>The answer is 3?</think>\n<answer>x = 5</answer>"), "x = 5");
  EXPECT_EQ(found("<answer>3</answer> no: <answer>\n $\\frac12$\n</answer>. That was 7 lines"), "\\frac12");
  EXPECT_EQ(found("It is in the tags: <answer>12"), "12");
  EXPECT_EQ(found("the answer is 7 <answer></answer>"), "7 <answer></answer>");
}

TEST(FindAnswer, WordsBeforeANumberMayChangeIt) {
  for (const char* other : {"not 5", "at least 5", "greater than 5", "half of 10", "twice 5", "the square root of 25",
                            "the negative of 5", "not $5$", "not equal to \\(5\\)"})
    EXPECT_EQ(found(std::string("The answer is ") + other + "."), other);
  EXPECT_EQ(found("The answer is minus 5."), "-(5)");
  EXPECT_EQ(found("The answer is negative $5$."), "-(5)");
  EXPECT_EQ(found("Let us see.\nAll in all it must be negative 5, I think"), "-5");
  EXPECT_EQ(found("The answer is the least number, 5."), "number, 5");
  EXPECT_EQ(found("The answer is the square 5."), "5");
}

TEST(FindAnswer, OneShortLineIsTheAnswer) {
  EXPECT_EQ(found("3*sqrt(13)"), "3*sqrt(13)");
  EXPECT_EQ(found(" 6-5i\n"), "6-5i");
  EXPECT_EQ(found("Evelyn"), "Evelyn");
  EXPECT_EQ(found("$p = 5$"), "p = 5");
  EXPECT_EQ(found("So the total is 12."), "12");
  EXPECT_EQ(found("As $72=2^3\\cdot 3^2$, we have $x=2$."), "x=2");
  EXPECT_EQ(found("the number is not 10 which is 1,000.99"), "1,000.99");
}

TEST(FindAnswer, ElseTheLastFormulaOrNumber) {
  const std::string before = "Let us see.\n";
  EXPECT_EQ(found(before + "There are 3 cats and 12 dogs, that is 15 animals."), "15");
  EXPECT_EQ(found(before + "We get $x + 2 = 7$, so $x = 5$. Done"), "x = 5");
  EXPECT_EQ(found(before + "We get $x = 5$ in 2 steps"), "2");
  EXPECT_EQ(found(before + "That makes $1,234.50."), "1,234.50");
  EXPECT_EQ(found(before + "It is -3/4 of x2"), "-3/4");
  EXPECT_EQ(found(before + "It is 12-5 now"), "5");
  EXPECT_EQ(found(before + "at .5"), ".5");
  EXPECT_EQ(found(before + "so \\[ \\frac{1}{3} \\] holds"), " \\frac{1}{3} ");
  EXPECT_EQ(found(before + "$(1, 2)$ and $f(x)=(3,4)$"), "f(x)=(3,4)");
  EXPECT_EQ(found(before + "$x=1, y=2$"), "x=1, y=2");
  EXPECT_EQ(found(before + "nothing here"), "(none)");
  EXPECT_EQ(found(""), "(none)");
}

TEST(Math, ComparesAsBoxed) {
  const auto v = make_verifier("math");
  EXPECT_TRUE(v->verify("The answer is $\\frac{1}{2}$.", "0.5").acc);
  EXPECT_TRUE(v->verify("Thus the interval is\n$x \\in [1, 2)$", "[1,2)").acc);
  EXPECT_TRUE(v->verify("Some text.\n\nIt costs $36.", "\\$36").acc);
  EXPECT_TRUE(v->verify("long\ntext\n50%", "\\frac12").acc);
  EXPECT_TRUE(v->verify("The answer is 5 cm.", "5\\text{ cm}").acc);
  EXPECT_TRUE(v->verify("$\\boxed{-2, 1}$", "\\(\\boxed{1}\\) and \\(\\boxed{-2}\\).").acc);
  EXPECT_FALSE(v->verify("The answer is 5.", "6").acc);
  EXPECT_FALSE(v->verify("The answer is not 5.", "5").acc);
  EXPECT_FALSE(v->verify("The answer is minus 5.", "5").acc);
  EXPECT_TRUE(v->verify("The answer is minus 5.", "-5").acc);
  EXPECT_TRUE(v->verify("The answer is $x=5$.", "5").acc);
  EXPECT_FALSE(v->verify("The answer is $x=5$.", "y=5").acc);
  const Verdict none = v->verify("two\nlines", "6");
  EXPECT_FALSE(none.found);
  EXPECT_EQ(none.reason, "no answer");
  EXPECT_EQ(v->verify("it is\n2/4", "0.5").pred, "1/2");
}

}  // namespace
}  // namespace dapo
