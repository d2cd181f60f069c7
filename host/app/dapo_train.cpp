// dapo_train: the DAPO loop from a config to a trained model.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>

#include "core/answers.h"
#include "core/check.h"
#include "core/choices.h"
#include "core/files.h"
#include "host/app/grid_choice.h"
#include "host/app/interrupt.h"
#include "host/app/plan.h"
#include "host/app/plan_cards.h"
#include "host/app/plan_grids.h"
#include "host/app/provenance.h"
#include "host/app/rank_start.h"
#include "host/app/report_error.h"
#include "host/app/resume.h"
#include "host/app/session.h"
#include "host/app/terminal.h"
#include "host/app/train_run.h"
#include "host/app/unmet.h"
#include "host/parallel/launch.h"
#include "host/train/prompts.h"
#include "host/train/share.h"
#include "host/train/step_text.h"
#include "host/train/trainer.h"
#include "tokenizer/jinja.h"

namespace dapo {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> settings;
  std::string resume = "auto", replay;
  bool check = false, plan = false, overwrite = false;
  int restarts = 0;
  std::string cards;  ///< --for: the machine to plan for
  std::string grids;  ///< --grids: the GPU to plan grids of
};

Dataset load_data(const Config& config) {
  DatasetOptions options = question_options(config.data);
  options.unique = config.data.unique;
  Dataset data = Dataset::load(config.data.train_files, options);
  check_ground_truths(data, config.reward.verifier);
  return data;
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
  std::string answer = data[first.examples[0]].answer;
  for (size_t at; (at = answer.find(kAnswerSeparator)) != answer.npos;) answer.replace(at, 1, " or ");
  return fmt::format("{}\n  ground truth: {}", shown_tokens("first prompt", tokenizer, first.ids[0]), answer);
}

std::string line_of(const std::string& text) {
  return text.empty() ? "" : text + "\n";
}

/// --plan --for: needs neither the machine nor the files.
int plan_for_cards(const Config& config, const Options& o) {
  const ModelConfig shape = find_model(config.model.path).config;
  check_positions(shape, config.model.path, config.data.max_prompt_length, config.data.max_response_length);
  const CardsText plan = plan_cards_text(config, shape, parse_cards(o.cards));
  print_out(derived_numbers(config) + plan.text);
  return plan.fits ? kExitOk : kExitResources;
}

/// In a run whose ranks have been started again the folder holds what the ranks before have written: their last
/// checkpoint, or nothing that is worth keeping.
Begin first_begin(const Config& config, const Options& o) {
  const Overwrite given = o.overwrite ? Overwrite::yes : Overwrite::no;
  if (!restarted()) return find_begin(config, o.resume, given);
  if (checkpoints_of(config.trainer.run_dir).empty()) return find_begin(config, o.resume, Overwrite::yes);
  return find_begin(config, "auto", Overwrite::no);
}

/// Where the run begins. The first rank decides, as it alone may lock the run's folder; the others read the same state.
Begin begin_of(const Config& config, const Options& o, Comm& comm) {
  Begin begin = comm.together([&] { return comm.rank() == 0 ? first_begin(config, o) : Begin(); });
  if (comm.size() == 1) return begin;
  ByteWriter out;
  out.put(begin.checkpoint.has_value()), out.put(begin.replaces);
  const Checkpoint own = begin.checkpoint.value_or(Checkpoint());
  out.put(own.step), out.put(own.open), out.put(own.folder);
  const std::string bytes = comm.broadcast_bytes(out.bytes(), 0);
  comm.together([&] {
    if (comm.rank() == 0) return;
    ByteReader in(bytes);
    const bool resumes = in.get<bool>();
    in.get(begin.replaces);
    Checkpoint c;
    in.get(c.step), in.get(c.open), in.get(c.folder);
    if (!resumes) return;
    begin.state = read_state(c.folder);
    begin.checkpoint = std::move(c);
  });
  return begin;
}

/// Where the run begins; nowhere for --plan and --check, at a refused update for --replay.
Begin begin_for(const Config& config, const Options& o, Comm& comm) {
  if (o.replay.empty()) return o.plan || o.check ? Begin() : begin_of(config, o, comm);
  if (comm.size() > 1) fail_input("--replay runs on one rank: give it --set parallel.dp=1 --set parallel.tp=1");
  return read_begin(config, o.replay);
}

