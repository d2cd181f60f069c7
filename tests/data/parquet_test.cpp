#include <cstdlib>
#include <ctime>
#include <filesystem>

#include "core/check.h"
#include "data/dataset.h"
#include "tests/testdata.h"

namespace dapo {
namespace {

#ifndef DAPO_ARROW
TEST(Parquet, WithoutArrowSaysWhatToInstall) {
  try {
    Dataset::load("some.parquet");
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), kExitUsage);
    EXPECT_NE(std::string(e.what()).find("install Apache Arrow"), std::string::npos) << e.what();
  }
}
#else

struct Twins {
  std::string parquet, zipped;
  size_t rows, problems, conflicts;
};
void expect_equal_twins(const Twins& twins) {
  const auto& [parquet, zipped, rows, problems, conflicts] = twins;
  const ScratchFolder folder;
  const std::string twin = folder.path("dapo-17k.jsonl");
  ASSERT_EQ(std::system(fmt::format("gzip -dc '{}' > '{}'", zipped, twin).c_str()), 0);
  Dataset a = Dataset::load(parquet), b = Dataset::load(twin);
  ASSERT_EQ(a.size(), rows);
  ASSERT_EQ(b.size(), a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].messages, b[i].messages);
    ASSERT_EQ(a[i].answer, b[i].answer);
    ASSERT_EQ(a[i].id, b[i].id);
    ASSERT_EQ(a[i].data_source, b[i].data_source);
  }
  EXPECT_EQ(a.fingerprint(), b.fingerprint());
  const DedupeReport report = a.dedupe();
  EXPECT_EQ(report.problems, problems);
  EXPECT_EQ(report.conflicts.size(), conflicts);
  EXPECT_EQ(report.copies, 0u);
}

TEST(Parquet, EqualsTheSameRowsInJsonl) {
  expect_equal_twins({golden("files/dapo.parquet"), golden("files/dapo.jsonl.gz"), 60, 57, 1});
  const std::string parquet = test_data("train/dapo_math_17k.parquet");
  if (!parquet.empty()) expect_equal_twins({parquet, test_data("train/dapo_math_17k.jsonl.gz"), 17917, 17290, 11});
}

