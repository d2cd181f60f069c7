// dapo_train: the DAPO loop from a config to a trained model.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>

#include "core/check.h"
#include "core/choices.h"
#include "core/files.h"
#include "host/app/interrupt.h"
#include "host/app/plan.h"
#include "host/app/provenance.h"
#include "host/app/report_error.h"
#include "host/app/run_folder.h"
#include "host/app/save.h"
#include "host/app/session.h"
#include "host/app/terminal.h"
#include "host/app/unmet.h"
#include "host/train/evaluate.h"
#include "host/train/prompts.h"
#include "host/train/step_text.h"
#include "host/train/stuck.h"
#include "host/train/trainer.h"

namespace dapo {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> settings;
  bool check = false, plan = false, overwrite = false;
};

Dataset load_data(const Config& config) {
  DatasetOptions options = question_options(config.data);
  options.unique = config.data.unique;
  return Dataset::load(config.data.train_files, options);
}

/// How many prompts are trained on, and why rows are left out: "1024 prompts from 1100 rows; left out: ...".
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

/// ", 30 test rows", or ", 30 + 500 test rows" of several sets.
std::string test_rows_text(const std::vector<EvalSet>& sets) {
  std::string text;
  for (const EvalSet& set : sets) text += fmt::format("{}{}", text.empty() ? ", " : " + ", set.data.size());
  return text.empty() ? "" : text + " test rows";
}

/// The first training prompt, as the model sees it.
std::string check_text(const Config& config, const Tokenizer& tokenizer, const Dataset& data) {
  const PromptEncoder encoder(config.data, config.model.path, tokenizer);
  const EncodedPrompts first = encode_prompts(config.data, encoder, data, "training", 1);
  return fmt::format("{}\n  ground truth: {}", shown_tokens("first prompt", tokenizer, first.ids[0]),
                     data[first.examples[0]].answer);
}

/// One step. If too many of its updates are rejected, saves the weights of the last good one and the step's responses
/// before rethrowing the error.
StepMetrics step_or_save(const Config& config, Session& s, Trainer& trainer, const Dataset& data, RunFolder& run) {
  const int64_t step = trainer.state().step + 1, refused = trainer.state().refused;
  try {
    return trainer.step();
  } catch (const Error& e) {
    if (e.code() != kExitNumerics || trainer.state().refused == refused) throw;
    const std::string saved = run.save_model(*s.weights, step, false);
    if (config.trainer.log_rollouts) run.rollouts(step, trainer, *s.tokenizer, data);
    fail(e.code(), "{}; the weights of the last good update are in {}", e.what(), saved);
  }
}

/// The outer loop of Algorithm 1: evaluate, step, log, save. Returns "", or why the run stops early.
std::string train_loop(const Config& config, Session& s, Trainer& trainer, const Dataset& data,
                       const std::vector<EvalSet>& val, RunFolder& run, TerminalProgress& progress) {
  const auto eval = [&](int64_t step) {
    EvalResult result = evaluate(config, trainer.rollout(), *s.tokenizer, val, progress);
    progress.line(eval_text(result, step));
    if (config.trainer.log_rollouts) run.evaluation(step, result, *s.tokenizer);
    return result;
  };
  if (!val.empty() && config.eval.before_train) {
    const EvalResult result = eval(0);
    run.metrics(0, nullptr, &result);
  }
  StuckWatch stuck(config);
  bool owed = false;  // a model that could not be saved because the disk was full
  while (!trainer.done() && !interrupted()) {
    progress.step(trainer.state().step + 1);
    const StepMetrics m = step_or_save(config, s, trainer, data, run);
    const std::string left = trainer.done() ? "" : progress.left_text();
    progress.line(step_text(m, config.trainer.total_steps) + (left.empty() ? "" : "  " + left));
    for (const std::string& alarm : m.alarms) progress.note(alarm.c_str());
    if (config.trainer.log_rollouts) run.rollouts(m.step, trainer, *s.tokenizer, data);
    std::optional<EvalResult> result;
    try {
      if (!val.empty() && config.eval.every > 0 && (m.step % config.eval.every == 0 || trainer.done()) &&
          !interrupted())
        result = eval(m.step);
    } catch (const Interrupted&) {  // the step is complete, its evaluation is not
    }
    run.metrics(m.step, &m, result ? &*result : nullptr);
    if (owed || (config.trainer.save_every > 0 && m.step % config.trainer.save_every == 0)) try {
        run.save_model(*s.weights, m.step, false);
        owed = false;
      } catch (const Error& e) {
        if (e.code() != kExitResources) throw;
        owed = true;
        progress.note(fmt::format("{}; will be tried again after the next step", e.what()).c_str());
      }
    if (const std::string why = stuck.after(m); !why.empty()) return why;
  }
  return "";
}

