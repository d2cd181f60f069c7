// boxed: which answers are equal, kind by kind. Those listed as different must stay different: a policy finds any gap.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "host/verify/verify.h"
#include "tests/growth.h"

namespace dapo {
namespace {

struct Kind {
  const char *name, *answer;
  std::vector<const char*> same, different;
};

class BoxedKinds : public testing::TestWithParam<Kind> {};

TEST_P(BoxedKinds, SameAndDifferent) {
  const auto boxed = make_verifier("boxed");
  const auto check = [&](const std::string& a, const std::string& b, bool same) {
    EXPECT_EQ(math_equal(a, b), same) << a << "   " << b << "   (" << canonical_answer(a) << ", " << canonical_answer(b)
                                      << ")";
    EXPECT_EQ(boxed->verify("so it is $\\boxed{" + a + "}$.", b).acc, same) << a << "   " << b;
  };
  const Kind& kind = GetParam();
  check(kind.answer, kind.answer, true);
  for (const char* other : kind.same) check(kind.answer, other, true), check(other, kind.answer, true);
  for (const char* other : kind.different) check(kind.answer, other, false), check(other, kind.answer, false);
}

const Kind kKinds[] = {
    {"MixedNumber",
     "3 1/2",
     {"7/2", "3.5", "3\\frac{1}{2}", "3 \\frac12", "3\\ 1/2", "3\u00BD", "3\\dfrac{1}{2}"},
     {"31/2", "\\frac{31}{2}", "3/2", "3", "\\frac{3}{2}", "3 \\cdot \\frac12", "3 1/3"}},
    {"NegativeMixedNumber", "-2 3/4", {"-2.75", "-\\frac{11}{4}", "-2\\frac34"}, {"-23/4", "2.75", "-1.25"}},
    {"ImproperMixedNumber", "4 10/3", {}, {"4", "22/3", "410/3", "40/3"}},
    {"MixedOverHundreds", "3 100/200", {"3.5"}, {"3100/200", "31/2"}},
    {"DigitsApart", "1 2", {}, {"12", "2", "1", "3", "1,2"}},
    {"Thousands",
     "1000000",
     {"1,000,000", "1 000 000", "1\\,000\\,000", "1\\ 000\\ 000", "1{,}000{,}000", "1,\\!000,\\!000", "1~000~000",
      "\\$1,000,000", "10^6", "1e6", "1000000.", "1000000.0"},
     {"1,000,00", "1,0000,000", "1, 000, 000", "100 0000", "1.000.000"}},
    {"ThousandsInBrackets", "(1,234)", {"(1, 234)"}, {"1234", "(1234,0)"}},
    {"PowersOfTen",
     "1.2\\times10^3",
     {"1200", "1.2 \\cdot 10^{3}", "1.2*10^3", "1.2\u00D710\u00B3", "1.2 x 10^3", "1.2e3"},
     {"1.2", "12000", "1.2\\times10^4", "3.2"}},
    {"SmallPowersOfTen", "6.72\\times10^{-5}", {".0000672", "0.0000672"}, {"6.72\\times10^5", "6.72", "0.000672"}},
    {"HugePowersOfTen", "10^{100}", {"1\\times10^{100}", "10\\cdot10^{99}"}, {"10^{101}", "10", "100"}},
    {"RepeatingDecimal", "0.1\\overline{6}", {"1/6"}, {"0.\\overline{6}", "0.16", "0.01\\overline{6}"}},
    {"RepeatingDecimalWithDots", "0.\\dot{3}", {"1/3", "0.(3)", "0.\\overline{3}"}, {"0.3", "3", "0.\\dot{4}", "0"}},
    {"RepeatingDecimalOfManyDigits", "0.\\dot{1}4285\\dot{7}", {"1/7", "0.(142857)"}, {"0.142857", "1/6"}},
    {"DecimalTimesGroup", "0.5(3)", {}, {"8/15", "0.5\\overline{3}"}},
    {"PrintedExponents", "1.5e-7", {"0.00000015", "1.5e-07", "1.5\\times10^{-7}"}, {"1.5e7", "1.5e-8", "-5.5"}},
    {"PrintedExponentsOfPowersOfTen", "1e+22", {"10^{22}", "1\\times10^{22}"}, {"10^{21}", "1"}},
    {"EulersNumber", "2e+3", {"3+2e"}, {"2000", "2e3"}},
    {"NegativeDivisor", "3/-4", {"-3/4", "-0.75"}, {"3/4", "3-4"}},
    {"Ellipsis", "0.333\\ldots", {"0.333..."}, {"0.333", "1/3", "0.3330\\ldots"}},
    {"Fractions",
     "-\\frac{1}{2}",
     {"\\frac{-1}{2}", "\\frac{1}{-2}", "-\\frac12", "-\\dfrac12", "-\\tfrac{2}{4}", "-0.5", "-.5", "-1/2", "\u22120.5",
      "\\left(-\\frac{1}{2}\\right)", "-\\frac1{2}"},
     {"\\frac12", "-\\frac{1}{3}", "-12", "-2"}},
    {"DivisionByZero", "1/0", {}, {"0", "0/0", "2/0"}},
    {"AmbiguousDivision", "1/2x", {}, {"\\frac{1}{2x}", "\\frac{x}{2}"}},
    {"Percent",
     "50\\%",
     {"50%", "50", "0.5", "\\frac12", "50 percent", "50\\text{ percent}"},
     {"5", "500", "5\\%", "0.05"}},
    {"Text",
     "\\text{Evelyn}",
     {"Evelyn", "\\mathrm{Evelyn}", "\\textbf{ Evelyn }", "\\text{evelyn}"},
     {"Ellen", "Evelyne", "\\text{Eve}", "lynEve", "Evlyne"}},
    {"CaseOfWords", "yes", {"Yes", "YES", "\\text{yes}"}, {"no", "yea", "s"}},
    {"CaseOfFirstLetters", "Even", {"even"}, {"eVen", "odd", "E"}},
    {"CaseOfProducts", "ab", {}, {"aB", "Ab", "AB", "ba"}},
    {"Emphasis", "**12**", {"12", "`12`", "__12__"}, {"2", "1", "**1** and **2**"}},
    {"Quotes", "\u201Cred\u201D", {"red", "\"red\""}, {"reds"}},
    {"TextOfWords",
     "\\text{no real solution}",
     {"\\text{No real solution}", "no real solution"},
     {"\\text{no solution}"}},
    {"Choice",
     "\\text{(C)}",
     {"C", "(C)", "\\textbf{(C)}", "\\mathbf{C}", "\\text{C}", "C)", "Option C", "\\text{choice (C)}", "\\text{C.}"},
     {"D", "\\text{(D)}", "c", "(C,D)", "D)", "Option D", "Option C or D", "Options C", "(C, D)"}},
    {"InfixFractions",
     "\\frac{1}{2}",
     {"{1\\over 2}", "1 \\over 2", "{{1} \\over {2}}", "0.5", "\\left(1 \\over 2\\right)", "x={1\\over2}"},
     {"{2\\over 1}", "{1\\over 2}x", "1\\over{}", "12", "{1\\over 2\\over 2}", "1,1\\over2"}},
    {"InfixFractionsInside",
     "\\frac{x}{2}+y^{\\frac{a+1}{b}}",
     {"{1\\over 2}x+y^{a+1\\over b}", "{x \\over 2}+y^{{a+1}\\over b}"},
     {"{x+y \\over 2}", "{x\\over 2}+y^{a+1}\\over b"}},
    {"InfixMixedNumber", "2.5", {"2{1\\over 2}", "2 {1 \\over 2}"}, {"1", "21/2", "2"}},
    {"InfixBinomial", "\\binom{n}{k}", {"{n\\choose k}", "n \\choose k"}, {"{k \\choose n}", "n k"}},
    {"SetsByAProperty",
     "\\{x \\mid x>5\\}",
     {"\\{x : x>5\\}", "\\{ x | x > 5 \\}", "\\left\\{x : x > 5\\right\\}"},
     {"\\{x : x<5\\}", "x>5", "\\{x,x>5\\}"}},
    {"TagsAndLabels", "5", {"5 \\tag{1}", "5\\label{eq:1}"}, {"5 \\tag{1} 6"}},
    {"ChoiceWithItsText",
     "\\textbf{(B)}\\ 12",
     {"B", "12", "(B)", "(B) 12", "\\text{(B) 12}", "B. 12", "B) 12", "\\textbf{(B) } 12"},
     {"C", "(C) 12", "(B) 13", "13", "AB"}},
    {"ProductsAreNoChoices", "(A)(x+1)", {"(x+1)(A)"}, {"A", "x+1"}},
    {"NumberInText",
     "13",
     {"\\text{13}", "\\mathbf{13}", "\\boxed{13}", "$13$", "\\(13\\)", "{13}", "\\large 13", "\\color{red}{13}",
      "{\\color{red} 13}", "\\textcolor{blue}{13}", "\\underline{13}", "\uFEFF13", "=13", "13.", "+13", " 13\n"},
     {"1\\text{3}1", "\\text{-13}", "31"}},
    {"Exponents",
     "x^{2}+1",
     {"x^2+1", "1+x^2", "x\u00B2+1", "{x}^{2} + 1", "x**2+1"},
     {"x^2", "2x+1", "x_2+1", "x^{2+1}"}},
    {"LongExponents", "x^{12}", {"x^12"}, {"x^1 2", "x^{1}2", "x^2"}},
    {"Bases", "4210_{5}", {"4210_5", "4210_{(5)}", "4210\u2085"}, {"4210_{6}", "4210", "4210^5", "421_5"}},
    {"HexadecimalBase", "1A_{16}", {}, {"A_{16}", "1A_{17}", "A1_{16}"}},
    {"Degrees",
     "90^\\circ",
     {"90", "90\u00B0", "90\\degree", "90^{\\circ}", "90\\text{ degrees}", "90 degrees"},
     {"9", "90\\%\\%", "90\\text{ radians}", "\\frac{\\pi}{2}", "90^0"}},
    {"DegreesInside", "\\sin 30^\\circ", {"\\sin(30^\\circ)"}, {"\\sin 30", "30"}},
    {"Units",
     "5\\text{ cm}",
     {"5", "5 cm", "5\\,\\mathrm{cm}", "5\\mbox{cm}", "5\\text{ centimeters}", "5~\\text{cm}."},
     {"5\\text{ m}", "5\\text{ cm}^2", "50", "5cmx", "5\\text{ thousand}"}},
    {"Speeds",
     "5\\text{ km/h}",
     {"5", "5 km/h", "5\\,\\mathrm{km}/\\mathrm{h}", "5\\text{ km per hour}", "5\\text{ km}\\,\\text{h}^{-1}"},
     {"5\\text{ mph}", "5\\text{ km}", "5\\text{ km h}", "5/h"}},
    {"Minutes", "10 min", {"10", "10 minutes", "10\\text{ min}"}, {"10 hours", "10\\min(1,2)"}},
    {"SquareUnits",
     "864 \\mbox{ inches}^2",
     {"864", "864\\text{ in}^2", "864 \\text{ square inches}", "864\\text{ in}^{2}"},
     {"864\\text{ inches}", "864^2", "864\\text{ cm}^2"}},
    {"NounsAsUnits",
     "12\\text{ apples}",
     {"12", "12 apples", "12\\text{ green apples}"},
     {"12\\text{ dozen}", "12\\text{ or more}"}},
    {"Currency",
     "\\$18.90",
     {"18.9", "18.90\\text{ dollars}", "$18.90", "18.90 USD", "USD 18.90"},
     {"18.90\\text{ cents}", "1890", "\u00A518.90", "18.90 EUR"}},
    {"OtherCurrencies", "\u20B9500", {"500", "Rs. 500", "500 rupees", "INR 500"}, {"\\$500", "50"}},
    {"PercentagePoints", "5\\text{ percentage points}", {"5", "5\\%"}, {"50"}},
    {"NoUnits", "2\\mathrm{i}", {"2i", "2\\text{i}"}, {"2", "i"}},
    {"ScaleWords", "5\\text{ million}", {}, {"5", "5\\text{ thousand}", "5\\text{ billion}"}},
    {"WordsThatChangeTheValue",
     "5",
     {},
     {"5 dozens", "5\\text{ dozens}", "5 lakh", "5 crore", "5 sixths", "5\\text{ eighths}", "5 trillions",
      "5\\text{ quadrillion}", "5 tenth", "5\\text{ point five}", "5\\text{ divided by two}", "5 hundredfold",
      "5\\text{ inverse}"}},
    {"Ordinal", "12\\text{th}", {"12", "12^{th}", "12^{\\mathrm{th}}", "12th"}, {"12t", "2"}},
    {"Set",
     "\\{1,2,3\\}",
     {"\\{3, 1, 2\\}", "1,2,3", "3, 2, 1", "\\left\\{1,2,3\\right\\}", "\\{1,1,2,3\\}", "1, 2\\text{ and }3"},
     {"(1,2,3)", "\\{1,2\\}", "\\{1,2,3,4\\}", "123", "[1,3]", "1,1,2,3"}},
    {"SolutionsInAnyOrder", "1,-2", {"-2, 1", "x=1\\text{ or }x=-2", "x=-2, x=1"}, {"1", "-1,2", "(1,-2)"}},
    {"NamesFixTheOrder", "a=1, b=2", {"b=2, a=1", "1, 2"}, {"2, 1", "a=2, b=1"}},
    {"WordsInOrder", "\\text{red, green}", {"\\text{red},\\text{green}"}, {"\\text{green, red}"}},
    {"PlusMinus",
     "1 \\pm \\sqrt{19}",
     {"1+\\sqrt{19}, 1-\\sqrt{19}", "1\\pm\\sqrt{19}", "1 \u00B1 \u221A19", "\\{1-\\sqrt{19},1+\\sqrt{19}\\}"},
     {"1+\\sqrt{19}", "1 \\mp 2", "\\pm\\sqrt{19}", "-1\\pm\\sqrt{19}"}},
    {"EmptySet", "\\emptyset", {"\\{\\}", "\\varnothing", "\u2205"}, {"0", "\\{0\\}", ""}},
    {"Tuple",
     "(3, \\frac{\\pi}{2})",
     {"\\left( 3, \\pi/2 \\right)", "(3,\\tfrac{1}{2}\\pi)", "(3,pi/2)", "(x,y)=(3,\\pi/2)"},
     {"(\\pi/2, 3)", "3,\\frac{\\pi}{2}", "[3,\\pi/2]", "(3,\\pi)"}},
    {"Interval",
     "(-\\infty, 3]",
     {"\\left(-\\infty,3\\right]", "(-inf, 3]", "(-infinity,3]", "(-\u221E,3]", "x \\in (-\\infty,3]"},
     {"(-\\infty,3)", "[-\\infty,3]", "(\\infty,3]", "(-\\infty,-3]"}},
    {"Union", "(0,1)\\cup(2,3)", {"(2,3)\\cup(0,1)", "(0,1)\u222A(2,3)"}, {"(0,1)\\cap(2,3)", "(0,1),(2,3)", "(0,3)"}},
    {"Matrix",
     "\\begin{pmatrix}1&0.5\\\\3&4\\end{pmatrix}",
     {"\\begin{bmatrix}1 & \\frac12 \\\\ 3 & 4\\\\ \\end{bmatrix}"},
     {"\\begin{pmatrix}1&3\\\\0.5&4\\end{pmatrix}", "\\begin{vmatrix}1&0.5\\\\3&4\\end{vmatrix}", "(1,0.5,3,4)"}},
    {"Names", "x=5", {"5", "x = 5.0", "x=\\frac{10}{2}", "5=x"}, {"y=5", "x=6", "x>5", "2x=5"}},
    {"Equation", "y=2x+3", {"2x+3", "y = 3+2x"}, {"y=3x+2", "x=2y+3", "0"}},
    {"Derivative", "f'(x)=2x+1", {"2x+1", "f'(x) = 1+2x"}, {"f(x)=2x+1", "f'(x)=2x"}},
    {"InverseFunction", "f^{-1}(x)=2x+1", {"2x+1"}, {"f(x)=2x+1", "f^{-2}(x)=2x+1"}},
    {"EquationIsNoValue", "a^2+b=0", {"0=b+a^2"}, {"0", "a^2+b"}},
    {"Inequality", "x \\le 5", {"5 \\ge x", "x<=5", "x\u22645", "x\\leqslant 5"}, {"x<5", "x \\ge 5", "5 \\le x", "5"}},
    {"Roots",
     "\\frac{\\sqrt{3}}{2}",
     {"\\sqrt3/2", "\\frac{1}{2}\\sqrt{3}", "\\dfrac{\\sqrt3}{2}", "\u221A3/2", "sqrt(3)/2", "0.5\\sqrt3"},
     {"\\frac{3}{2}", "\\sqrt{\\frac32}", "\\sqrt[3]{3}/2", "\\frac{\\sqrt2}{3}"}},
    {"AmbiguousRoot", "\\sqrt12", {}, {"\\sqrt{12}", "2"}},
    {"Products",
     "2\\sqrt{13}\\pi",
     {"2\\pi\\sqrt{13}", "2 \\cdot \\pi \\cdot \\sqrt{13}", "2\\,\\sqrt{13}\\times\\pi", "(2\\sqrt{13})\\pi"},
     {"2\\sqrt{13\\pi}", "2+\\sqrt{13}\\pi", "13\\sqrt2\\pi"}},
    {"Factors", "(x-3)(x+2)", {"(x+2)(x-3)", "(2+x)\\cdot(x-3)"}, {"(x+3)(x-2)", "x^2-x-6"}},
    {"FactorBeforeParenthesis", "x(x+1)", {"(x+1)x", "x \\cdot (1+x)"}, {"x+1", "x^{x+1}"}},
    {"FunctionsKeepTheirArguments", "f(x)g(y)", {"g(y)f(x)"}, {"f(y)g(x)"}},
    {"SinesKeepTheirArguments",
     "2\\sin b\\cos a",
     {"2\\cos a\\sin b", "2\\sin(b)\\cos(a)", "\\sin b \\cdot 2\\cos a"},
     {"2\\sin a\\cos b", "2\\sin(b\\cos a)"}},
    {"LogarithmsKeepTheirBases",
     "\\log_{a+b} x\\log_c y",
     {"\\log_c y \\cdot \\log_{b+a} x"},
     {"\\log_{a+b} y\\log_c x"}},
    {"Binomial", "\\binom{5}{2}", {"\\dbinom{5}{2}"}, {"\\binom{2}{5}", "10", "52", "\\frac52"}},
    {"SumsAndFractions",
     "\\frac{11+9a}{20}",
     {"(11+9a)/20", "\\frac{9a+11}{20}", "\\frac{1}{20}(9a+11)"},
     {"11+9a/20", "\\frac{9+11a}{20}"}},
    {"FontsKeepGroups", "\\mathbf{x+1}^2", {"(x+1)^2"}, {"x+1^2", "x^2+1"}},
    {"BlackboardIsNoFont", "\\mathbb{R}", {"\u211D", "\\mathbb R"}, {"R", "\\mathbb{Z}"}},
    {"ArithmeticIsNotDone", "391", {}, {"17\\cdot 23", "17 \\times 23", "390+1", "782/2\\cdot1"}},
    {"PowersAreNotTaken", "1024", {}, {"2^{10}", "4^5"}},
    {"FullWidth", "12", {"\uFF11\uFF12", "\uFF0B12"}, {"\uFF12\uFF11"}},
    {"Ratio", "3:4", {"3 : 4"}, {"4:3", "3", "34"}},
    {"Time", "4{:}30", {}, {"430", "4.5"}},
    {"TimeOfDay", "7:30\\text{ p.m.}", {"7:30 PM", "7:30 p.m.", "7:30\\text{ pm}"}, {"7:30 a.m.", "7:31 p.m."}},
    {"SignsOfUnits",
     "5",
     {"5\u2103", "5\u00A2", "5\u5143",
      "\uFFE5"
      "5"},
     {"5\u3001"
      "6"}},
    {"ChineseComma",
     "1,2",
     {"1\u3001"
      "2"},
     {"12"}},
    {"AbsoluteValue", "2|x|", {"2\\lvert x\\rvert", "2\\left|x\\right|"}, {"2x", "|2|x+1"}},
    {"NothingLeft",
     "0",
     {"-0", "0.00", "{0}"},
     {"", " ", "\\text{}", "\\ ", "()", "{}", "\\,", "-", ".", "\\frac", "\\text{ }", "$$", "\\left.\\right."}}};

INSTANTIATE_TEST_SUITE_P(Boxed, BoxedKinds, testing::ValuesIn(kKinds),
                         [](const auto& test) { return test.param.name; });

TEST(Boxed, EmptyAnswersAreNotEqual) {
  const char* nothing[] = {"",   " ",   "\\text{}",   "\\text{ }",       "\\ ", "()", "{}",
                           "$$", "\\,", "\\mathrm{}", "\\left(\\right)", "\\!"};
  for (const char* a : nothing)
    for (const char* b : nothing) EXPECT_FALSE(math_equal(a, b)) << a << "|" << b;
  EXPECT_FALSE(make_verifier("boxed")->verify("\\boxed{}", "\\text{ cm}").acc);
  EXPECT_FALSE(math_equal("\\text{ cm}", "\\text{ kg}"));
}

TEST(Boxed, ReadsTheLastBoxInEverySpelling) {
  const auto v = make_verifier("boxed");
  for (const char* response :
       {"so the sum is $\\boxed 5$.", "so $\\boxed{4}$, no: $\\boxed 5$.", "so $\\boxed 4$, no: $\\boxed{5}$.",
        "so the sum is $\\fbox{5}$.", "\\[\\boxed 5\\]", "\\boxed {5}", "it is \\boxed 5. Done"})
    EXPECT_TRUE(v->verify(response, "5").acc) << response;
  EXPECT_FALSE(v->verify("$\\boxed 5$", "6").acc);
  EXPECT_FALSE(v->verify("$\\fbox{5}$ $\\boxed{6}$ $\\fbox{5}$", "5").acc);
  EXPECT_TRUE(v->verify("\\boxed{2}", "We add: $1 + 1 = \\boxed 2$.").acc);
}

/// Pieces of mathematics in random order: no fault, and equality is symmetric.
TEST(Boxed, EqualityOfRandomMathematicsIsSymmetric) {
  const char* pieces[] = {"\\frac",
                          "{",
                          "}",
                          "(",
                          ")",
                          "[",
                          "]",
                          "1",
                          "2",
                          "12",
                          "3 ",
                          " 1/2",
                          "x",
                          "ab",
                          "^",
                          "_",
                          "+",
                          "-",
                          "*",
                          "/",
                          "=",
                          "<",
                          ",",
                          "\\sqrt",
                          "\\sin ",
                          "\\pi",
                          "|",
                          "\\pm",
                          "\\text{cm}",
                          "\\text{ and }",
                          "\\%",
                          "^\\circ",
                          "\\{",
                          "\\}",
                          "\\cup",
                          "!",
                          "\\begin{pmatrix}",
                          "&",
                          "\\\\",
                          "\\end{pmatrix}",
                          "\\overline{",
                          ".",
                          "0.",
                          "1,000",
                          "\\$",
                          "e3",
                          "10^",
                          "'",
                          "\u221A",
                          "\u00BD"};
  std::mt19937 rng(3);
  const auto draw = [&] {
    std::string s;
    for (unsigned n = rng() % 9 + 1; n > 0; --n) s += pieces[rng() % std::size(pieces)];
    return s;
  };
  const auto v = make_verifier("boxed");
  size_t equal = 0;
  for (int i = 0; i < 100'000; ++i) {
    const std::string a = draw(), b = i % 2 ? draw() : a + (i % 4 ? "." : " ");
    const Verdict verdict = v->verify("\\boxed{" + a + "}", b);
    ASSERT_FALSE(verdict.error) << a << "   " << b << "   " << verdict.reason;
    ASSERT_EQ(math_equal(a, b), math_equal(b, a)) << a << "   " << b;
    equal += math_equal(a, b);
  }
  EXPECT_GT(equal, 10'000u);
}

TEST(Boxed, TimeIsLinearForEveryConstruct) {  // answers below the limit of tokens, and beyond
  const auto v = make_verifier("boxed");
  for (const char* unit : {"(",
                           "{",
                           "[1,",
                           "\\{",
                           "|",
                           "|x",
                           "\\frac{",
                           "\\frac1",
                           "\\sqrt{",
                           "\\sin ",
                           "\\begin{matrix}",
                           "x^{",
                           "x_",
                           "f(",
                           "\\text{a",
                           "1 ",
                           "1,000,",
                           "1 000 ",
                           "1 111 11 ",
                           "+x",
                           "x y",
                           "2\\cdot",
                           "\\pm1",
                           "a,",
                           "1/",
                           "=",
                           "\\overline{",
                           "\u00BD",
                           "\u00B2",
                           "{{1},",
                           "{1\\over ",
                           "\\over",
                           "\\{x:"}) {
    const auto answer = [&](size_t bytes) {
      std::string s = "\\boxed{";
      while (s.size() < bytes) s += unit;
      return s + std::string(20, '}');
    };
    for (const size_t bytes : {size_t{6'000}, size_t{400'000}}) {
      const std::string whole = answer(bytes), part = answer(bytes / kGrowthParts);
      const Growth g = growth([&] { v->verify(whole, whole); }, [&] { v->verify(part, part); }, 2e-3);
      EXPECT_LT(g.ratio, kGrowthBound) << unit << ", " << bytes << " bytes: " << g.seconds << " s";
      EXPECT_LT(g.seconds, 0.5) << unit << ", " << bytes << " bytes";
    }
  }
}

}  // namespace
}  // namespace dapo
