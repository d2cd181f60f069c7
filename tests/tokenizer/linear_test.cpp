// Time: linear in the text, n log n in the length of a word, for any text.
#include <malloc.h>

#include "tests/growth.h"
#include "tests/tokenizer/support.h"

namespace dapo {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kBytes = 1'000'000;
#else
constexpr size_t kBytes = 4'000'000;
#endif

std::string repeated(const std::string& unit, size_t bytes) {
  std::string text;
  text.reserve(bytes + unit.size());
  while (text.size() < bytes) text += unit;
  return text;
}

struct Case {
  const char *name, *unit;
};

class Linear : public testing::TestWithParam<Case> {};

TEST_P(Linear, TimeGrowsWithTheText) {
  static const auto tokenizer = Tokenizer::load(byte_level_files().back());
  mallopt(M_MMAP_THRESHOLD, 128 << 10);  // no memory is reused between texts: each incurs its page faults
  const std::string part = repeated(GetParam().unit, kBytes / kGrowthParts), whole = repeated(GetParam().unit, kBytes);
  const auto encode = [](const std::string& text) { EXPECT_GT(tokenizer->encode(text).size(), 0u); };
  const Growth g = growth([&] { encode(whole); }, [&] { encode(part); });
  RecordProperty("ratio", std::to_string(g.ratio));
  EXPECT_LT(g.ratio, kGrowthBound);
}

INSTANTIATE_TEST_SUITE_P(Texts, Linear,
                         testing::Values(Case{"Letter", "a"}, Case{"Digit", "7"}, Case{"Cjk", "\u4E2D"},
                                         Case{"Marks", "\u0301\u0323"}, Case{"OneMark", "\u0301"}, Case{"Space", " "},
                                         Case{"Newline", "\n"}, Case{"SpacesAndNewlines", "  \n"}, Case{"Words", "ab "},
                                         Case{"Symbols", "!?"}, Case{"Quotes", "'"}, Case{"AlmostSpecial", "<|im_end"},
                                         Case{"Special", "<|im_end|>"}, Case{"Invalid", "\xFF"},
                                         Case{"Jamo", "\u1100\u1161"}),
                         [](const auto& row) { return std::string(row.param.name); });

}  // namespace
}  // namespace dapo