/// tests/data/make_types.py made the file.
TEST(Parquet, EveryType) {
  const std::string path = "tests/data/types.parquet";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "skipped: not run from the project's root";
  const auto answers = [&](const char* column) {
    DatasetOptions o;
    o.answer_key = column;
    o.need_answer = true;
    const Dataset set = Dataset::load(path, o);
    EXPECT_EQ(set.size(), 2u);
    return set[0].answer + " | " + set[1].answer;
  };
  const std::string sep(1, kAnswerSeparator);
  for (const auto& [column, expected] : std::initializer_list<std::pair<const char*, std::string> >{
           {"dec", "2.5 | -3"},
           {"dec256", "123456789012345678901234567890.1 | 1000"},
           {"pair", "1" + sep + "one | 2" + sep + "two"},
           {"half", "0.1 | 42"},
           {"view", "a | b"},
           {"large", "a | b"},
           {"map", R"({"k":1} | {"k":2,"y":3})"},
           {"map.k", "1 | 2"},
           {"map_int", R"({"1":"k"} | {"2":"l"})"},
           {"date", "2024-01-02 | 2024-01-02"},
           {"stamp", "2024-01-02 03:04:05 | 2024-01-02 03:04:05.5"},
           {"fixed", "abcd | efgh"},
           {"dict", "u | v"},
           {"nested", R"({"l":[{"a":1.5}]} | {"l":null})"},
           {"wide", "a | b" + sep + "c"},
           {"double", "42 | 10000000000000000"}})
    EXPECT_EQ(answers(column), expected) << column;
  const auto refused = [&](const char* column, const std::string& part) {
    const std::string message = error_of(kExitUsage, [&] { answers(column); });
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  refused("span", "row 1: column \"span\" has type duration[us], which is not supported");
  refused("bytes", "row 2: column \"bytes\" has type binary (not UTF-8)");
  refused("null",
          "row 1: no answer: field \"null\" is expected (data.answer_key selects another field); the row has "
          "prompt, null (null or NaN), bytes,");
  refused("nan", "row 2: no answer");
  refused("absent", "row 1: no answer: field \"absent\"");
  DatasetOptions o;
  o.prompt_key = "dec";
  EXPECT_NE(error_of(kExitUsage, [&] { Dataset::load(path, o); }).find("\"dec\" is a number"), std::string::npos);
  EXPECT_EQ(Dataset::load(path).size(), 2u);
}

void expect_repeated(const std::string& path, size_t rows, size_t problems, const std::string& text) {
  DatasetOptions need;
  need.need_answer = true;
  Dataset set = Dataset::load(path, need);
  ASSERT_EQ(set.size(), rows);
  const DedupeReport report = set.dedupe();
  EXPECT_EQ(report.text(), text);
  EXPECT_EQ(set.size(), problems);
  EXPECT_TRUE(set[0].text().starts_with("Solve the following math problem step by step."));
  for (const Example& e : set) EXPECT_EQ(e.answer.find_first_not_of("0123456789"), std::string::npos) << e.answer;
}

TEST(Parquet, ProblemsRepeatedForAveraging) {
  expect_repeated(golden("files/repeated.parquet"), 40, 5, "40 rows are 5 problems, each 8 times");
  if (const std::string path = test_data("eval/aime-2024.parquet"); !path.empty())
    expect_repeated(path, 960, 30, "960 rows are 30 problems, each 32 times");
}

void expect_read_or_refused(const std::string& folder, size_t expected_files) {
  SCOPED_TRACE(folder);
  DatasetOptions options;
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    for (const char* key : {"", "name", "comment_col", "FRUIT", "foo"}) {
      options.prompt_key = key;
      const std::clock_t start = std::clock();
      try {
        EXPECT_GT(Dataset::load(entry.path().string(), options).size(), 0u);
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), kExitUsage) << e.what();
        EXPECT_NE(std::string(e.what()).find(entry.path().filename().string()), std::string::npos) << e.what();
      }
      EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 1.0) << entry.path();
    }
    ++files;
  }
  EXPECT_EQ(files, expected_files);
}

TEST(Parquet, OtherAndMalformedFilesEndInOneLine) {
  expect_read_or_refused(golden("files/parquet"), 15);
  if (const std::string folder = test_data("parquet"); !folder.empty()) expect_read_or_refused(folder, 15);
}

TEST(Parquet, TruncatedAndFlippedFilesEndInOneLine) {
  const std::string path = golden_files("files/dapo.parquet", "eval/aime-2024.parquet").back();
  std::string bytes(std::filesystem::file_size(path), '\0');
  FILE* in = std::fopen(path.c_str(), "rb");
  ASSERT_EQ(std::fread(bytes.data(), 1, bytes.size(), in), bytes.size());
  std::fclose(in);
  const ScratchFolder folder;
  const std::string copy = folder.path("copy.parquet");
  const auto attempt = [&](const std::string& content) {
    FILE* out = std::fopen(copy.c_str(), "wb");
    std::fwrite(content.data(), 1, content.size(), out);
    std::fclose(out);
    try {
      Dataset::load(copy);
      return 0;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), kExitUsage) << e.what();
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
      return 1;
    }
  };
  for (size_t n : {size_t{0}, size_t{3}, size_t{8}, bytes.size() / 2, bytes.size() - 1})
    EXPECT_EQ(attempt(bytes.substr(0, n)), 1) << n;
  for (size_t i = 0; i < 200; ++i) {  // a flipped byte may be harmless, but must never crash
    std::string bad = bytes;
    bad[(i * 7919) % bad.size()] ^= static_cast<char>(1 + i % 255);
    attempt(bad);
  }
  std::filesystem::remove(copy);
}
#endif

}  // namespace
}  // namespace dapo
