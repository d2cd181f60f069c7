#include "core/last_boxed.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/growth.h"

namespace dapo {
namespace {

TEST(LastBoxed, EverySpelling) {
  struct Case {
    const char *text, *content;  // null: no box
  };
  for (const Case& c : {Case{"\\boxed{5}", "5"},
                        {"\\boxed{ \\frac{1}{2} }.", "\\frac{1}{2}"},
                        {"\\boxed {5}", "5"},
                        {"\\boxed\n{5}", "5"},
                        {"\\boxed{}", ""},
                        {"\\boxed{\\{1,2\\}}", "\\{1,2\\}"},
                        {"\\boxed{\\left\\{x\\right.}", "\\left\\{x\\right."},
                        {"\\boxed{a\\\\}", "a\\\\"},
                        {"\\boxed{1} \\boxed{2}", "2"},
                        {"\\boxed{1} \\boxed{2", nullptr},
                        {"\\boxed{\\boxed{3}}", "3"},
                        {"$\\boxed 12$ apples", "12"},
                        {"$\\boxed\\frac12$", "\\frac12"},
                        {"$\\boxed \\$5$", "\\$5"},
                        {"\\(x = \\boxed 7\\)", "7"},
                        {"\\[\\boxed 7\\]", "7"},
                        {"x &= \\boxed 7\\\\", "7"},
                        {"\\boxed 7\\end{align*}", "7"},
                        {"{\\boxed 7} and", "7"},
                        {"is \\boxed 12. Done", "12"},
                        {"is \\boxed 12", "12"},
                        {"$\\boxed x$", "x"},
                        {"\\boxed{1}; use \\boxed and say so", "1"},
                        {"\\boxed{1}. Then \\boxed.", "1"},
                        {"\\boxed{1} \\boxed", "1"},
                        {"\\boxed{1} \\boxedmath{2}", "1"},
                        {"\\fbox{3}", "3"},
                        {"\\boxed{1} \\fbox{3}", "1"},
                        {"\\fbox{3} and \\boxed.", "3"},
                        {"5", nullptr},
                        {"\\boxed", nullptr},
                        {"", nullptr}}) {
    const auto found = last_boxed(c.text);
    EXPECT_EQ(found.has_value(), c.content != nullptr) << c.text;
    EXPECT_EQ(found.value_or(""), c.content ? c.content : "") << c.text;
  }
}

TEST(LastBoxed, TimeIsLinear) {
  for (const char* unit :
       {"\\boxed ", "\\boxed a ", "\\boxed{", "\\boxedx", "\\fbox", "\\boxed.", "\\boxed{a", "\\boxed\\"}) {
    const auto text = [&](size_t bytes) {
      std::string s;
      while (s.size() < bytes) s += unit;
      return s;
    };
    const std::string whole = text(4'000'000), part = text(4'000'000 / kGrowthParts);
    const Growth g = growth([&] { last_boxed(whole); }, [&] { last_boxed(part); }, 2e-3);
    EXPECT_LT(g.ratio, kGrowthBound) << unit << ": " << g.seconds << " s";
  }
}

}  // namespace
}  // namespace dapo
