// Time: linear in the text, n log n in the length of a word, whatever the text.
#include <malloc.h>

#include <ctime>

#include "tests/tokenizer/support.h"

namespace dapo {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kBytes = 1'000'000;
#else
constexpr size_t kBytes = 4'000'000;
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
};

class Linear : public testing::TestWithParam<Case> {};

/// 16 times the text takes less than 16^1.25 = 32 times as long. (Over one doubling a cache that the longer text just does
/// not fit in is a quarter of the time; over four it still is only that, and a quadratic term has grown by 256.)
TEST_P(Linear, SixteenTimesTheTextTakesSixteenTimesTheTime) {
  REQUIRE_DATA(json, kQwenJson);
  static const auto tokenizer = Tokenizer::load(json);
  mallopt(M_MMAP_THRESHOLD, 128 << 10);  // no memory is kept from text to text: each pays its page faults
  const std::string part = repeated(GetParam().unit, kBytes / 16), whole = repeated(GetParam().unit, kBytes);
  double least_part = 1e9, least_whole = 1e9, ratio = 1e9;  // other programs only ever add to a time
  for (int attempt = 0; attempt < 10 && ratio >= 32; ++attempt) {
    least_whole = std::min(least_whole, seconds_to_encode(*tokenizer, whole));
    least_part = std::min(least_part, seconds_to_encode(*tokenizer, part));
    ratio = least_whole / least_part;
  }
  RecordProperty("ratio", std::to_string(ratio));
  EXPECT_LT(ratio, 32);
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
