// Whole DAPO steps by phase, and their stages separately: decode by batch and context, training by length; each with
// its share of this device's limit (bench/parts/phases.h: bytes over the best measured rate of memory, FLOPs over the
// best measured product).
//
// With random weights of a named shape (no files, random tokens):
//   bench_step --shape toy|0.5b|1.5b|3b|7b|14b|32b [--device cuda] [--quick] [--what decode,train,step] [--no-peers]
//              [--prompts 64 --group 16 --prompt-tokens 256 --new-tokens 1024 --steps 2]
//              [--markdown FILE] [--json FILE]
// With a model folder and prompts, only the step (bench/peers/trl_dapo.py is its counterpart):
//   bench_step --model DIR --data gsm8k_train.jsonl [--prompts 4 --group 8 --new-tokens 128 --steps 3]
//
// Every response has exactly --new-tokens tokens, and the reward is cheap and varies, so that every group trains: the
// work is the same for any program. The last line is JSON. What does not fit in memory is left out and reported.
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "bench/parts/step_phases.h"
#include "bench/parts/write_file.h"
#include "core/sizes.h"
#include "host/app/report_error.h"
#include "host/app/session.h"
#include "host/train/trainer.h"

namespace dapo::bench {
namespace {

struct Options {
  std::string model, data, shape, markdown, json, device = "auto", dtype = "auto";
  std::vector<std::string> what = {"decode", "train", "step"};
  // 0: by the kind of device and shape
  int prompts = 0, group = 0, new_tokens = 0, prompt_tokens = 0, steps = 0, threads = 0, pack = 0;
  std::vector<int> batches, contexts, lengths;
  bool recompute = false, quick = false, no_peers = false;
  bool asks(const char* stage) const { return std::find(what.begin(), what.end(), stage) != what.end(); }
};

void set_defaults(Options& o, Device device) {
  const bool toy = o.shape == "toy", gpu = device == Device::cuda;
  const auto set = [](auto& value, auto fallback) {
    if (value == std::remove_reference_t<decltype(value)>{}) value = std::move(fallback);
  };
  using Sizes = std::vector<int>;
  if (o.shape.empty()) set(o.prompts, 4), set(o.group, 8), set(o.new_tokens, 128), set(o.steps, 3);
  set(o.prompts, toy ? 2 : gpu ? (o.quick ? 8 : 64) : 2);
  set(o.group, toy || !gpu ? 4 : 16);
  set(o.prompt_tokens, toy ? 8 : gpu ? 256 : 64);
  set(o.new_tokens, toy ? 6 : gpu ? (o.quick ? 256 : 1024) : 16);
  set(o.steps, 2);
  set(o.batches, toy ? Sizes{1, 4} : !gpu ? Sizes{1, 16} : o.quick ? Sizes{1, 64, 256} : Sizes{1, 8, 64, 256});
  set(o.contexts, toy ? Sizes{40} : !gpu ? Sizes{256} : o.quick ? Sizes{1024} : Sizes{256, 1024, 4096});
  set(o.lengths, toy ? Sizes{32} : !gpu ? Sizes{256} : o.quick ? Sizes{1024} : Sizes{1024, 4096});
}

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

/// Prompts of random letters (a token each for the byte tokenizer), in a folder that is deleted with this object.
class RandomInputs {
 public:
  explicit RandomInputs(const Options& o)
      : folder_((std::filesystem::temp_directory_path() / fmt::format("bench_step_{}", getpid())).string()) {
    write_byte_tokenizer(folder_);
    std::mt19937 random(1);
    std::ofstream out(file());
    for (int i = 0; i < o.prompts * o.steps; ++i) {
      std::string text;
      for (int k = 0; k < o.prompt_tokens; ++k) text += static_cast<char>('a' + random() % 26);
      out << "{\"prompt\":\"" << text << "\",\"answer\":\"0\"}\n";
    }
  }
  ~RandomInputs() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  RandomInputs(const RandomInputs&) = delete;
  RandomInputs& operator=(const RandomInputs&) = delete;
  const std::string& folder() const { return folder_; }
  std::string file() const { return folder_ + "/prompts.jsonl"; }

