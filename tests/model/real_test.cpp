// Real weights: each folder in DAPO_TEST_MODEL (colon-separated, base names as in goldens/real_*.json) against the
// log-probs that transformers gives to real texts.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cpu/cpu_backend.h"
#include "tests/model/rig.h"

namespace dapo {
namespace {

struct Real {
  std::string folder;
  nlohmann::json golden;
};

std::vector<Real> real_models() {
  std::vector<Real> models;
  const char* env = std::getenv("DAPO_TEST_MODEL");
  std::istringstream list(env ? env : "");
  for (std::string folder; std::getline(list, folder, ':');) {
    const std::string name = std::filesystem::path(folder).filename().string();
    const std::string golden = test_data("goldens/real_" + name + ".json");
    if (golden.empty()) continue;
    std::ifstream in(golden);
    models.push_back({folder, nlohmann::json::parse(in)});
  }
  return models;
}

#define REQUIRE_REAL_MODELS(models)  \
  const auto models = real_models(); \
  if (models.empty()) GTEST_SKIP() << "skipped: DAPO_TEST_MODEL names no folder with a goldens/real_*.json"

struct Errors {
  std::vector<double> all;
  double sum = 0, squares = 0, worst = 0;
  void add(double a, double b) {
    const double e = std::abs(a - b);
    all.push_back(e);
    sum += e, squares += e * e;
    if (!(e <= worst)) worst = e;
  }
  double mean() const { return sum / static_cast<double>(all.size()); }
  double rms() const { return std::sqrt(squares / static_cast<double>(all.size())); }
  double percentile99() const {
    std::vector<double> sorted = all;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() * 99 / 100];
  }
};

Group text_of(const nlohmann::json& ids) {
  const auto v = ids.get<std::vector<int32_t>>();
  return {{v[0]}, {{v.begin() + 1, v.end()}}};
}

Errors score_texts(Rig& rig, const nlohmann::json& golden) {
  ModelLimits limits;
  limits.max_length = 1024, limits.pack_tokens = limits.pack_head_rows = 512, limits.pack_segments = 2;
  Learner& learner = rig.learner_for(limits);
  Errors errors;
  for (const auto& text : golden["texts"]) {
    Pack pack = make_pack({text_of(text["ids"])});
    learner.score(pack, 1.0f);
    const auto want = text["log_prob_float32"].get<std::vector<double>>();
    EXPECT_EQ(want.size(), pack.log_prob.size());
    for (size_t i = 0; i < want.size(); ++i) errors.add(static_cast<double>(pack.log_prob[i]), want[i]);
  }
  return errors;
}

TEST(Real, Float32LogProbs) {
  REQUIRE_REAL_MODELS(models);
  for (const Real& real : models) {
    const auto start = std::chrono::steady_clock::now();
    Rig rig(real.folder);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    const Errors e = score_texts(rig, real.golden);
    fmt::print("{} f32: loaded in {:.2f} s; log-prob mean {:.1e}, max {:.1e} of {} tokens\n", real.folder,
               seconds.count(), e.mean(), e.worst, e.all.size());
    EXPECT_LE(e.worst, 2e-3);
    EXPECT_LT(e.mean(), 1e-4);
  }
}

TEST(Real, BfloatIsNoWorseThanTransformers) {
  REQUIRE_REAL_MODELS(models);
  if (!cpu_has_bf16()) GTEST_SKIP() << "skipped: this CPU has no bf16";
  for (const Real& real : models) {
    Errors library;
    for (const auto& text : real.golden["texts"])
      for (size_t i = 0; i < text["log_prob_float32"].size(); ++i)
        library.add(text["log_prob_bfloat16"][i].get<double>(), text["log_prob_float32"][i].get<double>());
    const auto start = std::chrono::steady_clock::now();
    Rig rig(real.folder, DType::bf16);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    const Errors e = score_texts(rig, real.golden);
    fmt::print(
        "{} bf16: loaded in {:.2f} s; mean {:.3f}, rms {:.3f}, p99 {:.3f}, max {:.3f} (library {:.3f}, {:.3f}, {:.3f}, "
        "{:.3f})\n",
        real.folder, seconds.count(), e.mean(), e.rms(), e.percentile99(), e.worst, library.mean(), library.rms(),
        library.percentile99(), library.worst);
    EXPECT_LE(e.mean(), library.mean());
    EXPECT_LE(e.rms(), library.rms());
    EXPECT_LE(e.percentile99(), library.percentile99());
    EXPECT_LE(e.worst, library.worst);
  }
}

/// Greedy tokens equal those of transformers where its margin is clear; log-probs of rollout and score are equal bits.
TEST(Real, GreedyTokensAndTheirLogProbs) {
  REQUIRE_REAL_MODELS(models);
  for (const Real& real : models)
    for (const DType dtype : {DType::f32, DType::bf16}) {
      if (dtype == DType::bf16 && !cpu_has_bf16()) continue;
      Rig rig(real.folder, dtype);
      ModelLimits limits;
      limits.max_length = 512, limits.batch = 2, limits.prefill_tokens = 256, limits.kv_pages = 20;
      limits.pack_tokens = 512, limits.pack_head_rows = 128, limits.pack_segments = 4;
      rig.reserve(limits);
      for (const auto& g : real.golden["greedy_float32"]) {
        const auto prompt = g["prompt"].get<std::vector<int32_t>>(), want = g["response"].get<std::vector<int32_t>>();
        const auto margin = g["margin"].get<std::vector<double>>();
        const int n = static_cast<int>(prompt.size()), steps = static_cast<int>(want.size());
        const int prompt_pages = (n + 63) / 64;
        std::vector<int32_t> pages(static_cast<size_t>(prompt_pages) + 1);
        std::iota(pages.begin(), pages.end(), 4);
        rig.decoder->begin();
        PagedBatch b{.ids = prompt,
                     .row_begin = {0, n},
                     .prefix_length = {0},
                     .own_length = {n},
                     .pages = pages,
                     .max_pages = prompt_pages + 1,
                     .head_rows = {n - 1},
                     .keys = {{}},
                     .positions = {n}};
        std::vector<int32_t> got(1), rest(static_cast<size_t>(steps) - 1);
        std::vector<float> log_prob(1), rest_log_prob(rest.size());
        const Sampling greedy{.temperature = 0};
        rig.decoder->prefill(b, greedy, got, log_prob);
        b.ids = got, b.row_begin = {0, 1}, b.prefix_length = {n}, b.own_length = {1}, b.head_rows = {},
        b.positions = {n + 1};
        rig.decoder->decode(b, steps - 1, greedy, rest, rest_log_prob);
        got.insert(got.end(), rest.begin(), rest.end());
        log_prob.insert(log_prob.end(), rest_log_prob.begin(), rest_log_prob.end());
        for (size_t i = 0; dtype == DType::f32 && i < want.size() && margin[i] > 4e-3; ++i) {
          ASSERT_EQ(got[i], want[i]) << real.folder << " token " << i;
        }
        rig.learner->begin();
        Pack pack = make_pack({{prompt, {got}}});
        rig.learner->score(pack, 1.0f);
        EXPECT_EQ(pack.log_prob, log_prob) << real.folder << ' ' << dtype_name(dtype);
      }
    }
}

}  // namespace
}  // namespace dapo
