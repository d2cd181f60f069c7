// A model split over tensor-parallel ranks (threads here) against the same model on one rank.
#include "model/tensor_split.h"

#include <filesystem>
#include <map>
#include <mutex>

#include "tests/model/roll_out.h"
#include "tests/thread_comm.h"

namespace dapo {
namespace {

ModelConfig shapes(int heads, int kv_heads, int ffn, int vocab, bool tied) {
  ModelConfig c = toy_config();
  c.heads = heads, c.kv_heads = kv_heads, c.ffn = ffn, c.vocab = vocab, c.tied = tied;
  return c;
}

struct SplitCase {
  ModelConfig config;
  int ranks;
};
std::vector<SplitCase> split_cases() {
  return {{shapes(4, 2, 80, 300, true), 2},      // whole groups of heads
          {shapes(4, 2, 80, 300, false), 4},     // two ranks share a key/value head; one has no vocabulary
          {shapes(7, 1, 96, 101, false), 2},     // four query heads and three
          {shapes(14, 2, 128, 1000, true), 7}};  // one rank has a query head of either group
}

TEST(TensorSplit, WhichRanksAModelCanBeSplitOver) {
  const std::map<std::string, std::vector<int>> possible = {{"qwen2.5-0.5b", {1, 2, 4, 6, 7, 8, 10, 12, 14}},
                                                            {"qwen2.5-1.5b", {1, 2, 3, 4, 6, 8, 10, 12}},
                                                            {"qwen2.5-7b", {1, 2, 4, 8, 12, 14, 16}},
                                                            {"qwen2.5-32b", {1, 2, 4, 8, 16}},
                                                            {"qwen2.5-72b", {1, 2, 4, 8, 16}}};
  for (const auto& [name, expected] : possible) {
    std::vector<int> found;
    for (int ranks = 1; ranks <= 16; ++ranks)
      if (why_not_split(qwen25_config(name), ranks).empty()) found.push_back(ranks);
    EXPECT_EQ(found, expected) << name;
  }
  EXPECT_NE(why_not_split(qwen25_config("qwen2.5-7b"), 7).find("unevenly"), std::string::npos);
  EXPECT_NE(why_not_split(qwen25_config("qwen2.5-7b"), 3).find("evenly"), std::string::npos);
  EXPECT_NE(why_not_split(qwen25_config("qwen2.5-0.5b"), 15).find("14 attention heads"), std::string::npos);
  EXPECT_THROW(tensor_share(qwen25_config("qwen2.5-7b"), {3, 0}), Error);
}

/// Every element of every tensor belongs to as many ranks as say so, and to one of them first.
TEST(TensorSplit, EveryElementIsHeldAsOftenAsItsCopiesSay) {
  for (const SplitCase& c : split_cases()) {
    std::map<std::string, std::vector<int>> holders, copies, firsts;
    for (int r = 0; r < c.ranks; ++r) {
      const ParamTable params = parameter_table(c.config, {c.ranks, r});
      for (const Param& p : params.all)
        for (const ParamPart& part : p.parts) {
          const size_t size = static_cast<size_t>(part.tensor_rows * p.tensor_columns);
          for (auto* counts : {&holders, &copies, &firsts}) (*counts)[part.name].resize(size);
          for (int64_t row = 0; row < part.rows; ++row)
            for (int64_t column = 0; column < p.columns; ++column) {
              const size_t at =
                  static_cast<size_t>((part.tensor_row + row) * p.tensor_columns + p.column_begin + column);
              ++holders[part.name][at], copies[part.name][at] = part.copies, firsts[part.name][at] += part.copy == 0;
            }
        }
    }
    for (const Param& p : parameter_table(c.config).all)
      for (const ParamPart& part : p.parts) {
        EXPECT_EQ(holders[part.name].size(), static_cast<size_t>(part.rows * p.columns)) << part.name;
        EXPECT_EQ(holders[part.name], copies[part.name]) << part.name;
        EXPECT_EQ(firsts[part.name], std::vector<int>(firsts[part.name].size(), 1)) << part.name;
      }
  }
}

/// Values by tensor of the folder.
using Tensors = std::map<std::string, std::vector<float>>;

/// Puts a rank's flat values where they belong; copies must agree to the bit, or are left out.
void assemble(Tensors& to, const ParamTable& params, const std::vector<float>& flat, bool copies = true) {
  for (const Param& p : params.all)
    for (const ParamPart& part : p.parts) {
      if (!copies && part.copies > 1) continue;
      std::vector<float>& tensor = to[part.name];
      tensor.resize(static_cast<size_t>(part.tensor_rows * p.tensor_columns), NAN);
      for (int64_t row = 0; row < part.rows; ++row)
        for (int64_t column = 0; column < p.columns; ++column) {
          const float v = flat[static_cast<size_t>(p.offset + (part.row_begin + row) * p.columns + column)];
          float& at = tensor[static_cast<size_t>((part.tensor_row + row) * p.tensor_columns + p.column_begin + column)];
          if (!std::isnan(at)) {
            ASSERT_EQ(at, v) << part.name << ": ranks differ";
          }
          at = v;
        }
    }
}

/// What a run of a model gives: a rollout, and three updates on what it drew.
struct Outcome {
  Rolled rolled;
  std::vector<float> scored, trained;
  std::vector<double> norms;
  Tensors gradients, weights;
};

constexpr int kSamples = 3, kTokens = 40;

ModelLimits outcome_limits(const ModelConfig& config, const TensorRank& at) {
  ModelLimits limits = rollout_limits();
  const Group group{random_ids(11, 70, config.vocab), {kSamples, std::vector<int32_t>(kTokens)}};
  const ModelLimits training = training_limits(make_pack({group}));
  limits.pack_tokens = training.pack_tokens, limits.pack_segments = training.pack_segments;
  limits.pack_head_rows = training.pack_head_rows, limits.train = true, limits.tensor = at;
  limits.recompute = at.ranks % 2 == 0;
  return limits;
}

/// Adds a rank's part of the outcome to `out`; `tokens`: trained on instead of what was drawn, so that models that draw
/// apart can be compared.
void run_model(Outcome& out, std::mutex& mutex, Backend& backend, Comm& comm, const std::string& folder,
               const std::vector<std::vector<int32_t>>* tokens) {
  Weights weights(backend, comm, load_model_config(folder));
  weights.load(folder);
  ModelMemory memory(weights, outcome_limits(weights.config(), weights.tensor_rank()));
  Decoder decoder(memory);
  Learner learner(memory);
  const std::vector<int32_t> prompt = random_ids(11, 70, weights.config().vocab);
  const Sampling sampling{.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.01f, .seed = 123};
  const Rolled rolled = roll_out(decoder, prompt, kSamples, kTokens, 37, sampling);
  learner.begin();
  Pack pack = make_pack({{prompt, tokens != nullptr ? *tokens : rolled.tokens}});
  learner.score(pack, 0.8f);
  const std::vector<float> scored = pack.log_prob;
  pack.old_log_prob = scored;
  for (size_t i = 0; i < pack.advantage.size(); ++i) pack.advantage[i] = i % 3 == 0 ? -0.7f : 1.2f;
  std::vector<double> norms;
  std::vector<float> gradients, trained;
  for (int step = 1; step <= 3; ++step) {
    learner.train(pack, 0.8f, {});
    if (step == 1) gradients = to_host(backend, learner.gradients()), trained = pack.log_prob;
    const AdamW adamw{
        .lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.1f, .step = step, .max_norm = 1};
    const Learner::UpdateResult result = learner.update(adamw);
    EXPECT_TRUE(result.applied);
    norms.push_back(result.grad_norm);
  }
  const std::vector<float> masters = learner.masters();
  const std::lock_guard lock(mutex);
  if (!out.norms.empty()) {  // every rank knows the same
    EXPECT_EQ(out.rolled.tokens, rolled.tokens);
    EXPECT_EQ(out.rolled.log_prob, rolled.log_prob);
    EXPECT_EQ(out.scored, scored);
    EXPECT_EQ(out.trained, trained);
    EXPECT_EQ(out.norms, norms);
  }
  out.rolled = rolled, out.scored = scored, out.trained = trained, out.norms = norms;
  assemble(out.weights, weights.params(), masters);
  // Before the update the ranks have seen only parts of the gradients of what they hold alike.
  assemble(out.gradients, weights.params(), gradients, comm.size() == 1);
}

Outcome outcome(int ranks, DType dtype, const std::string& folder,
                const std::vector<std::vector<int32_t>>* tokens = nullptr) {
  Outcome out;
  std::mutex mutex;
  run_ranks(ranks, [&](Comm& comm) { run_model(out, mutex, *rig_backend(dtype), comm, folder, tokens); });
  return out;
}

std::vector<float> flat_log_prob(const Rolled& r) {
  std::vector<float> flat;
  for (const auto& l : r.log_prob) flat.insert(flat.end(), l.begin(), l.end());
  return flat;
}

class TensorSplitModel : public testing::TestWithParam<DType> {
 protected:
  void SetUp() override { SKIP_WITHOUT(GetParam()); }
};

TEST_P(TensorSplitModel, LikeOneRank) {
  const bool half = GetParam() == DType::bf16;
  for (const SplitCase& c : split_cases()) {
    SCOPED_TRACE(testing::Message() << c.ranks << " ranks, " << c.config.heads << " heads");
    const ScratchFolder folder;
    toy_rig(c.config, GetParam())->weights->save(folder.path());
    const Outcome split = outcome(c.ranks, GetParam(), folder.path());
    EXPECT_EQ(split.scored, flat_log_prob(split.rolled)) << "rollout and training, to the bit";
    EXPECT_EQ(split.trained, split.scored);
    const Outcome again = outcome(c.ranks, GetParam(), folder.path());
    EXPECT_EQ(split.norms, again.norms) << "repeats to the bit";
    EXPECT_EQ(split.weights, again.weights);

    const Outcome whole = outcome(1, GetParam(), folder.path(), &split.rolled.tokens);
    if (!half) {
      EXPECT_EQ(whole.rolled.tokens, split.rolled.tokens);
    }
    EXPECT_LT(max_difference(split.scored, whole.scored), half ? 0.1 : 2e-5);
    EXPECT_NEAR(split.norms[0], whole.norms[0], whole.norms[0] * (half ? 0.03 : 1e-5));
    for (const auto& [name, values] : split.gradients) {
      if (std::ranges::any_of(values, [](float v) { return std::isnan(v); })) continue;  // copies were left out
      EXPECT_LT(relative_norm(values, whole.gradients.at(name)), half ? 0.06 : 2e-5) << name;
    }
    for (const auto& [name, values] : whole.weights) {
      const auto found = split.weights.find(name);
      ASSERT_NE(found, split.weights.end()) << name;
      // An update moves a weight by the learning rate at most, and by its sign where the gradient is only rounding.
      EXPECT_LT(max_difference(found->second, values), half ? 8e-3 : 1e-3) << name;
      if (!name.ends_with("k_proj.bias")) {  // whose gradient is zero: it adds the same to all scores of a query
        EXPECT_LT(relative_norm(found->second, values), half ? 4e-3 : 2e-5) << name;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, TensorSplitModel, testing::Values(DType::f32, DType::bf16),
                         [](const auto& param) { return std::string(dtype_name(param.param)); });

TEST(TensorSplit, FewerTokensThanRanks) {
  const SplitCase c = split_cases()[1];
  const ScratchFolder folder;
  toy_rig(c.config)->weights->save(folder.path());
  std::map<int, std::vector<std::vector<float>>> log_probs;
  std::map<int, double> norms;
  std::mutex mutex;
  for (const int ranks : {1, c.ranks})
    run_ranks(ranks, [&](Comm& comm) {
      const auto backend = rig_backend(DType::f32);
      Weights weights(*backend, comm, c.config);
      weights.load(folder.path());
      Pack pack = make_pack({{{5}, {{250}}}});
      ModelLimits limits = training_limits(pack);
      limits.tensor = weights.tensor_rank();
      ModelMemory memory(weights, limits);
      Learner learner(memory);
      learner.begin();
      learner.train(pack, 1.0f, {});
      const double norm = learner
                              .update({.lr = 1e-3f,
                                       .beta1 = 0.9f,
                                       .beta2 = 0.999f,
                                       .eps = 1e-8f,
                                       .weight_decay = 0,
                                       .step = 1,
                                       .max_norm = 0})
                              .grad_norm;
      const std::lock_guard lock(mutex);
      log_probs[ranks].push_back(pack.log_prob);
      norms[ranks] = norm;
    });
  for (const auto& log_prob : log_probs[c.ranks]) EXPECT_LT(max_difference(log_prob, log_probs[1][0]), 2e-5);
  EXPECT_NEAR(norms[c.ranks], norms[1], 1e-5 * norms[1]);
}

TEST(TensorSplit, RandomWeightsDoNotDependOnTheRanks) {
  for (const SplitCase& c : split_cases()) {
    Tensors whole, split;
    std::mutex mutex;
    for (const int ranks : {1, c.ranks})
      run_ranks(ranks, [&](Comm& comm) {
        const auto backend = rig_backend(DType::f32);
        Weights weights(*backend, comm, c.config);
        weights.init(5, 0.02f);
        const std::lock_guard lock(mutex);
        assemble(ranks == 1 ? whole : split, weights.params(), to_host(*backend, weights.flat()));
      });
    EXPECT_EQ(whole, split);
  }
}

}  // namespace
}  // namespace dapo
