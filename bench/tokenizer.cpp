// Encoding and decoding speed, one thread: bytes of text a second over the lines of a file.
//
//   bench_tokenizer [Google Benchmark's flags]
//   DAPO_BENCH_TOKENIZER  model folder or tokenizer.json (default: Qwen2.5's of the test data)
//   DAPO_BENCH_TEXT       file whose lines are encoded (default: GSM8K's training set of the test data)
//
// `checksum` folds all ids, for comparison with another program's (bench/peers/tokenizer_hf.py).
#include "tokenizer/tokenizer.h"

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <fstream>

#include "tests/testdata.h"

namespace {

using dapo::Tokenizer;

std::string setting(const char* variable, const char* otherwise) {
  const char* value = std::getenv(variable);
  return value ? value : dapo::test_data(otherwise);
}

struct Input {
  std::string path = setting("DAPO_BENCH_TOKENIZER", "tokenizer/qwen2.5_tokenizer.reconstructed.json");
  std::unique_ptr<const Tokenizer> tokenizer = Tokenizer::load(path);
  std::vector<std::string> lines;
  std::vector<std::vector<int32_t>> ids;
  size_t bytes = 0, tokens = 0;
  uint32_t checksum = 0;

  Input() {
    std::ifstream in(setting("DAPO_BENCH_TEXT", "train/gsm8k_train.jsonl"));
    for (std::string line; std::getline(in, line);) {
      bytes += line.size();
      ids.push_back(tokenizer->encode(line));
      tokens += ids.back().size();
      for (const int32_t id : ids.back()) checksum = checksum * 31 + uint32_t(id);
      lines.push_back(std::move(line));
    }
  }
};

const Input& input() {
  static const Input value;
  return value;
}

void report(benchmark::State& state) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * input().bytes));
  state.counters["tokens"] = input().tokens;
  state.counters["checksum"] = input().checksum;
}

void encode(benchmark::State& state) {
  for ([[maybe_unused]] auto _ : state)
    for (const std::string& line : input().lines) benchmark::DoNotOptimize(input().tokenizer->encode(line));
  report(state);
}

void decode(benchmark::State& state) {
  for ([[maybe_unused]] auto _ : state)
    for (const auto& ids : input().ids) benchmark::DoNotOptimize(input().tokenizer->decode(ids));
  report(state);
}

void load(benchmark::State& state) {
  for ([[maybe_unused]] auto _ : state) benchmark::DoNotOptimize(Tokenizer::load(input().path));
}

BENCHMARK(encode)->Unit(benchmark::kMillisecond);
BENCHMARK(decode)->Unit(benchmark::kMillisecond);
BENCHMARK(load)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