/// The date that prompts may hold: the run's, the same on all ranks.
void set_date(const Begin& begin, Comm& comm) {
  const std::time_t time = begin.checkpoint ? std::time_t{begin.state.template_time} : jinja::template_time();
  jinja::set_template_time(std::stoll(comm.broadcast_bytes(std::to_string(time), 0)));
}

/// Chooses what of the grid is left to choose, and connects it if all its ranks are here (--plan has one).
void fit_grid(Config& config, const ModelConfig& shape, ChosenBackend& chosen, Ranks& ranks) {
  Comm& comm = ranks.comm();
  const int all = config.parallel.ranks();
  comm.together([&] { choose_grid(config, shape, *chosen.backend, all); });
  config.parallel.tp = value_of_first(comm, config.parallel.tp);
  config.parallel.dp = all / config.parallel.tp;
  if (comm.size() != all) return;
  ranks.split(config.parallel.tp);
  connect_devices(chosen, ranks.grid(), config.parallel.transport);
}

/// --plan and --check: how the run would go on this machine.
void print_plan(const Config& config, const ModelConfig& shape, const RunPlan& plan, const ChosenBackend& chosen) {
  const MeasuredCeilings measured = machine_ceilings(*chosen.backend);
  chosen.backend->prepare_products(weight_shapes(parameter_table(shape, plan.limits.tensor)),
                                   most_product_rows(plan.limits));
  chosen.backend->prepare_attention(shape.attention(), plan.limits.pack_tokens);
  print_out(fmt::format("{}\n{}{}{}", chosen.why, line_of(chosen.backend->products_text()), derived_numbers(config),
                        plan_text(plan, config, shape, *chosen.backend, measured)));
}

int refuse_too_large(const Config& config, const ModelConfig& shape, const RunPlan& plan, Backend& backend,
                     const std::string& file) {
  print_out(too_large_text(file, plan, config, shape, backend, machine_ceilings(backend)));
  for (const std::string& missing : missing_inputs(config)) print_out(fmt::format("not here: {}\n", missing));
  return kExitResources;
}

/// Training and test problems, with ground truths that the verifier can read.
struct Problems {
  Dataset train;
  std::vector<EvalSet> val;
};

Problems load_problems(const Config& config, const std::string& file, Comm& comm) {
  Problems r;
  r.train = comm.together([&] {
    if (const auto missing = missing_inputs(config); !missing.empty())
      fail_input("{}: not here: {}", file, fmt::join(missing, ", "));
    return load_data(config);
  });
  r.val = comm.together([&] {
    try_commands(config.reward, r.train[0]);
    std::vector<EvalSet> sets = load_eval_sets(config.data);
    for (const EvalSet& set : sets) check_ground_truths(set.data, config.reward.verifier);
    return sets;
  });
  return r;
}

/// The first lines of a run: device, stop ids, date, data. `unmet`: what of the settings the machine cannot do.
void announce(const Config& config, const Options& o, const Session& s, Trainer& trainer, const Problems& problems,
              std::vector<std::string> unmet, TerminalProgress& progress) {
  if (!o.check) {
    progress.line(s.device);
    if (const std::string products = s.backend->products_text(); !products.empty()) progress.line(products);
  }
  progress.line(stop_text(trainer.rollout().stop(), *s.tokenizer));
  if (const std::string date = PromptEncoder(config.data, config.model.path, *s.tokenizer).date_text(); !date.empty())
    progress.line(date);
  progress.line(fmt::format("{}{}; {} parameters", rows_text(config, problems.train, trainer),
                            test_rows_text(problems.val),
                            count_text(static_cast<double>(s.weights->config().parameters()))));
  for (const std::string& text : unmet_rows(config, problems.train)) unmet.push_back(text);
  for (const std::string& text : unmet) progress.note(text.c_str());
}

