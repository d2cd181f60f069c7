#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/check.h"
#include "host/app/commands.h"
#include "host/app/interrupt.h"
#include "host/app/response_lines.h"
#include "host/app/session.h"
#include "host/app/terminal.h"
#include "host/app/unmet.h"
#include "host/train/evaluate.h"
#include "host/train/limits.h"
#include "host/train/prompts.h"
#include "host/train/reward.h"
#include "host/train/step_text.h"
#include "model/decode.h"

namespace dapo {
namespace {

/// What the positional arguments are.
struct Inputs {
  std::string config;
  std::vector<std::string> models;  ///< none: the config's
};

Inputs sort_inputs(const EvalOptions& o) {
  Inputs in;
  if (!o.model.empty()) in.models.push_back(o.model);
  std::error_code ignored;
  for (const std::string& name : o.given) {
    if (!name.ends_with(".cfg") && !std::filesystem::is_regular_file(name, ignored)) {
      in.models.push_back(name);
      continue;
    }
    if (!in.config.empty()) fail_input("{} and {}: one config at most; models are folders", in.config, name);
    in.config = name;
  }
  if (in.models.size() > 2) fail_input("{}: two models at most can be compared", fmt::join(in.models, ", "));
  return in;
}

Config eval_config(const EvalOptions& o, const Inputs& in) {
  if (!in.config.empty()) {
    std::vector<std::string> settings = o.settings;
    if (!in.models.empty()) settings.push_back("model.path=" + in.models[0]);
    if (!o.data.empty()) settings.push_back("data.val_files=" + nlohmann::json(o.data).dump());
    return load_config(in.config, settings, Use::eval);
  }
  Config config;
  if (!in.models.empty()) config.model.path = in.models[0];
  config.data.val_files = o.data;
  config.data.max_response_length = 2048;
  apply_settings(config, o.settings);
  check_config(config, Use::eval, "dapo eval");
  return config;
}

/// Loads the model of `config` and evaluates it. Its responses go to `out`, if there is one; `name`: in its lines.
EvalResult evaluate_model(const Config& config, const std::vector<EvalSet>& sets, TerminalProgress& progress,
                          LineWriter* out, const std::string& name) {
  ChosenBackend chosen = make_backend(config.model.device, config.model.dtype, config.model.threads);
  Session s = open_session(config.model.path, std::move(chosen));
  const PromptEncoder encoder(config.data, config.model.path, *s.tokenizer);
  const std::vector<int32_t> stop = encoder.stop_ids(s.weights->config(), encoder.encode(sets[0].data[0]));
  ModelMemory memory(*s.weights, generation_limits(config, s.weights->config(), *s.backend,
                                                   config.data.max_prompt_length + config.data.max_response_length,
                                                   config.rollout.max_num_seqs));
  Decoder decoder(memory);
  progress.line(s.device);
  progress.line(stop_text(stop, *s.tokenizer));
  if (const std::string date = encoder.date_text(); !date.empty()) progress.line(date);
  Rollout rollout(decoder, stop);
  EvalResult result = evaluate(config, rollout, *s.tokenizer, sets, progress);
  progress.line(eval_text(result));
  JsonLine line;
  if (!name.empty()) line.add("model", name);
  for (const auto& [field, value] : result.fields()) line.add(field, value);
  progress.line(line.str());
  if (out != nullptr) write_responses(*out, result, *s.tokenizer, name);
  return result;
}

void report_comparison(const EvalResult& baseline, const EvalResult& model, const std::vector<std::string>& models,
                       TerminalProgress& progress) {
  JsonLine line;
  line.add("model", models[1]).add("baseline", models[0]);
  const bool several = model.sets.size() > 1;
  for (size_t i = 0; i < model.sets.size(); ++i) {
    const Comparison c = compare(baseline.sets[i], model.sets[i]);
    progress.line(
        fmt::format("{} against {}{}: {}", models[1], models[0], several ? ", " + c.name : "", comparison_text(c)));
    const std::string prefix = several ? "difference/" + c.name + "/" : "difference/";
    line.add(prefix + "avg", c.difference.mean).add(prefix + "low", c.difference.low);
    line.add(prefix + "high", c.difference.high).add(prefix + "problems", c.problems);
    line.add(prefix + "better", c.better).add(prefix + "worse", c.worse);
  }
  progress.line(line.str());
}

}  // namespace

int run_eval_command(const EvalOptions& o) {
  const Inputs in = sort_inputs(o);
  Config config = eval_config(o, in);
  check_output(o.out, config.data.val_files);
  const std::vector<EvalSet> sets = load_eval_sets(config.data);
  for (const EvalSet& set : sets) check_ground_truths(set.data, config.reward.verifier);
  try_commands(config.reward, sets[0].data[0]);
  TerminalProgress progress(0);
  catch_interrupts();
  if (const std::string text = unmet_pass_k(config.eval); !text.empty()) progress.note(text.c_str());
  for (const std::string& model : in.models) find_model(model);  // the second, too, before hours of work on the first
  std::optional<LineWriter> out;  // opened now, so that hours of work are not lost to a missing folder
  if (!o.out.empty()) out.emplace(o.out);
  LineWriter* to = out ? &*out : nullptr;
  progress.on_report = [](Phase) {
    if (interrupted()) throw Interrupted("interrupted: the evaluation is not complete, so nothing is reported");
  };
  const bool two = in.models.size() == 2;
  const EvalResult first = evaluate_model(config, sets, progress, to, two ? in.models[0] : "");
  if (two) {
    config.model.path = in.models[1];
    report_comparison(first, evaluate_model(config, sets, progress, to, in.models[1]), in.models, progress);
  }
  if (out) out->commit();
  return kExitOk;
}

}  // namespace dapo
