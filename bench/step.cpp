// Whole DAPO steps, timed by phase: rollout, reward, update. Every response is exactly --new-tokens long, and the
// reward is a cheap one with variance, so that every group trains: the work is the same for any program
// (bench/peers/trl_dapo.py is the peer's side). Prints a table and one JSON line.
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>

#include "host/backends.h"
#include "host/report_error.h"
#include "host/session.h"
#include "host/trainer.h"

namespace dapo {
namespace {

struct Options {
  std::string model, data, device = "auto", dtype = "auto";
  int prompts = 4, group = 8, new_tokens = 128, steps = 3, threads = 0, pack = 0;
  bool recompute = false;
};

Config config_of(const Options& o) {
  Config c;
  c.model.path = o.model;
  c.model.recompute = o.recompute;
  c.data.prompt_suffix = " Put the answer after \"####\".";
  c.data.max_prompt_length = 1024;
  c.data.max_response_length = o.new_tokens;
  c.data.train_batch_size = o.prompts;
  c.data.shuffle = false;
  c.rollout.n = o.group;
  c.rollout.max_num_seqs = o.prompts * o.group;
  c.rollout.ignore_eos = true;
  c.actor.ppo_mini_batch_size = o.prompts;
  c.actor.ppo_max_token_len = o.pack;
  c.algorithm.filter_groups = false;
  c.reward.verifier = "exact";
  c.reward.overlong_buffer = false;
  return c;
}

int run(const Options& o) {
  const Config config = config_of(o);
  ChosenBackend chosen = make_backend(o.device, o.dtype, o.threads);
  const double peak = measure_flops(*chosen.backend);
  const Dataset data = Dataset::load(o.data);
  Session s = open_session(o.model, std::move(chosen));
  NoProgress progress;
  Trainer trainer(config, *s.model, *s.tokenizer, data, progress);
  // The parity of the text's length, as the peer's reward has it.
  trainer.after_rollout = [&](std::vector<SampleGroup>& groups) {
    for (SampleGroup& g : groups)
      for (Sample& x : g.samples)
        x.reward = x.shaped = static_cast<double>(s.tokenizer->decode(x.response.ids, true).size() % 2);
  };
  fmt::print("{}\n{} prompts x {} responses x {} tokens\n", s.device, o.prompts, o.group, o.new_tokens);
  std::string seconds;
  for (int i = 0; i < o.steps; ++i) {
    const StepMetrics m = trainer.step();
    const auto rate = [&](Phase p) { return m.phases[p].flops / m.phases[p].seconds; };
    fmt::print(
        "step {}: {:.3f} s; rollout {:.3f} s, {:.0f} tokens/s; update {:.3f} s, {:.0f} tokens/s, {:.0f} GFLOP/s, "
        "{:.0f} % of "
        "the product rate ({:.0f} GFLOP/s); mismatch {:g}\n",
        m.step, m.seconds, m.phases[Phase::rollout].seconds,
        static_cast<double>(m.phases[Phase::rollout].tokens) / m.phases[Phase::rollout].seconds,
        m.phases[Phase::update].seconds,
        static_cast<double>(m.phases[Phase::update].tokens) / m.phases[Phase::update].seconds,
        rate(Phase::update) / 1e9, 100 * rate(Phase::update) / peak, peak / 1e9, m.mismatch);
    seconds += fmt::format("{}{:.4f}", i ? ", " : "", m.seconds);
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  fmt::print("{{\"program\": \"dapo.cu\", \"step_seconds\": [{}], \"peak_mb\": {:.1f}}}\n", seconds,
             static_cast<double>(usage.ru_maxrss) / 1024);
  return 0;
}

}  // namespace
}  // namespace dapo

int main(int argc, char** argv) {
  CLI::App app("Whole DAPO steps, timed by phase.", "bench_step");
  dapo::Options o;
  app.add_option("--model", o.model, "Hugging Face folder")->required();
  app.add_option("--data", o.data, "JSONL prompts, such as gsm8k_train.jsonl")->required();
  app.add_option("--prompts", o.prompts, "prompts a step");
  app.add_option("--group", o.group, "responses a prompt");
  app.add_option("--new-tokens", o.new_tokens, "tokens a response");
  app.add_option("--steps", o.steps, "steps");
  app.add_option("--device", o.device, "auto | cpu | cuda");
  app.add_option("--dtype", o.dtype, "auto | bf16 | f32");
  app.add_option("--threads", o.threads, "CPU threads; 0: all cores");
  app.add_option("--pack", o.pack, "tokens of a pack; 0: by memory");
  app.add_flag("--recompute", o.recompute, "keep only layer inputs of a pack");
  return dapo::run_program("bench_step", app, argc, argv, [&] { return dapo::run(o); });
}
