#include "host/app/train_run.h"

#include <fmt/format.h>

#include "core/check.h"
#include "host/app/checkpoint.h"
#include "host/app/interrupt.h"
#include "host/app/report.h"
#include "host/app/run_folder.h"
#include "host/app/save.h"
#include "host/train/evaluate.h"
#include "host/train/settings_changes.h"
#include "host/train/share.h"
#include "host/train/step_text.h"
#include "host/train/stuck.h"
#include "model/whole_model.h"
#include "tokenizer/jinja.h"

namespace dapo {
namespace {

/// A run under way.
struct Run {
  const Config& config;
  Session& session;
  Trainer& trainer;
  const Dataset& data;
  const std::vector<EvalSet>& val;
  TerminalProgress& progress;
  const Grid& grid;
  Comm& comm;                         ///< all ranks
  std::unique_ptr<RunFolder> folder;  ///< of the first rank
  CheckpointWriter checkpoints;
  StuckWatch stuck;
  RunState state;        ///< what a checkpoint holds, as far as this program and not the trainer knows it
  int64_t saved = -1;    ///< complete steps of the last checkpoint
  bool owed = false;     ///< a checkpoint that could not be written, because the disk was full
  bool stopped = false;  ///< a signal reached one of the ranks

  bool first() const { return comm.rank() == 0; }
  /// The first rank's work on the run's folder; an error is thrown on all.
  template <class Work>
  void in_folder(Work&& work) {
    comm.together([&] {
      if (first()) work(*folder);
    });
  }
  /// The same, in which it may save the model: the ranks of its tensor group give it their parts.
  template <class Work>
  void with_model(Work&& work) {
    comm.together([&] {
      if (grid.data.rank() == 0) lend_parts(*session.weights, grid.tensor, [&] { work(*folder); });
    });
  }
  bool asked_to_stop() { return stopped = stopped || value_of_any(comm, interrupted()); }
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
    std::string saved;
    run.with_model([&](RunFolder& folder) {
      saved = folder.save_model(*run.session.weights, run.grid.tensor, step, false);
      if (run.config.trainer.log_rollouts) folder.rollouts(step, trainer, *run.session.tokenizer, run.data);
    });
    fail(e.code(), "{}; the weights of the last good update are in {}", e.what(), saved);
  }
}

EvalResult eval(Run& run, int64_t step) {
  EvalResult result = evaluate(run.config, run.trainer.rollout(), *run.session.tokenizer, run.val, run.progress,
                               &run.grid, &run.state.evaluation);
  run.progress.line(eval_text(result, step));
  if (run.config.trainer.log_rollouts)
    run.in_folder([&](RunFolder& folder) { folder.evaluation(step, result, *run.session.tokenizer); });
  return result;
}

/// Writes a checkpoint in the background. On a full disk a note says so, and the next step tries again.
void save(Run& run) {
  run.state.trainer = run.trainer.snapshot();
  run.state.stuck = run.stuck.state();
  run.in_folder([](RunFolder& folder) { folder.sync(); });
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

/// Completes a checkpoint that all ranks have written; one rank does so itself. On a full disk as save().
void finish_if_written(Run& run) {
  try {
    run.checkpoints.poll();
  } catch (const Error& e) {
    if (e.code() != kExitResources) throw;
    run.owed = true;
    run.progress.note(fmt::format("{}; will be tried again after the next step", e.what()).c_str());
  }
}

/// Notes a new best value of the metric that keeps a checkpoint; returns whether there is one. The first rank decides:
/// the metric may be a speed.
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
  run.state.best = value_of_first(run.comm, run.state.best);
  run.state.best_step = value_of_first(run.comm, run.state.best_step);
  return value_of_first(run.comm, better);
}

/// The end of a step that is complete, or was when the run was interrupted: evaluate, write its line, save.
void end_step(Run& run, const StepMetrics& m) {
  const Config& config = run.config;
  std::optional<EvalResult> result;
  if (!run.val.empty() && config.eval.every > 0 && (m.step % config.eval.every == 0 || run.trainer.done())) {
    run.state.unwritten = m;
    result = eval(run, m.step);
    run.state.unwritten.reset();
  }
  run.in_folder([&](RunFolder& folder) { folder.metrics(m.step, &m, result ? &*result : nullptr); });
  const bool best = is_best(run, m, result);
  const bool due = config.trainer.save_every > 0 && m.step % config.trainer.save_every == 0;
  if (run.owed || due || best || run.trainer.done()) save(run);
  finish_if_written(run);
}

/// The outer loop of Algorithm 1: evaluate, step, log, save. Returns "", or why the run stops early.
std::string train_loop(Run& run) {
  Trainer& trainer = run.trainer;
  if (run.state.unwritten) end_step(run, StepMetrics(*run.state.unwritten));
  const bool begun = !run.state.evaluation.empty();  // the one before the first step, which was interrupted
  if (!run.val.empty() && (begun || (run.config.eval.before_train && run.saved < 0))) {
    const EvalResult result = eval(run, 0);
    run.in_folder([&](RunFolder& folder) { folder.metrics(0, nullptr, &result); });
  }
  while (!trainer.done() && !run.asked_to_stop()) {
    run.progress.step(trainer.state().step + 1);
    const StepMetrics m = step_or_save(run);
    std::string why = run.stuck.after(m);
    run.progress.step_line(m.fields());
    for (const std::string& alarm : m.alarms) run.progress.note(alarm.c_str());
    if (run.config.trainer.log_rollouts)
      run.in_folder([&](RunFolder& folder) { folder.rollouts(m.step, trainer, *run.session.tokenizer, run.data); });
    end_step(run, m);
    if (!why.empty()) {
      if (run.saved != m.step) save(run);
      return why;
    }
  }
  return "";
}

/// The end of a run that a signal stopped: saves it as it is, unless that has been done.
int leave(Run& run) {
  const TrainerState& state = run.trainer.state();
  const bool open = state.now.stage != StepState::done;
  const bool evaluates = run.state.unwritten || !run.state.evaluation.empty();
  if (state.step == 0 && !open && !evaluates) {
    run.progress.line("interrupted before the first step began: nothing was trained, nothing is saved");
    return kExitInterrupted;
  }
  run.state.trainer = run.trainer.snapshot();
  run.state.stuck = run.stuck.state();
  std::string saved;
  if (finished(run) && run.saved == state.step && !open && !evaluates) {
    saved = run.checkpoints.finish();
  } else {
    run.in_folder([](RunFolder& folder) { folder.sync(); });
    saved = save_patiently(run.config.trainer.run_dir, *run.session.weights, run.progress, run.comm, [&] {
      run.checkpoints.save(run.trainer.learner(), run.state);
      return run.checkpoints.finish();
    });
  }
  run.progress.line(
      fmt::format("interrupted after step {}{}: saved in {}; the same command goes on from there", state.step,
                  !open ? evaluates ? " and in its evaluation, of which all that is drawn is kept" : ""
                  : state.now.stage == StepState::rollout
                      ? fmt::format(" and in the rollout of step {}, which is kept", state.step + 1)
                      : fmt::format(" and {} mini-batches of step {}", state.now.mini_batches, state.step + 1),
                  saved));
  return kExitInterrupted;
}

/// ", report in RUN/report.html"; "" and a note if it cannot be written.
std::string report_text(const RunFolder& run, TerminalProgress& progress) try {
  return ", report in " + write_report({run.path()}, "");
} catch (const Error& e) {
  progress.note(fmt::format("no report: {}", e.what()).c_str());
  return "";
}

/// What comes before the first step: the folder's checkpoints, what of the state the trainer does not know, the log.
void begin_run(Run& run, const Begin& begin, const Config& given, const std::string& about) {
  run.in_folder([&](RunFolder&) {
    tidy_checkpoints(begin);
    if (begin.checkpoint)
      run.checkpoints.prune(*begin.checkpoint, begin.state.best_step);  // where a crash came before it
  });
  const auto other_draws = [](const SettingChange& c) {
    return c.key == "eval.temperature" || c.key == "eval.top_p" || c.key == "eval.top_k";
  };
  if (!run.state.evaluation.empty() && std::ranges::any_of(changed_settings(run.state.settings, given), other_draws))
    run.state.evaluation.assign(1, {});  // still due, but nothing of it can be used
  run.state.settings = config_text(given);
  run.state.data = run.data.fingerprint();
  run.state.prompts = run.trainer.prompts_hash();
  run.state.template_time = jinja::template_time();
  run.state.trainer = {};
  run.in_folder([&](RunFolder& own) {
    run.progress.log_to(own.path() + "/log.txt", begin.replaces ? AppendFile::empty : AppendFile::end);
    run.progress.log(provenance_text(about));
  });
}

/// What it takes to run a refused update again: the weights and the trainer's state before it.
void save_replay(Run& run, const TrainerState& at) {
  run.state.trainer = at;
  const std::string to =
      fmt::format("{}/replays/step_{}-{}", run.config.trainer.run_dir, at.step + 1, at.now.mini_batches + 1);
  try {
    run.checkpoints.save_at(to, run.trainer.learner(), run.state);
    run.progress.note(fmt::format("to look into the refused update: dapo_train CONFIG --replay {}", to).c_str());
  } catch (const Error& e) {
    if (e.code() != kExitResources) throw;
    run.progress.note(e.what());
  }
  run.state.trainer = {};
}

/// After the last step: its checkpoint, the model and the report.
void save_result(Run& run, const std::string& stuck) {
  const std::string& run_dir = run.config.trainer.run_dir;
  const Weights& weights = *run.session.weights;
  if (!finished(run)) {
    run.owed = false;
    save_patiently(run_dir, weights, run.progress, run.comm, [&] {
      save(run);
      return run.checkpoints.finish();
    });
  }
  const int64_t step = run.trainer.state().step;
  const std::string saved = save_patiently(run_dir, weights, run.progress, run.comm, [&] {
    std::string to;
    run.with_model([&](RunFolder& own) { to = own.save_model(weights, run.grid.tensor, step, true); });
    return to;
  });
  if (run.first())
    run.progress.line(fmt::format("{} after step {}: model in {}{}", stuck.empty() ? "done" : "stopped", step, saved,
                                  report_text(*run.folder, run.progress)));
}

}  // namespace

