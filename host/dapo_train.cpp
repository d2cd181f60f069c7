// dapo_train: the DAPO loop from a config to a trained model.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>

#include "core/check.h"
#include "core/files.h"
#include "host/evaluate.h"
#include "host/interrupt.h"
#include "host/plan.h"
#include "host/progress.h"
#include "host/prompts.h"
#include "host/report_error.h"
#include "host/run.h"
#include "host/session.h"
#include "host/trainer.h"

namespace dapo {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> settings;
  bool check = false, plan = false, overwrite = false;
};

Dataset load_data(const Config& config, const std::vector<std::string>& files, bool unique) {
  DatasetOptions options = question_options(config.data);
  options.unique = unique;
  return Dataset::load(files, options);
}

/// What is trained on, and which rows are left out and why: "1024 prompts from 1100 rows; left out: ...".
std::string rows_text(const Config& config, const Dataset& data, const Trainer& trainer) {
  const DedupeReport copies = config.data.unique ? data.left_out() : data.duplicates();
  std::string text = fmt::format("{} prompts from {} rows", trainer.prompts(), copies.rows), why;
  if (const size_t dropped = trainer.prompts_dropped(); dropped > 0)
    why = fmt::format("{} longer than data.max_prompt_length = {}", dropped, config.data.max_prompt_length);
  if (copies.rows != copies.problems && config.data.unique)
    why += fmt::format("{}{} copies ({})", why.empty() ? "" : ", ", copies.rows - copies.problems, copies.text());
  if (!why.empty()) text += "; left out: " + why;
  if (copies.rows != copies.problems && !config.data.unique) text += "; copies kept: " + copies.text();
  return text;
}

/// One step. Where its updates were refused too often, the weights of the last good one and the responses that led
/// there are saved before the error goes on.
StepMetrics step_or_save(const Config& config, Session& s, Trainer& trainer, const Dataset& data, RunFolder& run) {
  const int64_t step = trainer.state().step + 1, refused = trainer.state().refused;
  try {
    return trainer.step();
  } catch (const Error& e) {
    if (e.code() != kExitNumerics || trainer.state().refused == refused) throw;
    const std::string saved = run.save_model(*s.model, step, false);
    if (config.trainer.log_rollouts) run.rollouts(step, trainer.trained(), *s.tokenizer, data);
    fail(e.code(), "{}; the weights of the last good update are in {}", e.what(), saved);
  }
}

/// Algorithm 1's outer loop: evaluate, step, write down, save.
int train(const Config& config, const Config& asked, Session& s, Trainer& trainer, const Dataset& data,
          const std::optional<Dataset>& val, bool overwrite, TerminalProgress& progress) {
  RunFolder run(asked, overwrite);
  catch_interrupts();
  const auto eval = [&](int64_t step) {
    EvalResult result = evaluate(config, trainer.rollout(), *s.tokenizer, *val, progress);
    progress.line(eval_text(result, step));
    return result;
  };
  if (val && config.eval.before_train) {
    const EvalResult result = eval(0);
    run.metrics(0, nullptr, &result);
  }
  while (!trainer.done() && !interrupted()) {
    progress.step(trainer.state().step + 1);
    const StepMetrics m = step_or_save(config, s, trainer, data, run);
    progress.line(step_text(m, config.trainer.total_steps));
    for (const std::string& alarm : m.alarms) progress.note(alarm.c_str());
    if (config.trainer.log_rollouts) run.rollouts(m.step, trainer.trained(), *s.tokenizer, data);
    std::optional<EvalResult> result;
    if (val && config.eval.every > 0 && (m.step % config.eval.every == 0 || trainer.done()) && !interrupted())
      result = eval(m.step);
    run.metrics(m.step, &m, result ? &*result : nullptr);
    if (config.trainer.save_every > 0 && m.step % config.trainer.save_every == 0)
      run.save_model(*s.model, m.step, false);
  }
  const std::string saved = run.save_model(*s.model, trainer.state().step, true);
  progress.line(fmt::format("{} after step {}: model in {}, numbers in {}/metrics.jsonl",
                            interrupted() ? "interrupted" : "done", trainer.state().step, saved, run.path()));
  return interrupted() ? kExitInterrupted : kExitOk;
}

std::string line_of(const std::string& text) {
  return text.empty() ? "" : text + "\n";
}