 private:
  std::string folder_;
};

struct StepRow {
  std::vector<StepMetrics> steps;
  StepLimit limit{0, 0};  ///< 0: not known (a model folder)
};

/// Steps of a trainer. The reward is the parity of the response's first token, or (a model folder) of the length of its
/// text, as in the peer's program.
StepRow time_steps(const Options& o, const Config& config, Weights& weights, const Tokenizer& tokenizer,
                   const Dataset& data, double peak) {
  NoProgress progress;
  Trainer trainer(config, weights, tokenizer, data, progress);
  const bool random = !o.shape.empty();
  trainer.after_rollout = [&](std::vector<Group>& groups) {
    for (Group& g : groups)
      for (Sample& x : g.samples)
        x.reward = x.shaped = static_cast<double>(random ? static_cast<size_t>(x.response.ids[0]) % 2
                                                         : tokenizer.decode(x.response.ids, true).size() % 2);
  };
  fmt::print("{} prompts x {} responses x {} tokens\n", o.prompts, o.group, o.new_tokens);
  StepRow row;
  for (int i = 0; i < o.steps; ++i) {
    row.steps.push_back(trainer.step());
    const StepMetrics& m = row.steps.back();
    const auto rate = [&](Phase p) { return m.phases[p].flops / m.phases[p].seconds; };
    fmt::print(
        "step {}: {:.3f} s; rollout {:.3f} s, {:.0f} tokens/s; update {:.3f} s, {:.0f} tokens/s, {:.0f} GFLOP/s, "
        "{:.0f} % of the product rate ({:.0f} GFLOP/s); mismatch {:g}\n",
        m.step, m.seconds, m.phases[Phase::rollout].seconds,
        m.phases[Phase::rollout].tokens / m.phases[Phase::rollout].seconds, m.phases[Phase::update].seconds,
        m.phases[Phase::update].tokens / m.phases[Phase::update].seconds, rate(Phase::update) / 1e9,
        100 * rate(Phase::update) / peak, peak / 1e9, m.mismatch);
    for (const std::string& a : m.alarms)  // random weights raise most of them
      if (!random || a.starts_with("update refused")) fmt::print("  {}\n", a);
    std::fflush(stdout);
  }
  return row;
}

nlohmann::json json_of(const StepRow& row) {
  std::vector<double> seconds;
  seconds.reserve(row.steps.size());
  for (const StepMetrics& m : row.steps) seconds.push_back(m.seconds);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return {{"program", "dapo.cu"}, {"step_seconds", seconds}, {"peak_mb", std::round(usage.ru_maxrss / 102.4) / 10}};
}

int run_folder(const Options& o) {
  const Config config = config_of(o);
  ChosenBackend chosen = make_backend(o.device, o.dtype, o.threads);
  const double peak = measure_flops(*chosen.backend);
  const Dataset data = Dataset::load(o.data);
  Session s = open_session(o.model, std::move(chosen));
  fmt::print("{}\n", s.device);
  const StepRow row = time_steps(o, config, *s.weights, *s.tokenizer, data, peak);
  fmt::print("{}\n", json_of(row).dump());
  return kExitOk;
}

/// Collects the report: prints it, and writes the markdown.
class Report {
 public:
  template <class... A>
  void line(fmt::format_string<A...> text, A&&... args) {
    const std::string s = fmt::format(text, std::forward<A>(args)...) + "\n";
    std::fputs(s.c_str(), stdout);
    std::fflush(stdout);
    text_ += s;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

void report_decode(Report& r, nlohmann::json& json, const std::vector<DecodeRow>& rows) {
  r.line(
      "\n## Decode\n\n"
      "| sequences | context | ms a step | tokens/s | limit, tokens/s | of limit |\n|---:|---:|---:|---:|---:|---:|");
  for (const DecodeRow& x : rows) {
    r.line("| {} | {} | {:.3f} | {:.0f} | {:.0f} | {:.1f} % |", x.batch, x.context, x.seconds * 1e3,
           x.batch / x.seconds, x.batch / x.limit, 100 * x.limit / x.seconds);
    json["decode"].push_back({{"batch", x.batch},
                              {"context", x.context},
                              {"step_ms", x.seconds * 1e3},
                              {"tokens_per_s", x.batch / x.seconds},
                              {"limit_share", x.limit / x.seconds}});
  }
}

void report_training(Report& r, nlohmann::json& json, const std::vector<TrainRow>& rows) {
  r.line(
      "\n## Training: forward, backward, head of a pack; AdamW\n\n"
      "| length | tokens | pack ms | AdamW ms | tokens/s | limit, tokens/s | of limit | pack, of limit | AdamW, of "
      "limit |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
  for (const TrainRow& x : rows) {
    const double all = x.seconds + x.update, limit = x.limit + x.update_limit, n = x.tokens;
    r.line("| {} | {} | {:.2f} | {:.2f} | {:.0f} | {:.0f} | {:.1f} % | {:.1f} % | {:.1f} % |", x.length, x.tokens,
           x.seconds * 1e3, x.update * 1e3, n / all, n / limit, 100 * limit / all, 100 * x.limit / x.seconds,
           100 * x.update_limit / x.update);
    json["train"].push_back({{"length", x.length},
                             {"tokens", x.tokens},
                             {"pack_ms", x.seconds * 1e3},
                             {"adamw_ms", x.update * 1e3},
                             {"tokens_per_s", n / all},
                             {"limit_share", limit / all}});
  }
}

void report_steps(Report& r, nlohmann::json& json, const Options& o, const StepRow& row) {
  const StepMetrics& m = row.steps.back();
  const auto& rollout = m.phases[Phase::rollout];
  const auto& update = m.phases[Phase::update];
  const double rollout_rate = rollout.tokens / rollout.seconds, update_rate = update.tokens / update.seconds;
  r.line("\n## A DAPO step: {} prompts x {} responses, {} + {} tokens\n", o.prompts, o.group, o.prompt_tokens,
         o.new_tokens);
  r.line("| | seconds | tokens/s | of limit |\n|---|---:|---:|---:|");
  r.line("| rollout | {:.3f} | {:.0f} | {:.1f} % |", rollout.seconds, rollout_rate,
         100 * row.limit.rollout / rollout.seconds);
  r.line("| update | {:.3f} | {:.0f} | {:.1f} % |", update.seconds, update_rate,
         100 * row.limit.update / update.seconds);
  const double limit = row.limit.rollout + row.limit.update;
  r.line("| whole (step {}) | {:.3f} | | {:.1f} % |", m.step, m.seconds, 100 * limit / m.seconds);
  r.line("\nlimit {:.3f} s; rollout-train mismatch {:g} (must be 0); gradient's norm {:.3g}", limit, m.mismatch,
         m.grad_norm);
  json["step"] = {{"prompts", o.prompts},
                  {"group", o.group},
                  {"prompt_tokens", o.prompt_tokens},
                  {"new_tokens", o.new_tokens},
                  {"seconds", m.seconds},
                  {"rollout_tokens_per_s", rollout_rate},
                  {"update_tokens_per_s", update_rate},
                  {"limit_seconds", limit},
                  {"limit_share", limit / m.seconds},
                  {"mismatch", m.mismatch}};
}

/// The trainer as in a user's run, with random weights; `note` reports what does not fit.
StepRow step_of_shape(const Options& o, Backend& b, const ModelConfig& shape, const Peaks& peaks, std::string& note) {
  const RandomInputs inputs(o);
  const auto tokenizer = Tokenizer::load(inputs.folder());
  const Dataset data = Dataset::load(inputs.file());
  Config c = config_of(o);
  c.model.path = inputs.folder();
  c.data.prompt_template = PromptStyle::raw;
  c.data.prompt_suffix.clear();
  c.data.max_prompt_length = o.prompt_tokens;
  c.rollout.max_num_seqs = std::min(o.prompts * o.group, 512);
  c.actor.ppo_mini_batch_size = std::max(1, o.prompts / 2);
  const MemoryPlan plan = plan_memory(b, shape, training_limits(c, shape, b));
  if (plan.total() > b.memory_available()) {
    note += fmt::format("the step needs {:.1f} GB, {:.1f} are free: left out; ", gb(plan.total()),
                        gb(b.memory_available()));
    return {};
  }
  RandomModel random(b, shape);
  StepRow row = time_steps(o, c, random.weights, *tokenizer, data, peaks.of(b.dtype()));
  row.limit = step_limit(shape, b.dtype(), peaks, o.prompts, o.group, o.prompt_tokens, o.new_tokens,
                         c.rollout.max_num_seqs, ceil_div(o.prompts, c.actor.ppo_mini_batch_size));
  return row;
}

int run_shape(Options o) {
  const ModelConfig shape = shape_config(o.shape);
  ChosenBackend chosen = make_backend(o.device, o.dtype, o.threads);
  Backend& b = *chosen.backend;
  set_defaults(o, b.device());
  Peaks peaks;
  measure_peaks(b, peaks, !o.no_peers);
  Report report;
  nlohmann::json json{{"decode", nlohmann::json::array()}, {"train", nlohmann::json::array()}};
  report.line("# {}, random weights ({:.2f} billion parameters)\n\n{}", o.shape, shape.parameters() / 1e9,
              peaks_text(b, peaks));
  std::string note;
  StepRow steps;
  if (o.asks("decode"))
    report_decode(report, json,
                  time_decode(b, shape, peaks, o.batches, o.contexts,
                              b.device() == Device::cuda && !simulated(b) ? 32 : 4, note));
  if (o.asks("train"))
    report_training(report, json,
                    time_training(b, shape, peaks, o.lengths,
                                  o.shape == "toy"             ? 64
                                  : b.device() == Device::cuda ? 16384
                                                               : 512,
                                  note));
  if (o.asks("step")) {
    steps = step_of_shape(o, b, shape, peaks, note);
    if (!steps.steps.empty()) report_steps(report, json, o, steps);
  }
  if (const std::string products = b.products_text(); !products.empty()) report.line("\n{}", products);
  if (!note.empty()) report.line("\nLeft out: {}", note);
  write_file(o.markdown, report.text());
  json.update(json_of(steps));
  json["shape"] = o.shape, json["device"] = b.describe(), json["note"] = note;
  json["copy_gb_per_s"] = peaks.copy * 1e-9, json["product_tflop_per_s"] = peaks.of(b.dtype()) * 1e-12;
  json["own_product_tflop_per_s"] = peaks.own_product * 1e-12;
  json["memory_how"] = peaks.memory_how, json["product_how"] = peaks.product_how, json["products"] = b.products_text();
  fmt::print("{}\n", json.dump());
  write_file(o.json, json.dump());
  return std::any_of(steps.steps.begin(), steps.steps.end(),
                     [](const StepMetrics& m) { return m.mismatch != 0 || m.updates_refused > 0; })
             ? kExitNumerics
             : kExitOk;
}

int run(Options o) {
  if (!o.shape.empty()) return run_shape(o);
  if (o.model.empty() || o.data.empty()) fail_input("--shape, or --model and --data, say what is timed");
  set_defaults(o, Device::cpu);
  return run_folder(o);
}

}  // namespace
}  // namespace dapo::bench

int main(int argc, char** argv) {
  CLI::App app(
      "Whole DAPO steps by phase; decode and training by themselves.\n"
      "example: bench_step --device cuda --shape 0.5b --quick --markdown step.md --json step.json\n"
      "Exit 4: rollout and training disagree on a log-prob, or a number is not finite.",
      "bench_step");
  dapo::bench::Options o;
  app.add_option("--shape", o.shape, "random weights: toy, 0.5b, 1.5b, 3b, 7b, 14b, 32b");
  app.add_option("--what", o.what, "with --shape, of decode,train,step")
      ->delimiter(',')
      ->check(CLI::IsMember({"decode", "train", "step"}));
  app.add_flag("--quick", o.quick, "fewer and smaller sizes: under 40 s for 0.5b on an H100");
  app.add_option("--batches", o.batches, "decode: sequences")->delimiter(',');
  app.add_option("--contexts", o.contexts, "decode: tokens before")->delimiter(',');
  app.add_option("--lengths", o.lengths, "training: tokens of a sequence")->delimiter(',');
  app.add_option("--model", o.model, "Hugging Face folder");
  app.add_option("--data", o.data, "JSONL prompts, such as gsm8k_train.jsonl");
  app.add_option("--prompts", o.prompts, "prompts a step");
  app.add_option("--group", o.group, "responses a prompt");
  app.add_option("--prompt-tokens", o.prompt_tokens, "tokens of a prompt (with --shape)");
  app.add_option("--new-tokens", o.new_tokens, "tokens a response");
  app.add_option("--steps", o.steps, "steps; the last is reported");
  app.add_option("--device", o.device, "auto | cpu | cuda");
  app.add_option("--dtype", o.dtype, "auto | bf16 | f32");
  app.add_option("--threads", o.threads, "CPU threads; 0: all cores");
  app.add_option("--pack", o.pack, "tokens of a pack; 0: by memory");
  app.add_flag("--recompute", o.recompute, "keep only layer inputs of a pack");
  app.add_flag("--no-peers", o.no_peers, "the product's peak without cuBLASLt");
  app.add_option("--markdown", o.markdown, "file for the tables (with --shape)");
  app.add_option("--json", o.json, "file for the JSON line (with --shape)");
  return dapo::run_program("bench_step", app, argc, argv, [&] { return dapo::bench::run(o); });
}
