// Time: linear in the text, n log n in the length of a word, whatever the text.
#include <ctime>

#include "tests/tokenizer/support.h"

namespace dapo {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kMega = 100'000;
#else
constexpr size_t kMega = 1'000'000;
#endif

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

std::string repeated(const std::string& unit, size_t bytes) {
  std::string text;
  text.reserve(bytes + unit.size());
  while (text.size() < bytes) text += unit;
  return text;
}

double seconds_to_encode(const Tokenizer& tokenizer, const std::string& text) {
  const double begin = cpu_seconds();
  const Ids ids = tokenizer.encode(text);
  EXPECT_GT(ids.size(), 0u);
  return cpu_seconds() - begin;
}

struct Case {
  const char *name, *unit;
  size_t megabytes = 3;
};

class Linear : public testing::TestWithParam<Case> {};

/// At most 2.5 times as long as for half of it.
TEST_P(Linear, TwiceTheTextTakesTwiceTheTime) {
  REQUIRE_DATA(json, kQwenJson);
  static const auto tokenizer = Tokenizer::load(json);
  const size_t bytes = GetParam().megabytes * kMega;
  const std::string half = repeated(GetParam().unit, bytes / 2), whole = repeated(GetParam().unit, bytes);
  double ratio = 1e9;
  for (int attempt = 0; attempt < 3 && ratio >= 2.5; ++attempt) {  // other programs on the machine
    ratio = std::min(ratio, seconds_to_encode(*tokenizer, whole) / seconds_to_encode(*tokenizer, half));
  }
  RecordProperty("ratio", std::to_string(ratio));
  EXPECT_LT(ratio, 2.5);
}

INSTANTIATE_TEST_SUITE_P(Texts, Linear,
                         testing::Values(Case{"Letter", "a", 10}, Case{"Digit", "7", 10}, Case{"Cjk", "\u4E2D", 10},
                                         Case{"Marks", "\u0301\u0323", 10}, Case{"OneMark", "\u0301"},
                                         Case{"Space", " "}, Case{"Newline", "\n"}, Case{"SpacesAndNewlines", "  \n"},
                                         Case{"Words", "ab "}, Case{"Symbols", "!?"}, Case{"Quotes", "'"},
                                         Case{"AlmostSpecial", "<|im_end"}, Case{"Special", "<|im_end|>"},
                                         Case{"Invalid", "\xFF"}, Case{"Jamo", "\u1100\u1161"}),
                         [](const auto& row) { return std::string(row.param.name); });

}  // namespace
}  // namespace dapo
