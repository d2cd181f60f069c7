// FUZZ_SECONDS per target (unset: a fixed number of runs), FUZZ_SEED, FUZZ_ONLY (a target's name), FUZZ_CORPUS (folder
// of further seeds, to which new ones are added). A failing input is kept as fuzz-<target>.bin in the working folder;
// FUZZ_INPUT (a file) runs only that input.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <stdexcept>

#include "core/check.h"
#include "tests/fuzz/fuzz.h"
#include "tests/testdata.h"

namespace {
constexpr size_t kEdges = 1 << 16;
std::array<uint8_t, kEdges> edges;  // how often each branch was taken in this run
size_t previous = 0;
}  // namespace

/// Called at every branch by code compiled with -fsanitize-coverage=trace-pc.
extern "C" [[gnu::no_sanitize_coverage, gnu::no_sanitize_address, gnu::no_sanitize_undefined]] void
__sanitizer_cov_trace_pc() {
  const size_t here = reinterpret_cast<size_t>(__builtin_return_address(0)) * 0x9E3779B97F4A7C15u >> 48;
  uint8_t* count = reinterpret_cast<uint8_t*>(&edges) + ((here ^ previous) & (kEdges - 1));
  if (*count < 255) ++*count;
  previous = here >> 1;
}
#if defined(__SANITIZE_ADDRESS__)
extern "C" void __sanitizer_set_death_callback(void (*)());
#else
static void __sanitizer_set_death_callback(void (*f)()) {
  static void (*leave)() = f;
  std::signal(SIGSEGV, [](int) { leave(), _exit(1); });
  std::signal(SIGABRT, [](int) { leave(), _exit(1); });
}
#endif

namespace dapo::fuzz {
namespace {

constexpr size_t kLongest = 1 << 14;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kSlowest = 5;  // seconds per run
#else
constexpr double kSlowest = 1;
#endif

const Target* target = nullptr;
std::string input;

void keep_input() {
  if (target == nullptr) return;
  std::ofstream(fmt::format("fuzz-{}.bin", target->name), std::ios::binary) << input;
  std::fprintf(stderr, "the input is in fuzz-%s.bin\n", target->name.c_str());
}

/// Inputs, and the branches that they reached (by powers of two of their counts).
class Corpus {
 public:
  std::vector<std::string> inputs;
  /// True if the last run took a new branch, or took one more often than any run before.
  bool is_new() {
    bool fresh = false;
    for (size_t i = 0; i < kEdges; ++i) {
      if (edges[i] == 0) continue;
      const auto bit = static_cast<uint8_t>(1 << std::min(7, 31 - __builtin_clz(edges[i])));
      fresh |= (seen_[i] & bit) == 0;
      reached_ += seen_[i] == 0;
      seen_[i] |= bit;
    }
    return fresh;
  }
  size_t reached() const { return reached_; }

 private:
  std::array<uint8_t, kEdges> seen_{};
  size_t reached_ = 0;
};

class Mutator {
 public:
  Mutator(uint64_t seed, const std::vector<std::string>& words, const std::vector<std::string>& inputs)
      : random_(seed), words_(words), inputs_(inputs) {}

  std::string next() {
    std::string s = pick(inputs_);
    for (size_t n = 1 + below(4); n > 0; --n) change(s);
    if (s.size() > kLongest) s.resize(kLongest);
    return s;
  }

 private:
  size_t below(size_t n) { return n == 0 ? 0 : random_() % n; }
  const std::string& pick(const std::vector<std::string>& from) { return from[below(from.size())]; }
  void change(std::string& s) {
    static const std::vector<std::string> numbers = {"0",
                                                     "-1",
                                                     "1",
                                                     "255",
                                                     "256",
                                                     "65536",
                                                     "2147483647",
                                                     "2147483648",
                                                     "-2147483649",
                                                     "4294967296",
                                                     "9223372036854775807",
                                                     "9223372036854775808",
                                                     "18446744073709551615",
                                                     "18446744073709551616",
                                                     "1e308",
                                                     "1e999",
                                                     "0.1",
                                                     "00",
                                                     "-"};
    const size_t at = below(s.size() + 1), length = std::min(s.size() - at, below(below(2) ? 4 : 64));
    switch (below(9)) {
      case 0:
        if (at < s.size()) s[at] = static_cast<char>(s[at] ^ 1 << below(8));
        break;
      case 1:
        if (at < s.size()) s[at] = static_cast<char>(random_());
        break;
      case 2:
        s.insert(at, 1, static_cast<char>(random_()));
        break;
      case 3:
        s.erase(at, length);
        break;
      case 4:
        s.insert(at, s.substr(at, length));
        break;
      case 5: {
        const std::string& other = pick(inputs_);
        const size_t from = below(other.size() + 1);
        s.replace(at, length, other, from, below(256));
        break;
      }
      case 6:
        s.replace(at, length, pick(numbers));
        break;
      case 7: {  // one part repeated many times
        std::string part = below(2) && length > 0 ? s.substr(at, length) : pick(words_);
        for (size_t n = 1 + below(6); n > 0 && part.size() < 4096; --n) part += part;
        s.insert(at, part);
        break;
      }
      default:
        s.replace(at, below(2) ? 0 : length, pick(words_));
    }
  }

