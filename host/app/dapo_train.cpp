// dapo_train: the DAPO loop from a config to a trained model.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>

#include "core/check.h"
#include "core/choices.h"
#include "core/files.h"
#include "host/app/checkpoint.h"
#include "host/app/interrupt.h"
#include "host/app/plan.h"
#include "host/app/provenance.h"
#include "host/app/report_error.h"
#include "host/app/resume.h"
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
#include "tokenizer/jinja.h"

namespace dapo {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> settings;
  std::string resume = "auto", replay;
  bool check = false, plan = false, overwrite = false;
};

Dataset load_data(const Config& config, const std::vector<std::string>& files, bool unique) {
  DatasetOptions options = question_options(config.data);
  options.unique = unique;
  return Dataset::load(files, options);
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

/// The first training prompt, as the model sees it.
std::string check_text(const Config& config, const Tokenizer& tokenizer, const Dataset& data) {
  const PromptEncoder encoder(config.data, config.model.path, tokenizer);
  const EncodedPrompts first = encode_prompts(config.data, encoder, data, "training", 1);
  return fmt::format("{}\n  ground truth: {}", shown_tokens("first prompt", tokenizer, first.ids[0]),
                     data[first.examples[0]].answer);
}

/// A run under way.
struct Run {
  const Config& config;
  Session& session;
  Trainer& trainer;
  const Dataset& data;
  const std::optional<Dataset>& val;
  TerminalProgress& progress;
  RunFolder folder;
  CheckpointWriter checkpoints;
  StuckWatch stuck;
  RunState state;      ///< what a checkpoint holds, as far as this program and not the trainer knows it
  int64_t saved = -1;  ///< complete steps of the last checkpoint
  bool owed = false;   ///< a checkpoint that could not be written, because the disk was full
};

/// One step. If too many of its updates are rejected, saves the weights of the last good one and the step's responses
/// before rethrowing the error.
StepMetrics step_or_save(Run& run) {
  Trainer& trainer = run.trainer;
  const int64_t step = trainer.state().step + 1, refused = trainer.state().refused;
  try {
    return trainer.step();
  } catch (const Error& e) {
    if (e.code() != kExitNumerics || trainer.state().refused == refused) throw;
    const std::string saved = run.folder.save_model(*run.session.weights, step, false);
    if (run.config.trainer.log_rollouts) run.folder.rollouts(step, trainer, *run.session.tokenizer, run.data);
    fail(e.code(), "{}; the weights of the last good update are in {}", e.what(), saved);
  }
}

EvalResult eval(Run& run, int64_t step) {
  EvalResult result = evaluate(run.config, run.trainer.rollout(), *run.session.tokenizer, *run.val, run.progress);
  run.progress.line(eval_text(result, step));
  return result;
}

/// Writes a checkpoint in the background. On a full disk a note says so, and the next step tries again.
void save(Run& run) {
  run.state.trainer = run.trainer.snapshot();
  run.state.stuck = run.stuck.state();
  run.folder.sync();
  try {
    run.checkpoints.save(run.trainer.learner(), run.state);
    run.saved = run.state.trainer.step;
    run.owed = false;
  } catch (const Error& e) {
    if (e.code() != kExitResources) throw;
    run.owed = true;
    run.progress.note(fmt::format("{}; will be tried again after the next step", e.what()).c_str());
  }
  run.state.trainer = {};
}

/// Waits for the checkpoint under way. False if it could not be written, or is owed.
bool finished(Run& run) {
  try {
    run.checkpoints.finish();
    return !run.owed;
  } catch (const Error& e) {
    if (e.code() != kExitResources) throw;
    run.progress.note(e.what());
    return false;
  }
}

/// Notes a new best value of the metric that keeps a checkpoint; returns whether there is one.
bool is_best(Run& run, const StepMetrics& m, const std::optional<EvalResult>& e) {
  bool better = false;
  const auto look = [&](const Fields& fields) {
    for (const auto& [name, value] : fields)
      if (name == run.config.trainer.keep_best && (run.state.best_step == 0 || value > run.state.best)) {
        run.state.best = value;
        run.state.best_step = m.step;
        better = true;
      }
  };
  look(m.fields());
  if (e) look(e->fields());
  return better;
}

/// The end of a step that is complete, or was when the run was interrupted: evaluate, write its line, save.
void end_step(Run& run, const StepMetrics& m) {
  const Config& config = run.config;
  std::optional<EvalResult> result;
  if (run.val && config.eval.every > 0 && (m.step % config.eval.every == 0 || run.trainer.done())) {
    run.state.unwritten = m;
    result = eval(run, m.step);
    run.state.unwritten.reset();
  }
  run.folder.metrics(m.step, &m, result ? &*result : nullptr);
  const bool best = is_best(run, m, result);
  const bool due = config.trainer.save_every > 0 && m.step % config.trainer.save_every == 0;
  if (run.owed || due || best || run.trainer.done()) save(run);
}

/// The outer loop of Algorithm 1: evaluate, step, log, save. Returns "", or why the run stops early.
std::string train_loop(Run& run) {
  Trainer& trainer = run.trainer;
  if (run.state.unwritten) end_step(run, StepMetrics(*run.state.unwritten));
  if (run.val && run.config.eval.before_train && run.saved < 0) {
    const EvalResult result = eval(run, 0);
    run.folder.metrics(0, nullptr, &result);
  }
  while (!trainer.done() && !interrupted()) {
    run.progress.step(trainer.state().step + 1);
    const StepMetrics m = step_or_save(run);
    const std::string why = run.stuck.after(m), left = trainer.done() ? "" : run.progress.left_text();
    run.progress.line(step_text(m, run.config.trainer.total_steps) + (left.empty() ? "" : "  " + left));
    for (const std::string& alarm : m.alarms) run.progress.note(alarm.c_str());
    if (run.config.trainer.log_rollouts) run.folder.rollouts(m.step, trainer, *run.session.tokenizer, run.data);
    end_step(run, m);
    if (!why.empty()) return why;
  }
  return "";
}

/// What is written when the run ends before its last step: "part of step 4", with the checkpoint's place.
int leave(Run& run) {
  const TrainerState& state = run.trainer.state();
  const bool open = state.now.stage != StepState::done;
  if (state.step == 0 && !open) {
    run.progress.line("interrupted before the first step began: nothing was trained, nothing is saved");
    return kExitInterrupted;
  }
  run.state.trainer = run.trainer.snapshot();
  run.state.stuck = run.stuck.state();
  const std::string saved = save_patiently(run.folder.path(), *run.session.weights, run.progress, [&] {
    const std::string before = run.checkpoints.finish();
    if (run.saved == state.step && !open && !run.state.unwritten) return before;
    run.folder.sync();
    run.checkpoints.save(run.trainer.learner(), run.state);
    return run.checkpoints.finish();
  });
  run.progress.line(
      fmt::format("interrupted after step {}{}: saved in {}; the same command goes on from there", state.step,
                  !open ? run.state.unwritten ? " and before the end of its evaluation" : ""
                  : state.now.stage == StepState::rollout
                      ? fmt::format(" and in the rollout of step {}, which is kept", state.step + 1)
                      : fmt::format(" and {} mini-batches of step {}", state.now.mini_batches, state.step + 1),
                  saved));
  return kExitInterrupted;
}

/// Trains from where the run begins to its end; `given`: the configuration before it was fitted to this machine.
int train(const Config& config, const Config& given, Session& s, Trainer& trainer, const Dataset& data,
          const std::optional<Dataset>& val, const Begin& begin, TerminalProgress& progress) {
  std::vector<std::string> files = config.data.train_files;
  files.insert(files.end(), config.data.val_files.begin(), config.data.val_files.end());
  const std::string about = provenance("dapo_train", s.device, config.model.path, files);
  const int64_t from = begin.checkpoint ? begin.checkpoint->step : RunFolder::kNothing;
  Run run{
      .config = config,
      .session = s,
      .trainer = trainer,
      .data = data,
      .val = val,
      .progress = progress,
      .folder = RunFolder(given, begin.replaces ? RunFolder::kNothing : from, begin.state.unwritten.has_value(), about,
                          progress),
      .checkpoints = CheckpointWriter(config.trainer.run_dir, config.trainer.keep, config.model.path, about, progress),
      .stuck = StuckWatch(config, begin.state.stuck),
      .state = begin.state,
      .saved = from};
  tidy_checkpoints(begin);
  if (begin.checkpoint)
    run.checkpoints.prune(*begin.checkpoint, begin.state.best_step);  // where a crash came before it
  run.state.settings = config_text(given);
  run.state.data = data.fingerprint();
  run.state.prompts = trainer.prompts_hash();
  run.state.template_time = jinja::template_time();
  run.state.trainer = {};
  progress.log_to(run.folder.path() + "/log.txt", begin.replaces ? AppendFile::empty : AppendFile::end);
  progress.log(provenance_text(about));
  trainer.on_refused = [&run, written = 0](const TrainerState& at) mutable {
    constexpr int kMost = 3;  // a run; each has all weights
    if (written++ >= kMost) return;
    run.state.trainer = at;
    const std::string to =
        fmt::format("{}/replays/step_{}-{}", run.folder.path(), at.step + 1, at.now.mini_batches + 1);
    try {
      run.checkpoints.save_at(to, run.trainer.learner(), run.state);
      run.progress.note(fmt::format("to look into the refused update: dapo_train CONFIG --replay {}", to).c_str());
    } catch (const Error& e) {
      if (e.code() != kExitResources) throw;
      run.progress.note(e.what());
    }
    run.state.trainer = {};
  };
  progress.on_report = [](Phase) {
    if (interrupted()) throw Interrupted("");
  };
  std::string stuck;
  try {
    stuck = train_loop(run);
  } catch (const Interrupted&) {
  } catch (const Error& e) {
    progress.log(e.what());
    throw;
  }
  progress.on_report = nullptr;
  const int64_t step = trainer.state().step;
  try {
    if (interrupted() && !(trainer.done() && !run.state.unwritten)) return leave(run);
    if (!finished(run)) {
      run.owed = false;
      save_patiently(run.folder.path(), *s.weights, progress, [&] {
        save(run);
        return run.checkpoints.finish();
      });
    }
    const std::string saved = save_patiently(run.folder.path(), *s.weights, progress,
                                             [&] { return run.folder.save_model(*s.weights, step, true); });
    progress.line(fmt::format("{} after step {}: model in {}, numbers in {}/metrics.jsonl",
                              stuck.empty() ? "done" : "stopped", step, saved, run.folder.path()));
  } catch (const Error& e) {
    progress.log(e.what());
    throw;
  }
  if (!stuck.empty()) {
    progress.log(stuck);
    fail(kExitNumerics, "{}", stuck);
  }
  run.folder.finish();
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
  Begin begin;
  if (!o.replay.empty())
    begin = read_begin(config, o.replay);
  else if (!o.plan && !o.check)
    begin = find_begin(config, o.resume, overwrite);
  if (begin.checkpoint) jinja::set_template_time(begin.state.template_time);
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
  const Dataset data = load_data(config, config.data.train_files, config.data.unique);
  std::optional<Dataset> val;
  if (!config.data.val_files.empty()) val = load_data(config, config.data.val_files, false);
  Session s = open_session(config.model.path, std::move(chosen), Start::folder, 1, 0, Tokens::need, begin.weights());
  TerminalProgress progress(config.trainer.total_steps, !o.check);
  Trainer trainer(config, *s.weights, *s.tokenizer, data, progress);
  if (!o.check) {
    progress.line(s.device);
    if (const std::string products = s.backend->products_text(); !products.empty()) progress.line(products);
  }
  progress.line(stop_text(trainer.rollout().stop(), *s.tokenizer));
  if (const std::string date = PromptEncoder(config.data, config.model.path, *s.tokenizer).date_text(); !date.empty())
    progress.line(date);
  progress.line(fmt::format("{}{}; {} parameters", rows_text(config, data, trainer),
                            val ? fmt::format(", {} test rows", val->size()) : "",
                            count_text(static_cast<double>(s.weights->config().parameters()))));
  for (const std::string& text : unmet_rows(config, data)) unmet.push_back(text);
  for (const std::string& text : unmet) progress.note(text.c_str());
  if (o.check) {
    progress.line(check_text(config, *s.tokenizer, data));
    progress.line("everything loads; nothing was trained (--check)");
    return kExitOk;
  }
  catch_interrupts();
  for (const std::string& note : begin.notes) progress.note(note.c_str());
  if (begin.checkpoint) {
    check_same_data(begin.state, data.fingerprint(), trainer.prompts_hash());
    load_optimizer(trainer.learner(), begin.checkpoint->folder + "/optimizer.safetensors");
    trainer.restore(std::exchange(begin.state.trainer, {}));
    if (!o.replay.empty()) {
      const std::string found = trainer.replay();
      print_out(found.empty() ? "every number is finite\n" : found);
      return found.empty() ? kExitOk : kExitNumerics;
    }
    progress.line(fmt::format("goes on from {}", begin.checkpoint->folder));
  }
  return train(config, given, s, trainer, data, val, begin, progress);
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
  app.add_option("--resume", o.resume,
                 "auto (default): go on with the run in trainer.run_dir, if it holds one; no: do not; or the folder of "
                 "a checkpoint to go on from");
  app.add_option(
      "--replay", o.replay,
      "run the mini-batch in this folder (RUN/replays/step_N-K) again and say where its numbers are not finite");
  app.add_flag("--overwrite", o.overwrite,
               "begin anew: replace metrics, rollouts, log, checkpoints and models of the run in the run folder");
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