/// After a signal, unfinished work is dropped: an evaluation, a rollout, an update. Once a step has changed the
/// weights, its other updates have ten seconds to finish.
void leave_when_interrupted(TerminalProgress& progress, const Trainer& trainer) {
  constexpr double kGrace = 10;
  progress.on_report = [&trainer, step = int64_t{-1}, updates = int64_t{0}](Phase phase) mutable {
    if (step != trainer.state().step) step = trainer.state().step, updates = trainer.state().updates;
    if (!interrupted()) return;
    const bool changed = phase == Phase::update && trainer.state().updates != updates;
    if (!changed || seconds_since_interrupt() > kGrace) throw Interrupted(changed ? "in the midst of its updates" : "");
  };
}

int train(const Config& config, const Config& given, Session& s, Trainer& trainer, const Dataset& data,
          const std::vector<EvalSet>& val, Overwrite overwrite, TerminalProgress& progress) {
  catch_interrupts();
  std::vector<std::string> files = config.data.train_files;
  for (const std::string& entry : config.data.val_files)
    for (const std::string& file : set_files(entry)) files.push_back(file);
  const std::string about = provenance("dapo_train", s.device, config.model.path, files);
  RunFolder run(given, overwrite, about, progress);
  progress.log_to(run.path() + "/log.txt");
  progress.log(provenance_text(about));
  leave_when_interrupted(progress, trainer);
  std::string stuck, midst;
  try {
    stuck = train_loop(config, s, trainer, data, val, run, progress);
  } catch (const Interrupted& e) {
    midst = e.what();
  } catch (const Error& e) {
    progress.log(e.what());
    throw;
  }
  progress.on_report = nullptr;
  const int64_t step = trainer.state().step;
  if (interrupted() && step == 0 && midst.empty()) {
    progress.line("interrupted before the first step was complete: nothing was trained, no model is saved");
    return kExitInterrupted;
  }
  std::string saved;
  try {
    saved = save_patiently(run.path(), *s.weights, progress, [&] { return run.save_model(*s.weights, step, true); });
  } catch (const Error& e) {
    progress.log(e.what());
    throw;
  }
  progress.line(fmt::format("{} after step {}{}: model in {}, numbers in {}/metrics.jsonl",
                            interrupted()   ? "interrupted"
                            : stuck.empty() ? "done"
                                            : "stopped",
                            step, midst.empty() ? "" : fmt::format(" (step {} was {})", step + 1, midst), saved,
                            run.path()));
  if (!stuck.empty()) {
    progress.log(stuck);
    fail(kExitNumerics, "{}", stuck);
  }
  run.finish();
  return interrupted() ? kExitInterrupted : kExitOk;
}

std::string line_of(const std::string& text) {
  return text.empty() ? "" : text + "\n";
}

