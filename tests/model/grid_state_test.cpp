// Weights, masters and moments written on one grid of ranks and read on another; the Hugging Face folder of a model that
// ranks share.
#include <sys/resource.h>

#include <csignal>
#include <filesystem>

#include "core/grid.h"
#include "model/training_state.h"
#include "model/whole_model.h"
#include "tests/model/roll_out.h"
#include "tests/thread_comm.h"

namespace dapo {
namespace {

ModelConfig four_heads(bool tied) {
  ModelConfig c = toy_config();
  c.heads = 4, c.kv_heads = 2, c.ffn = 80, c.vocab = 300, c.tied = tied;
  return c;
}

/// One rank's weights and state.
struct RankState {
  std::unique_ptr<Backend> backend;
  HostGrid owner;
  const Grid& grid = owner.grid();
  Weights weights;
  ModelMemory memory;
  Learner learner;

  RankState(const ModelConfig& config, DType dtype, HostComm& comm, int tp)
      : backend(rig_backend(dtype)),
        owner(comm, tp),
        weights(*backend, grid.tensor, config),
        memory(weights, limits(comm.size() / tp, weights.tensor_rank()), &grid.data),
        learner(memory) {}
  static ModelLimits limits(int data_ranks, const TensorRank& at) {
    ModelLimits l = training_limits(make_pack({{{5, 6}, {{7}}}}));
    l.data_ranks = data_ranks;
    l.tensor = at;
    return l;
  }
  void load(const std::string& folder) {
    weights.load(folder);
    load_optimizer(learner, folder);
  }
  void save(const std::string& folder) {
    TrainingState(learner).save_optimizer(folder);
    grid.world.together([&] {
      if (grid.data.rank() == 0) lend_parts(weights, grid.tensor, [&] { save_whole(weights, grid.tensor, folder); });
    });
  }
  /// Every element another value.
  void fill() {
    weights.init(3, 0.1f);
    float next = 0;
    for (const Tensor& t : {learner.moment1(), learner.moment2()}) {
      std::vector<float> values(static_cast<size_t>(t.numel()));
      for (float& v : values) v = ++next;
      backend->copy_in(t, values.data());
      backend->synchronize();
    }
    if (!learner.remainders()) return;
    std::vector<int16_t> halves(static_cast<size_t>(learner.remainders().numel()));
    for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<int16_t>(i * 7919);
    backend->copy_in(learner.remainders(), halves.data());
    backend->synchronize();
  }
};

std::string bytes_of(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class GridState : public testing::TestWithParam<std::tuple<DType, bool>> {};

TEST_P(GridState, IsTheSameOnAnyGrid) {
  const DType dtype = std::get<0>(GetParam());
  const bool tied = std::get<1>(GetParam());
  SKIP_WITHOUT(dtype);
  const ModelConfig config = four_heads(tied);
  const ScratchFolder scratch;
  std::string before = scratch.path("1x1"), first = before;
  std::filesystem::create_directory(before);
  run_ranks(1, [&](HostComm& comm) {
    RankState rank(config, dtype, comm, 1);
    rank.fill();
    rank.save(before);
  });
  int number = 0;
  for (const auto& [dp, tp] : {std::pair{2, 2}, {1, 4}, {3, 1}, {2, 4}, {1, 2}, {1, 1}}) {
    const std::string next = scratch.path(fmt::format("{}-{}x{}", ++number, dp, tp));
    std::filesystem::create_directory(next);
    run_ranks(dp * tp, [&, tp = tp, type = dtype](HostComm& comm) {
      RankState rank(config, type, comm, tp);
      rank.load(before);
      rank.save(next);
    });
    EXPECT_EQ(bytes_of(next + "/model.safetensors"), bytes_of(first + "/model.safetensors")) << dp << " x " << tp;
    before = next;
  }
  EXPECT_EQ(bytes_of(before + "/optimizer.safetensors"), bytes_of(first + "/optimizer.safetensors"));
}
INSTANTIATE_TEST_SUITE_P(, GridState, testing::Combine(testing::Values(DType::f32, DType::bf16), testing::Bool()));

TEST(GridStateFiles, OneOfARankThatIsMissingIsAnError) {
  const ModelConfig config = four_heads(true);
  const ScratchFolder folder;
  run_ranks(4, [&](HostComm& comm) {
    RankState rank(config, DType::f32, comm, 2);
    rank.fill();
    rank.save(folder.path());
  });
  for (int missing = 1; missing <= 4; ++missing) {
    const std::string file = folder.path(fmt::format("optimizer-{:05}-of-00004.safetensors", missing));
    std::filesystem::rename(file, file + ".away");
    run_ranks(1, [&](HostComm& comm) {
      RankState rank(config, DType::f32, comm, 1);
      try {
        rank.load(folder.path());
        ADD_FAILURE() << "a quarter of the moments is missing";
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), kExitUsage);
        EXPECT_NE(std::string(e.what()).find("tensor '"), std::string::npos) << e.what();
      }
    });
    std::filesystem::rename(file + ".away", file);
  }
}

TEST(WholeModel, GroupsWriteItsFilesInTurn) {
  const ModelConfig config = four_heads(false);
  const ScratchFolder alone, shared;
  for (const auto& [dp, folder] : {std::pair{1, &alone}, {3, &shared}})
    run_ranks(2 * dp, [&, dp = dp, folder = folder](HostComm& comm) {
      RankState rank(config, DType::f32, comm, 2);
      rank.weights.init(3, 0.1f);
      const ShardFiles files{.most_bytes = 30'000, .writer = rank.grid.data.rank(), .writers = dp};
      comm.together([&] {
        lend_parts(rank.weights, rank.grid.tensor,
                   [&] { save_whole(rank.weights, rank.grid.tensor, folder->path(), files); });
      });
    });
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(alone.path()))
    names.push_back(entry.path().filename().string());
  EXPECT_GT(names.size(), 2 + 3) << "files of weights, more than writers";
  for (const std::string& name : names) EXPECT_EQ(bytes_of(alone.path(name)), bytes_of(shared.path(name))) << name;
}

/// A disk that is full in the middle of a file: the rank that writes must not leave the others waiting.
TEST(WholeModel, AFullDiskIsAnErrorOfAllRanks) {
  const ModelConfig config = four_heads(false);
  const ScratchFolder folder;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit low = before;
  low.rlim_cur = 20'000;
  std::vector<std::string> errors(4);
  run_ranks(4, [&](HostComm& comm) {
    RankState rank(config, DType::f32, comm, 4);
    rank.weights.init(3, 0.1f);
    comm.barrier();
    if (comm.rank() == 0) setrlimit(RLIMIT_FSIZE, &low);
    const auto save = [&] {
      comm.together([&] {
        lend_parts(rank.weights, rank.grid.tensor, [&] { save_whole(rank.weights, rank.grid.tensor, folder.path()); });
      });
    };
    try {
      save();
    } catch (const Error& e) {
      errors[static_cast<size_t>(comm.rank())] = e.what();
      EXPECT_EQ(e.code(), kExitResources);
    }
    comm.barrier();
    if (comm.rank() == 0) setrlimit(RLIMIT_FSIZE, &before);
    comm.barrier();
    save();  // and goes on where there is room
  });
  std::signal(SIGXFSZ, handler);
  for (const std::string& e : errors) EXPECT_NE(e.find("rank 0: "), std::string::npos) << e;
  EXPECT_TRUE(std::filesystem::exists(folder.path("model.safetensors")));
}

}  // namespace
}  // namespace dapo