int run(const Options& o, Ranks& ranks) {
  Comm& comm = ranks.comm();
  Config config = load_config(o.config, o.settings);
  if (!o.grids.empty()) return print_out(plan_grids_text(config, *parse_cards(o.grids).gpu)), kExitOk;
  if (!o.cards.empty()) return plan_for_cards(config, o);
  if (config.parallel.dp == 0)
    resolve_ranks(config.parallel, o.plan && comm.size() == 1 ? ranks_of_machine(config.model) : comm.size());
  ChosenBackend chosen = rank_backend(config, ranks);
  const ModelConfig shape = comm.together([&] {
    ModelConfig found = find_model(config.model.path).config;
    check_positions(found, config.model.path, config.data.max_prompt_length, config.data.max_response_length);
    return found;
  });
  Begin begin = begin_for(config, o, comm);
  set_date(begin, comm);
  const Config given = config;  // before it is fitted to this machine's memory
  fit_grid(config, shape, chosen, ranks);
  const RunPlan plan = comm.together([&] { return make_plan(config, shape, *chosen.backend); });
  // The ranks may find different amounts of memory: the first one's pages, and only if all fit.
  config.rollout.kv_memory_gb = value_of_first(comm, config.rollout.kv_memory_gb);
  if (value_of_any(comm, !plan.fits())) return refuse_too_large(config, shape, plan, *chosen.backend, o.config);
  const std::vector<std::string> unmet =
      unmet_settings(given, config, kv_gb(plan.limits, shape, *chosen.backend), *chosen.backend);
  if (o.plan || o.check) print_plan(config, shape, plan, chosen);
  if (o.plan) {
    for (const std::string& text : unmet) print_out(fmt::format("  note: {}\n", text));
    return kExitOk;
  }
  const Problems problems = load_problems(config, o.config, comm);
  RunNotes notes;
  if (!o.check && o.replay.empty()) {
    const MeasuredCeilings measured = machine_ceilings(*chosen.backend);
    notes = {measured.ceilings.flops / 1e9, plan_text(plan, config, shape, *chosen.backend, measured)};
  }
  Session s = comm.together([&] {
    return open_session(config.model.path, std::move(chosen), Start::folder, 1, 0, Tokens::need, begin.weights());
  });
  compare_inputs(ranks, problems.train, begin.weights().empty() ? config.model.path : begin.weights(), *s.backend);
  const std::unique_ptr<Weights> reference = comm.together([&] { return open_reference(reference_folder(config), s); });
  TerminalProgress progress(config.trainer.total_steps, !o.check);
  Trainer trainer(config, *s.weights, *s.tokenizer, problems.train, progress, &ranks.grid(), s.data.get());
  if (reference) trainer.use_reference(*reference);
  announce(config, o, s, trainer, problems, unmet, progress);
  if (o.check) {
    progress.line(check_text(config, *s.tokenizer, problems.train));
    progress.line("everything loads; nothing was trained (--check)");
    return kExitOk;
  }
  catch_interrupts();
  for (const std::string& note : begin.notes) progress.note(note.c_str());
  if (begin.checkpoint) {
    check_same_data(begin.state, problems.train.fingerprint(), trainer.prompts_hash());
    comm.together([&] { load_optimizer(trainer.learner(), begin.checkpoint->folder); });
    trainer.restore(std::exchange(begin.state.trainer, {}));
    if (!o.replay.empty()) {
      const std::string found = trainer.replay();
      print_out(found.empty() ? "every number is finite\n" : found);
      return found.empty() ? kExitOk : kExitNumerics;
    }
    progress.line(fmt::format("goes on from {}", begin.checkpoint->folder));
  }
  return train(config, given, s, trainer, problems.train, problems.val, begin, notes, progress, ranks);
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
  CLI::Option* plan =
      app.add_flag("--plan", o.plan, "print memory by arena, and work and time of a step by phase; load nothing");
  app.add_option("--for", o.cards,
                 "with --plan: for other machines, such as 8xh100 (a100, h100, h200, rtx4090, with or without a count)")
      ->needs(plan);
  app.add_option("--grids", o.grids,
                 "with --plan: the smallest grid of every known model on 1 to 128 of these GPUs, trained as the config "
                 "says")
      ->needs(plan);
  app.add_option("--resume", o.resume,
                 "auto (default): go on with the run in trainer.run_dir, if it holds one; no: do not; or the folder of "
                 "a checkpoint to go on from");
  app.add_option(
      "--replay", o.replay,
      "run the mini-batch in this folder (RUN/replays/step_N-K) again and say where its numbers are not finite");
  app.add_option("--restarts", o.restarts,
                 "start the ranks again up to so many times when one is lost (exit code 5); they go on from the last "
                 "checkpoint (docs/parallel.md)")
      ->check(CLI::NonNegativeNumber);
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
      "learn from (saved), 5 a rank died or hangs, 130 interrupted (saved).");
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
    const bool plans = o.plan || !o.cards.empty() || !o.grids.empty();
    return dapo::start_ranks(o.config, o.settings, {argv + 1, argv + argc}, plans, o.restarts,
                             [&](dapo::Ranks& ranks) { return dapo::run(o, ranks); });
  });
}