int run(const Options& o) {
  Config config = load_config(o.config, o.settings);
  const Overwrite overwrite = o.overwrite ? Overwrite::yes : Overwrite::no;
  ChosenBackend chosen = make_backend(config.model.device, config.model.dtype, config.model.threads);
  const ModelConfig shape = find_model(config.model.path).config;
  check_positions(shape, config.model.path, config.data.max_prompt_length, config.data.max_response_length);
  if (!o.plan && !o.check) RunFolder::check(config, overwrite);
  const Config given = config;  // before it is fitted to this machine's memory
  const RunPlan plan = make_plan(config, shape, *chosen.backend);
  if (!plan.fits()) {
    print_out(too_large_text(o.config, plan, config, shape, *chosen.backend, measure_flops(*chosen.backend)));
    for (const std::string& missing : missing_inputs(config)) print_out(fmt::format("not here: {}\n", missing));
    return kExitResources;
  }
  std::vector<std::string> unmet =
      unmet_settings(given, config, kv_gb(plan.limits, shape, *chosen.backend), *chosen.backend);
  if (o.plan || o.check) {
    chosen.backend->prepare_products(weight_shapes(parameter_table(shape)), most_product_rows(plan.limits));
    print_out(fmt::format("{}\n{}{}{}", chosen.why, line_of(chosen.backend->products_text()), derived_numbers(config),
                          plan_text(plan, config, shape, *chosen.backend, measure_flops(*chosen.backend))));
    if (o.plan) {
      for (const std::string& text : unmet) print_out(fmt::format("  note: {}\n", text));
      return kExitOk;
    }
  }
  if (const auto missing = missing_inputs(config); !missing.empty())
    fail_input("{}: not here: {}", o.config, fmt::join(missing, ", "));
  const Dataset data = load_data(config);
  const std::vector<EvalSet> val = load_eval_sets(config.data);
  try_commands(config.reward, data[0]);
  Session s = open_session(config.model.path, std::move(chosen));
  TerminalProgress progress(config.trainer.total_steps, !o.check);
  Trainer trainer(config, *s.weights, *s.tokenizer, data, progress);
  if (!o.check) {
    progress.line(s.device);
    if (const std::string products = s.backend->products_text(); !products.empty()) progress.line(products);
  }
  progress.line(stop_text(trainer.rollout().stop(), *s.tokenizer));
  if (const std::string date = PromptEncoder(config.data, config.model.path, *s.tokenizer).date_text(); !date.empty())
    progress.line(date);
  progress.line(fmt::format("{}{}; {} parameters", rows_text(config, data, trainer), test_rows_text(val),
                            count_text(static_cast<double>(s.weights->config().parameters()))));
  for (const std::string& text : unmet_rows(config, data)) unmet.push_back(text);
  for (const std::string& text : unmet) progress.note(text.c_str());
  if (o.check) {
    progress.line(check_text(config, *s.tokenizer, data));
    progress.line("everything loads; nothing was trained (--check)");
    return kExitOk;
  }
  return train(config, given, s, trainer, data, val, overwrite, progress);
}

}  // namespace
}  // namespace dapo

int main(int argc, char** argv) {
  CLI::App app("DAPO: reinforcement learning of language models (arXiv 2503.14476).", "dapo_train");
  dapo::Options o;
  bool settings = false, markdown = false, metrics = false;
  std::string device, dtype, seed;
  app.add_option("config", o.config, "the run's .cfg file, such as configs/demo.cfg");
  app.add_option("--set", o.settings, "section.field=value, overrides the file; may be repeated")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  app.add_flag("--check", o.check, "load everything, print derived numbers and the plan, train nothing");
  app.add_flag("--plan", o.plan, "print the memory plan and the least time of a step, load nothing");
  app.add_flag("--overwrite", o.overwrite,
               "replace metrics, rollouts, log and models of an earlier run in the run folder");
  CLI::Option* all = app.add_flag("--settings", settings, "print every setting as a commented .cfg file and exit");
  app.add_flag("--markdown", markdown, "with --settings: print them in the format of docs/settings.md")->needs(all);
  app.add_flag("--metrics", metrics, "print every metric of metrics.jsonl with its unit and meaning and exit");
  app.add_option("--device", device, dapo::choice_list(choices(dapo::DeviceChoice{}), " | ") + ": model.device");
  app.add_option("--dtype", dtype, dapo::choice_list(choices(dapo::DTypeChoice{}), " | ") + ": model.dtype");
  app.add_option("--seed", seed, "trainer.seed");
  app.footer(
      "Example: ./dapo_train configs/gsm8k.cfg --set actor.lr=2e-6 --set trainer.total_steps=3\n"
      "Exit codes: 0 done, 2 bad usage, config or input, 3 out of resources, 4 numbers went bad or nothing to "
      "learn from (saved), 130 interrupted (saved).");
  return dapo::run_program("dapo_train", app, argc, argv, [&] {
    if (settings) {
      dapo::print_out(markdown ? dapo::settings_markdown() : dapo::settings_help());
      return 0;
    }
    if (metrics) {
      dapo::print_out(dapo::metrics_text());
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
