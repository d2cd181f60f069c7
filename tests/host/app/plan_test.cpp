// Plans of steps and machines: work by phase, splits over cards, limits that are measured once.
#include "host/app/plan.h"

#include <cmath>

#include "host/app/ceilings.h"
#include "host/app/grid_choice.h"
#include "host/app/plan_cards.h"
#include "host/app/plan_grids.h"
#include "host/train/limits.h"
#include "tests/host/train/toy_run.h"
#include "tests/testdata.h"

namespace dapo {
namespace {

Config paper() {
  Config c;
  c.model.path = "qwen2.5-32b";
  c.model.recompute = true;
  c.data.train_files = {"t"};
  return c;
}

const PhaseCost& phase(const std::vector<PhaseCost>& costs, const std::string& name) {
  for (const PhaseCost& c : costs)
    if (c.name == name) return c;
  fail(kExitUsage, "no phase {}", name);
}

TEST(StepCost, PhasesCountTheirWork) {
  const ModelConfig m = Toy::shapes();
  Config c = toy_config();  // 4 prompts x 8, mini-batches of 2
  ModelLimits l;
  l.batch = 16, l.kv_pages = 1000, l.page_size = 64, l.prefill_tokens = 8, l.pack_tokens = 40;
  const int P = 8, R = 4;
  const auto costs = step_costs(c, m, l, DType::f32, {P, R});
  ASSERT_EQ(costs.size(), 4u);
  const PhaseCost& prefill = phase(costs, "prefill");
  EXPECT_EQ(prefill.tokens, 4 * P);
  EXPECT_EQ(prefill.passes, 4);  // 32 tokens, 8 a call
  EXPECT_EQ(prefill.flops, m.forward_flops(4 * P, 4 * 36, 32));
  const PhaseCost& decode = phase(costs, "decode");
  EXPECT_EQ(decode.tokens, 32 * (R - 1));
  EXPECT_EQ(decode.passes, 2 * (R - 1));  // 32 responses, 16 at once
  EXPECT_EQ(decode.flops, m.forward_flops(32 * 3, 32 * (9 + 10 + 11), 32 * 3) -
                              m.forward_flops(0, 32 * (9 + 10 + 11), 0) + decode.attention);
  EXPECT_NEAR(decode.attention / m.forward_flops(0, 32 * (9 + 10 + 11), 0), 1, 1e-9);
  const PhaseCost& train = phase(costs, "forward, backward");
  EXPECT_EQ(train.tokens, 4 * P + 32 * R);
  EXPECT_EQ(train.passes, 4);  // 160 tokens, 40 a pack
  EXPECT_EQ(train.flops, 3 * m.forward_flops(160, 4 * 36 + 32 * (R * P + 10), 32 * R));
  EXPECT_EQ(phase(costs, "update").bytes, 2 * 36.0 * double(m.parameters()));

  l.recompute = true;
  c.actor.old_logprobs = OldLogProbs::recompute;
  const auto more = step_costs(c, m, l, DType::f32, {P, R, 2});
  EXPECT_EQ(phase(more, "forward, backward").flops, train.flops / 3 * 4);
  EXPECT_EQ(phase(more, "old log-probs").flops, train.flops / 3);
  EXPECT_EQ(phase(more, "decode").tokens, 2 * decode.tokens) << "groups that are dropped are drawn too";
  EXPECT_EQ(phase(more, "forward, backward").tokens, train.tokens) << "but not trained on";
}

TEST(StepCost, ExpectedTimesAreThoseThatWereMeasuredOnAnH200) {
  const Ceilings h200 = ceilings_of(*parse_cards("h200").gpu, DType::bf16);
  EXPECT_NEAR(h200.flops, 711e12, 1e9);
  EXPECT_NEAR(h200.bytes_per_second, 4318e9, 1e6);
  struct Row {
    const char* model;
    int batch, context;
    double tokens_per_second;  // bench/results/h200-2026-11-26.md
  };
  for (const Row& r : {Row{"qwen2.5-0.5b", 1, 1024, 626},
                       {"qwen2.5-0.5b", 64, 1024, 34.3e3},
                       {"qwen2.5-0.5b", 256, 1024, 94.6e3},
                       {"qwen2.5-1.5b", 256, 1024, 50.9e3},
                       {"qwen2.5-7b", 1, 1024, 156},
                       {"qwen2.5-7b", 64, 1024, 8.2e3}}) {
    const ModelConfig m = qwen25_config(r.model);
    PhaseCost step{.name = "decode", .passes = 1, .kind = PhaseCost::decode};
    step.bytes = double(m.parameters()) * 2 + double(r.batch) * r.context * m.layers * 4.0 * m.attention().kv_width();
    const double seconds = expected_seconds(step, h200, measured_shares(Device::cuda, m), m.layers);
    EXPECT_NEAR(r.batch / seconds / r.tokens_per_second, 1, 0.15) << r.model << " x " << r.batch;
    EXPECT_GT(seconds, least_seconds(step, h200));
  }
  for (const Row& r : {Row{"qwen2.5-0.5b", 1, 1024, 129.9e3},
                       {"qwen2.5-0.5b", 1, 4096, 98.3e3},
                       {"qwen2.5-1.5b", 1, 1024, 52.4e3},
                       {"qwen2.5-1.5b", 1, 4096, 42.4e3}}) {
    const ModelConfig m = qwen25_config(r.model);
    const double n = r.context, pairs = n * (n + 1) / 2;
    PhaseCost pack{.name = "forward, backward", .tokens = n, .flops = 3 * m.forward_flops(n, pairs, n)};
    pack.attention = 3 * m.forward_flops(0, pairs, 0);
    const double seconds = expected_seconds(pack, h200, measured_shares(Device::cuda, m), m.layers);
    EXPECT_NEAR(n / seconds / r.tokens_per_second, 1, 0.1) << r.model << " at " << r.context;
  }
}

TEST(Cards, NamesAndCounts) {
  EXPECT_EQ(parse_cards("8xH100").count, 8);
  EXPECT_EQ(parse_cards("8xh100").gpu->key, "h100");
  EXPECT_EQ(parse_cards("rtx4090").count, 1);  // an x, but no count
  EXPECT_EQ(parse_cards("2xrtx4090").gpu->key, "rtx4090");
  for (const char* bad : {"", "8x", "0xh100", "1025xh100", "99999999999xh100", "h1000", "xh100", "-1xh100", "8 x h100"})
    EXPECT_NE(error_of(kExitUsage, [&] { parse_cards(bad); }).find("--for "), std::string::npos) << bad;
  EXPECT_NE(error_of(kExitUsage, [] { parse_cards("4xv100"); }).find("a100, h100, h200, rtx4090"), std::string::npos);
}

TEST(Cards, StateOfACardFollowsTheSplit) {
  Config c = paper();
  c.model.path = "qwen2.5-7b";
  const ModelConfig m = qwen25_config("qwen2.5-7b");
  const double P = double(m.parameters());
  for (const char* text : {"h200", "2xh100", "8xh100", "16xa100"}) {
    const CardPlan p = plan_cards(c, m, DType::bf16, parse_cards(text));
    EXPECT_EQ(p.tensor * p.data, p.cards.count);
    EXPECT_TRUE(p.fits()) << text;
    // weights 2 bytes a parameter on each copy; remainders, moments: 10, divided among the copies; and the scratch of
    // their exchange, whole norms, uneven parts
    EXPECT_NEAR(p.weights + p.optimizer, P / p.tensor * (2 + 10.0 / p.data), 1e8) << text;
    EXPECT_GT(p.shared, 4 * P / p.tensor) << text << ": gradients";
  }
  EXPECT_FALSE(plan_cards(c, m, DType::bf16, parse_cards("h100")).fits()) << "122 GB of state on 85";
}

TEST(Cards, APlanForThePapersRunNamesWhatItNeeds) {
  const ModelConfig m = qwen25_config("qwen2.5-32b");
  const CardsText eight = plan_cards_text(paper(), m, parse_cards("8xh100"));
  EXPECT_TRUE(eight.fits) << eight.text;
  for (const char* part : {"tested in the simulator only", "8 cards a copy of the weights, 1 copy", "GPU hours",
                           "a checkpoint takes       393.2 GB", "collectives", "forward, backward"})
    EXPECT_NE(eight.text.find(part), std::string::npos) << part << "\n" << eight.text;
  const CardsText one = plan_cards_text(paper(), m, parse_cards("h100"));
  EXPECT_FALSE(one.fits);
  for (const char* part : {"DOES NOT FIT", "--for 8xh100", "--for 4xh200"})
    EXPECT_NE(one.text.find(part), std::string::npos) << part << "\n" << one.text;
  EXPECT_EQ(one.text.find("--for h100"), std::string::npos);
  // what is advised is true
  Config small = paper();
  small.model.recompute = false;
  const ModelConfig m3 = qwen25_config("qwen2.5-3b");
  const CardsText tight = plan_cards_text(small, m3, parse_cards("h100"));
  ASSERT_FALSE(tight.fits) << tight.text;
  EXPECT_NE(tight.text.find("--set model.recompute=true\n"), std::string::npos) << tight.text;
  apply_settings(small, {"model.recompute=true"});
  EXPECT_TRUE(plan_cards_text(small, m3, parse_cards("h100")).fits);
}

TEST(Cards, GridsOfEveryModelNeedNoMoreCardsThanALargerOne) {
  const std::string text = plan_grids_text(paper(), *parse_cards("h100").gpu);
  std::istringstream lines(text);
  std::vector<int> least;  // number of the first column that fits, by model
  for (std::string line; std::getline(lines, line) && line.find("expected time") == line.npos;) {
    if (line.find("b |") == line.npos) continue;
    int column = 0, first = -1;
    for (size_t at = line.find('|', 1); at != line.npos && at + 1 < line.size(); at = line.find('|', at + 1), ++column)
      if (first < 0 && line.compare(at, 5, "| no:") != 0) first = column;
    least.push_back(first);
  }
  ASSERT_EQ(least.size(), 7u) << text;
  EXPECT_TRUE(std::ranges::is_sorted(least)) << text;
  EXPECT_EQ(least.front(), 0) << text;
  EXPECT_GE(least.back(), 3) << text << ": 145 GB of state on eight cards";
  EXPECT_NE(text.find("1 x 8: "), std::string::npos) << text;
}

TEST(Cards, GradientsAreShardedWhereTheyDoNotFitOtherwise) {
  const ModelConfig m = qwen25_config("qwen2.5-72b");
  const CardPlan p = plan_cards(paper(), m, DType::bf16, parse_cards("32xh100"));
  EXPECT_TRUE(p.fits());
  EXPECT_EQ(p.zero_stage, 2);
  EXPECT_NE(plan_cards_text(paper(), m, p.cards).text.find("(parallel.zero_stage = 2)"), std::string::npos);
  EXPECT_EQ(plan_cards(paper(), m, DType::bf16, parse_cards("64xh100")).zero_stage, 1);
}

TEST(Cards, WireBytesFollowStageAndType) {
  const ModelConfig m = qwen25_config("qwen2.5-7b");
  const auto wire = [&](int stage, ReduceDType type) {
    Config c = paper();
    c.parallel.zero_stage = stage, c.parallel.reduce_dtype = type;
    const CardPlan p = plan_cards(c, m, DType::bf16, parse_cards("8xh100"));
    EXPECT_EQ(p.tensor, 1);
    return card_step(p, c, m, DType::bf16, 1000).wire_bytes;
  };
  const double f32 = wire(1, ReduceDType::f32), bf16 = wire(1, ReduceDType::bf16);
  EXPECT_NEAR(bf16, f32 * 4 / 6, f32 * 1e-9) << "2 + 2 bytes instead of 4 + 2";
  EXPECT_GE(wire(2, ReduceDType::f32), f32);
  EXPECT_NEAR(wire(2, ReduceDType::f32) - wire(2, ReduceDType::bf16), (wire(2, ReduceDType::f32) - f32 / 3) / 2,
              f32 * 1e-9)
      << "half of the gradients";
}

TEST(Plan, APlanOfAGridIsThatOfItsLargestPart) {
  const ModelConfig m = qwen25_config("qwen2.5-7b");  // 28 heads, 8 ranks: 4 or 3 each
  Config c = paper();
  const auto memory = [&](int dp, int tp) {
    c.parallel.dp = dp, c.parallel.tp = tp;
    Config copy = c;
    return make_plan(copy, m, size_of(*parse_cards("h200").gpu, DType::bf16, 150e9)).memory;
  };
  const double whole = static_cast<double>(memory(1, 1).weights);
  EXPECT_GT(static_cast<double>(memory(1, 8).weights), whole / 8);
  EXPECT_LT(static_cast<double>(memory(1, 8).weights), whole / 8 * 1.1);
  EXPECT_LT(memory(4, 2).state, memory(2, 2).state);
  EXPECT_EQ(largest_rank(m, 8).ranks, 8);
}

TEST(Grid, AutoTakesAllRanks) {
  const auto resolved = [](int dp, int tp, int ranks) {
    ParallelSection p;
    p.dp = dp, p.tp = tp;
    resolve_ranks(p, ranks);
    return std::pair(p.dp, p.ranks());
  };
  EXPECT_EQ(resolved(0, 1, 8), std::pair(8, 8));
  EXPECT_EQ(resolved(0, 4, 8), std::pair(2, 8));
  EXPECT_EQ(resolved(0, 0, 8), std::pair(8, 8)) << "all ranks, until tp is chosen";
  EXPECT_EQ(resolved(3, 2, 8), std::pair(3, 6)) << "as it is set";
  EXPECT_NE(error_of(kExitUsage, [&] { resolved(0, 3, 8); }).find("8 ranks are there, which parallel.tp = 3"),
            std::string::npos);
}

TEST(Grid, AutoTakesTheSmallestSplitThatFits) {
  const ModelConfig m = qwen25_config("qwen2.5-7b");
  Config c = paper();
  c.parallel.tp = 0;
  const auto chosen = [&](int ranks, double bytes) {
    Config copy = c;
    choose_grid(copy, m, size_of(*parse_cards("h200").gpu, DType::bf16, bytes), ranks);
    EXPECT_EQ(copy.parallel.dp * copy.parallel.tp, ranks);
    return copy.parallel.tp;
  };
  EXPECT_EQ(chosen(8, 150e9), 1);
  EXPECT_EQ(chosen(8, 60e9), 2);
  EXPECT_EQ(chosen(8, 1e9), 8) << "the largest, whose plan then says what it needs";
  EXPECT_EQ(chosen(3, 150e9), 1) << "3 ranks cannot share the model";
  c.parallel.tp = 3;
  EXPECT_NE(error_of(kExitUsage, [&] { chosen(3, 150e9); }).find("can be over 1, 2, 4, 8, 12, 14, 16, 20, 24, 28"),
            std::string::npos);
}

TEST(Plan, ArenasAreShownInBytesThatAddUp) {
  Toy toy;
  Config c = toy_config();
  const RunPlan plan = make_plan(c, toy.weights.config(), *toy.backend);
  const std::string text = plan_text(plan, c, toy.weights.config(), *toy.backend, {{1e12, 1e10}, "given"});
  for (const size_t bytes : {plan.memory.weights, plan.memory.state, plan.memory.rollout, plan.memory.update,
                             plan.memory.workspace, plan.memory.total()})
    EXPECT_NE(text.find(" " + bytes_text(static_cast<double>(bytes))), std::string::npos) << bytes << "\n" << text;
  size_t state = 0;
  for (const MemoryPlan::Piece& p : plan.memory.pieces)
    if (p.arena == "state") state += p.bytes;
  EXPECT_EQ(state, plan.memory.state);
  EXPECT_NE(text.find("second moments"), std::string::npos) << text;
}

TEST(Plan, SettingsThatFitAreFoundAndAreTrue) {
  const Toy toy;
  Config c = toy_config();
  c.data.max_prompt_length = 64;
  c.data.max_response_length = 512;
  c.actor.ppo_max_token_len = 0;
  c.reward.overlong_buffer = false;
  const ModelConfig m = qwen25_config("qwen2.5-0.5b");
  const auto machine = [&](double gb) {
    return DeviceSize(Device::cpu, DType::f32, static_cast<size_t>(gb * 1e9),
                      [&](const WorkspaceNeeds& n) { return toy.backend->workspace_bytes(n); });
  };
  EXPECT_TRUE(settings_that_fit(c, m, machine(4)).empty()) << "weights, gradients and optimizer take 7.9 GB";
  double least = 8;  // the smallest machine that holds the run as it is
  for (Config copy = c; !make_plan(copy, m, machine(least)).fits(); copy = c) least += 0.05;
  const std::vector<std::string> found = settings_that_fit(c, m, machine(least - 0.2));
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found[0], "--set model.recompute=true");
  apply_settings(c, {"model.recompute=true"});
  EXPECT_TRUE(make_plan(c, m, machine(least - 0.2)).fits());
}

TEST(Ceilings, AreMeasuredOnceAMachine) {
  const ScratchFolder scratch;
  setenv("XDG_CACHE_HOME", scratch.path().c_str(), 1);
  Toy toy;
  const std::string file = ceilings_file(), key = machine_identity(*toy.backend);
  EXPECT_EQ(file, scratch.path("dapo/ceilings.json"));
  EXPECT_NE(key.find("thread"), std::string::npos) << key;
  const auto kept = [&](const std::string& name, double flops) {
    return fmt::format("{{\"{}\": {{\"flops\": {}, \"bytes_per_second\": 2.5e9, \"date\": \"2001-02-03\"}}}}", name,
                       flops);
  };
  scratch.write("dapo/ceilings.json", kept(key, 1e15));
  const MeasuredCeilings known = machine_ceilings(*toy.backend, false);
  EXPECT_EQ(known.ceilings.flops, 1e15);
  EXPECT_EQ(known.ceilings.bytes_per_second, 2.5e9);
  EXPECT_NE(known.when.find("2001-02-03"), std::string::npos) << known.when;
  EXPECT_EQ(machine_ceilings(*toy.backend, true).ceilings.flops, 1e15) << "what is kept was measured in quiet";

  for (const std::string& other : {kept(key + ", changed", 1e15), std::string("{\"no"), kept(key, -1)}) {
    scratch.write("dapo/ceilings.json", other);
    const MeasuredCeilings busy = machine_ceilings(*toy.backend, true);
    EXPECT_LT(busy.ceilings.flops, 1e14);
    EXPECT_GT(busy.ceilings.bytes_per_second, 1e6);
    EXPECT_EQ(slurp(file), other) << "a figure from a busy machine is not kept";
  }
  scratch.write("dapo/ceilings.json", kept("another machine", 1e15));
  const MeasuredCeilings now = machine_ceilings(*toy.backend, false);
  EXPECT_NE(now.when.find("kept in " + file), std::string::npos) << now.when;
  EXPECT_EQ(machine_ceilings(*toy.backend, false).ceilings.flops, now.ceilings.flops) << "the second time it is read";
  EXPECT_NE(slurp(file).find("another machine"), std::string::npos) << "other machines' figures stay";
  setenv("XDG_CACHE_HOME", scratch.path("dapo/ceilings.json/below").c_str(), 1);  // a file is in the way
  EXPECT_NE(machine_ceilings(*toy.backend, false).when.find("no cache file"), std::string::npos);
  unsetenv("XDG_CACHE_HOME");
}

}  // namespace
}  // namespace dapo
