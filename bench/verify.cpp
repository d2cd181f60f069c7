// Verifiers: responses a second on one core. Inputs look like real ones: about 1.5 kB of reasoning, then an answer.
// DAPO_TEST_DATA (else ../shared/data) adds math_dapo on the real responses of its vectors.
#include "host/verify/verify.h"

#include <benchmark/benchmark.h>
#include <simdjson.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

#include "host/verify/pool.h"

namespace dapo {
namespace {

std::string reasoning() {
  std::string out;
  while (out.size() < 1500) out += "We add 3 to \\( x \\) on both sides, so \\[ \\frac{x+3}{2} = 21 \\] and go on.\n";
  return out;
}

void run(benchmark::State& state, const Verifier& v, const std::vector<VerifyItem>& items) {
  size_t i = 0, right = 0;
  for ([[maybe_unused]] auto _ : state) {
    right += v.verify(items[i]).acc;
    if (++i == items.size()) i = 0;
  }
  state.SetItemsProcessed(state.iterations());
  state.counters["right"] = benchmark::Counter(static_cast<double>(right), benchmark::Counter::kAvgIterations);
}

std::vector<VerifyItem> real_items() {
  const char* root = std::getenv("DAPO_TEST_DATA");
  const std::string path = std::string(root ? root : "../shared/data") + "/verifier/gen_dapo_vectors.jsonl";
  std::vector<VerifyItem> out;
  if (!std::filesystem::exists(path)) return out;
  simdjson::dom::parser parser;
  for (const simdjson::dom::element row : parser.load_many(path, size_t{1} << 24)) {
    if (bool(row["strict_box"])) continue;
    out.push_back({std::string(std::string_view(row["solution"])), std::string(std::string_view(row["ground_truth"]))});
  }
  return out;
}

void register_all() {
  const std::string text = reasoning();
  const auto add = [&](const char* name, const std::string& end, const std::string& truth) {
    benchmark::RegisterBenchmark(name, [=](benchmark::State& state) {
      run(state, *make_verifier(std::string_view(name)), {{text + end, truth}, {text + end + "1", truth}});
    });
  };
  add("math_dapo", "Answer: \\frac{84}{2}", "\\frac{84}{2}");
  add("gsm8k", "#### 1,234", "1234");
  add("boxed", "\\boxed{\\frac{1}{2}}", "0.5");
  add("countdown", "<answer>(93 - 100) + 30</answer>", R"({"target":23,"numbers":[30,100,93]})");
  add("exact", "", text);
  if (const auto items = real_items(); !items.empty())
    benchmark::RegisterBenchmark("math_dapo/real",
                                 [=](benchmark::State& state) { run(state, *make_verifier("math_dapo"), items); });
  benchmark::RegisterBenchmark("pool/math_dapo",
                               [=](benchmark::State& state) {
                                 VerifierPool pool(make_verifier("math_dapo"), static_cast<int>(state.range(0)));
                                 const std::vector<VerifyItem> items(8192, {text + "Answer: 42", "42"});
                                 for ([[maybe_unused]] auto _ : state)
                                   benchmark::DoNotOptimize(pool.submit(items).get().size());
                                 state.SetItemsProcessed(state.iterations() * 8192);
                               })
      ->Arg(1)
      ->Arg(2)
      ->UseRealTime();
}

}  // namespace
}  // namespace dapo

int main(int argc, char** argv) {
  dapo::register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