  std::mt19937_64 random_;
  const std::vector<std::string>& words_;
  const std::vector<std::string>& inputs_;
};

/// Runs `input`: true if it is accepted. Sets `seconds`.
bool run_input(double& seconds) {
  edges.fill(0);
  previous = 0;
  const std::clock_t start = std::clock();
  bool accepted = false;
  try {
    accepted = target->read(input);
  } catch (const Error& e) {
    if (e.code() != kExitUsage) throw;
    expect(e.what()[0] != '\0', "an error without a word");
  }
  seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  return accepted;
}

class Fuzz : public testing::TestWithParam<size_t> {};

TEST_P(Fuzz, EndsCleanly) {
  target = &targets()[GetParam()];
  const auto option = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value != nullptr ? value : "");
  };
  if (const std::string only = option("FUZZ_ONLY"); !only.empty() && only != target->name)
    GTEST_SKIP() << "skipped: FUZZ_ONLY=" << only;
  __sanitizer_set_death_callback(keep_input);
  Corpus corpus;
  corpus.inputs = target->seeds;
  const std::string folder = option("FUZZ_CORPUS"), one = option("FUZZ_INPUT"), limit = option("FUZZ_SECONDS");
  const std::filesystem::path kept = std::filesystem::path(folder) / target->name;
  if (!folder.empty()) {
    std::filesystem::create_directories(kept);
    for (const auto& file : std::filesystem::directory_iterator(kept)) corpus.inputs.push_back(slurp(file.path()));
    std::sort(corpus.inputs.begin(), corpus.inputs.end());
  }
  if (!one.empty()) corpus.inputs = {slurp(one)};
  const size_t seeds = corpus.inputs.size();
  Mutator mutator(std::strtoull(option("FUZZ_SEED").c_str(), nullptr, 10) + 1, target->words, corpus.inputs);
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  const auto more = [&](size_t run) {
    if (run < seeds) return true;
    if (!one.empty()) return false;
    return limit.empty() ? run < seeds + target->runs : elapsed() < std::atof(limit.c_str());
  };
  size_t runs = 0, accepted = 0;
  double slowest = 0;
  for (; more(runs); ++runs) {
    input = runs < seeds ? corpus.inputs[runs] : mutator.next();
    double seconds = 0;
    try {
      accepted += run_input(seconds);
      expect(seconds < kSlowest, "too slow");
    } catch (const std::exception& e) {
      keep_input();
      FAIL() << target->name << ", run " << runs << ": " << e.what();
    }
    slowest = std::max(slowest, seconds);
    if (!corpus.is_new() || runs < seeds) continue;
    corpus.inputs.push_back(input);
    if (folder.empty()) continue;
    std::ofstream(kept / fmt::format("{:016x}", std::hash<std::string>()(input)), std::ios::binary) << input;
  }
  std::printf("  %-18s %9zu runs, %5.1f %% accepted, %5zu seeds, %5zu branches, slowest %.3f s\n", target->name.c_str(),
              runs, 100.0 * static_cast<double>(accepted) / static_cast<double>(runs), corpus.inputs.size(),
              corpus.reached(), slowest);
  std::fflush(stdout);
  EXPECT_GT(accepted, 0u) << "no input was accepted: the seeds are stale";
  target = nullptr;
}

INSTANTIATE_TEST_SUITE_P(Targets, Fuzz, testing::Range<size_t>(0, targets().size()),
                         [](const auto& row) { return targets()[row.param].name; });

}  // namespace

void expect(bool holds, const char* what) {
  if (!holds) throw std::logic_error(what);
}

}  // namespace dapo::fuzz
