// Whole runs of the toy model on one rank or several, which are threads here. Each has its own backend, weights and
// tokenizer: none of them is made for two threads.
#pragma once

#include <fmt/ranges.h>

#include "host/train/run_state.h"
#include "model/training_state.h"
#include "model/whole_model.h"
#include "tests/host/train/trainer_case.h"
#include "tests/thread_comm.h"

namespace dapo {

/// The guesser (trainer_case.h) as a folder, from which ranks load their parts.
inline const std::string& guesser_folder() {
  static const std::string path = [] {
    const std::string folder = temp_folder() + "/guesser";
    std::filesystem::create_directory(folder);
    Toy(guesser()).weights.save(folder);
    return folder;
  }();
  return path;
}

/// One rank of a run, in a grid whose tensor groups have `tp` ranks.
struct RankCase {
  HostGrid owner;
  const Grid& grid = owner.grid();
  Config config;
  Toy toy;
  std::unique_ptr<const Tokenizer> tokenizer = (byte_tokenizer(), Tokenizer::load(temp_folder() + "/bytes"));
  Trainer trainer;
  RankCase(const Config& c, const Dataset& data, HostComm& comm, Progress& progress, DType dtype = DType::f32,
           int tp = 1)
      : owner(comm, tp),
        config(on_grid(c, comm.size() / tp, tp)),
        toy(guesser_folder(), make_cpu_backend(dtype), grid.tensor),
        trainer(config, toy.weights, *tokenizer, data, progress, &grid) {}

  static Config on_grid(Config c, int dp, int tp) {
    c.parallel.dp = dp, c.parallel.tp = tp;
    return c;
  }
  /// The Hugging Face folder of the model, by all ranks.
  void save_model(const std::string& folder) {
    grid.world.together([&] {
      if (grid.data.rank() == 0)
        lend_parts(toy.weights, grid.tensor, [&] { save_whole(toy.weights, grid.tensor, folder); });
    });
  }
  /// Writes a checkpoint together with the other ranks.
  void save(const std::string& folder) {
    TrainingState training(trainer.learner());
    training.copy_to_host();
    training.save_optimizer(folder);
    save_model(folder);
    if (grid.world.rank() == 0) {
      RunState state;
      state.trainer = trainer.snapshot();
      StateImage(state).write(folder);
    }
    grid.world.barrier();
  }
  void load(const std::string& folder) {
    toy.weights.load(folder);
    load_optimizer(trainer.learner(), folder);
    trainer.restore(read_state(folder).trainer);
  }
};

/// What a step drew and trained on: prompts and tokens, and of the groups trained on the advantages.
inline std::vector<std::string> drawn(const Trainer& trainer) {
  std::vector<std::string> out;
  const auto add = [&](const char* what, const std::vector<Group>& groups) {
    for (const Group& g : groups)
      for (const Sample& s : g.samples)
        out.push_back(fmt::format("{} {} {} {}: {} {} {}", what, g.example, g.step, g.prompt_key,
                                  fmt::join(s.response.ids, ","), s.verdict.acc, s.verdict.pred));
  };
  add("trained", trainer.trained()), add("left out", trainer.left_out()), add("banked", trainer.state().bank);
  return out;
}

struct RanksRun {
  std::vector<std::vector<std::string>> drawn;  ///< by step
  std::vector<StepMetrics> metrics;
  std::vector<float> start, weights;
};

/// `steps` steps; checks that all ranks hold the same groups, and those of a data group the same weights.
inline RanksRun run_on(int ranks, const Config& c, const Dataset& data, int steps, int tp = 1,
                       DType dtype = DType::f32) {
  const ScratchFolder folder;
  RanksRun out;
  out.start = guesser();
  std::vector<RanksRun> all(ranks);
  run_ranks(ranks, [&](HostComm& comm) {
    NoProgress progress;
    RankCase rank(c, data, comm, progress, dtype, tp);
    RanksRun& own = all[comm.rank()];
    for (int step = 0; step < steps; ++step) {
      own.metrics.push_back(rank.trainer.step());
      own.drawn.push_back(drawn(rank.trainer));
    }
    own.weights = rank.toy.get(rank.toy.weights.flat());
    rank.save_model(folder.path());
  });
  for (int r = 0; r < ranks; ++r) {
    EXPECT_EQ(all[r].drawn, all[0].drawn);
    EXPECT_TRUE(same_bits(all[r].weights, all[r % tp].weights)) << "the ranks have other weights";
  }
  Toy whole;
  whole.weights.load(folder.path());
  out.drawn = all[0].drawn, out.metrics = all[0].metrics, out.weights = whole.get(whole.weights.flat());
  return out;
}

/// Metrics but for times and what depends on how packs are filled and responses scheduled.
inline std::vector<std::string> comparable(const StepMetrics& m) {
  std::vector<std::string> out;
  for (const auto& [name, value] : m.fields())
    if (!of_time(name) && name.find("preemptions") == name.npos) out.push_back(fmt::format("{} = {}", name, value));
  for (const std::string& alarm : m.alarms) out.push_back(alarm);
  return out;
}

inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
  return std::sqrt(sum);
}

/// Packs of other lengths and numbers on each rank, of so many tokens.
inline Config uneven_packs(int tokens = 14) {
  Config c = toy_config();
  c.rollout.max_num_seqs = 24;
  c.rollout.temperature = 1.3f;
  c.rollout.n = 24;
  c.data.max_response_length = 6;
  c.algorithm.filter_groups = false;
  c.algorithm.norm_adv_by_std = false;
  c.actor.ppo_max_token_len = tokens;
  return c;
}

inline std::vector<DType> host_types() {
  return cpu_has_bf16() ? std::vector{DType::f32, DType::bf16} : std::vector{DType::f32};
}

}  // namespace dapo