int run(const Options& o) {
  Config config = load_config(o.config, o.settings);
  ChosenBackend chosen = make_backend(config.model.device, config.model.dtype, config.model.threads);
  bool present = false;
  const ModelConfig shape = find_model(config.model.path, present);
  check_positions(shape, config.model.path, config.data.max_prompt_length, config.data.max_response_length);
  const Config asked = config;  // before it is fitted to this machine's memory
  const RunPlan plan = make_plan(config, shape, *chosen.backend);
  if (!plan.fits()) {
    fmt::print("{}", too_large_text(o.config, plan, config, shape, *chosen.backend, measure_flops(*chosen.backend)));
    for (const std::string& missing : missing_inputs(config)) fmt::print("not here: {}\n", missing);
    return kExitResources;
  }
  if (o.plan || o.check) {
    chosen.backend->prepare_products(weight_shapes(parameter_table(shape)), most_rows(plan.limits));
    fmt::print("{}\n{}{}{}", chosen.why, line_of(chosen.backend->products_text()), derived_numbers(config),
               plan_text(plan, config, shape, *chosen.backend, measure_flops(*chosen.backend)));
    std::fflush(stdout);
    if (o.plan) return kExitOk;
  }
  if (const auto missing = missing_inputs(config); !missing.empty())
    fail_input("{}: not here: {}", o.config, fmt::join(missing, ", "));
  const Dataset data = load_data(config, config.data.train_files, config.data.unique);
  std::optional<Dataset> val;
  if (!config.data.val_files.empty()) val = load_data(config, config.data.val_files, false);
  Session s = open_session(config.model.path, std::move(chosen));
  TerminalProgress progress(config.trainer.total_steps);
  Trainer trainer(config, *s.model, *s.tokenizer, data, progress);
  if (!o.check) {
    progress.line(s.device);
    if (const std::string products = s.backend->products_text(); !products.empty()) progress.line(products);
  }
  if (const double kv = asked.rollout.kv_memory_gb; kv > 0 && config.rollout.kv_memory_gb < kv)
    progress.line(fmt::format("rollout.kv_memory_gb = {} is more than memory leaves: {:.3g} are used", kv,
                              config.rollout.kv_memory_gb));
  progress.line(fmt::format("{}{}; {} parameters", rows_text(config, data, trainer),
                            val ? fmt::format(", {} test rows", val->size()) : "",
                            count_text(static_cast<double>(s.model->config().parameters()))));
  if (o.check) {
    progress.line("everything loads; nothing was trained (--check)");
    return kExitOk;
  }
  return train(config, asked, s, trainer, data, val, o.overwrite, progress);
}

}  // namespace
}  // namespace dapo

int main(int argc, char** argv) {
  CLI::App app("DAPO: reinforcement learning of language models (arXiv 2503.14476).", "dapo_train");
  dapo::Options o;
  bool settings = false;
  std::string device, dtype, seed;
  app.add_option("config", o.config, "the run's .cfg file, such as configs/demo.cfg");
  app.add_option("--set", o.settings, "section.field=value, over the file; may be given several times")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  app.add_flag("--check", o.check, "load everything, print derived numbers and the plan, train nothing");
  app.add_flag("--plan", o.plan, "print memory and the floor of a step, load nothing");
  app.add_flag("--overwrite", o.overwrite, "let the run folder's earlier metrics and rollouts go");
  app.add_flag("--settings", settings, "print every setting with its default and leave");
  app.add_option("--device", device, "auto | cpu | cuda: model.device");
  app.add_option("--dtype", dtype, "auto | bf16 | f32: model.dtype");
  app.add_option("--seed", seed, "trainer.seed");
  app.footer(
      "Example: ./dapo_train configs/gsm8k.cfg --set actor.lr=2e-6 --set trainer.total_steps=3\n"
      "Exit codes: 0 done, 2 bad usage, config or input, 3 out of resources, 4 numbers went bad, 130 interrupted "
      "(saved).");
  return dapo::run_program("dapo_train", app, argc, argv, [&] {
    if (settings) {
      fmt::print("{}", dapo::settings_help());
      return 0;
    }
    if (o.config.empty()) dapo::fail_input("no config; give one, such as ./dapo_train configs/demo.cfg");
    o.config = dapo::expand_home(o.config);
    if (!device.empty()) o.settings.push_back("model.device=" + device);
    if (!dtype.empty()) o.settings.push_back("model.dtype=" + dtype);
    if (!seed.empty()) o.settings.push_back("trainer.seed=" + seed);
    return dapo::run(o);
  });
}