int train(const Config& config, const Config& given, Session& s, Trainer& trainer, const Dataset& data,
          const std::vector<EvalSet>& val, const Begin& begin, const RunNotes& notes, TerminalProgress& progress,
          Ranks& ranks) {
  Comm& comm = ranks.comm();
  std::vector<std::string> files = config.data.train_files;
  for (const std::string& entry : config.data.val_files)
    for (const std::string& file : set_files(entry)) files.push_back(file);
  const std::string about = provenance("dapo_train", s.device, config.model.path, files, notes);
  const int64_t from = begin.checkpoint ? begin.checkpoint->step : RunFolder::kNothing;
  // First of all the folder: its lock and mark.
  std::unique_ptr<RunFolder> folder = comm.together([&] {
    return comm.rank() != 0 ? nullptr
                            : std::make_unique<RunFolder>(given, begin.replaces ? RunFolder::kNothing : from,
                                                          begin.state.unwritten.has_value(), about, progress);
  });
  Run run{.config = config,
          .session = s,
          .trainer = trainer,
          .data = data,
          .val = val,
          .progress = progress,
          .grid = ranks.grid(),
          .comm = comm,
          .folder = std::move(folder),
          .checkpoints = CheckpointWriter(config.trainer.run_dir, config.trainer.keep, config.model.path, about,
                                          progress, ranks.grid()),
          .stuck = StuckWatch(config, begin.state.stuck),
          .state = begin.state,
          .saved = from};
  begin_run(run, begin, given, about);
  ranks.log_to(config.trainer.run_dir);
  trainer.on_refused = [&run, written = 0](const TrainerState& at) mutable {
    constexpr int kMost = 3;  // a run; each has all weights
    if (written++ < kMost) save_replay(run, at);
  };
  progress.on_report = [&ranks](Phase phase) {
    ranks.phase(phase_name(phase));
    if (interrupted()) throw Interrupted("");
  };
  std::string stuck;
  try {
    stuck = train_loop(run);
  } catch (const Error& e) {
    if (e.code() != kExitInterrupted) {
      progress.log(e.what());
      throw;
    }
    run.stopped = true;
  }
  progress.on_report = nullptr;
  try {
    if (run.asked_to_stop() && !(trainer.done() && !run.state.unwritten)) return leave(run);
    save_result(run, stuck);
  } catch (const Error& e) {
    progress.log(e.what());
    throw;
  }
  if (!stuck.empty()) {
    progress.log(stuck);
    fail(kExitNumerics, "{}", stuck);
  }
  run.in_folder([](RunFolder& own) { own.finish(); });
  return run.asked_to_stop() ? kExitInterrupted : kExitOk;
}

}  // namespace dapo
