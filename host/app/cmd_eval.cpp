#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "core/check.h"
#include "host/app/commands.h"
#include "host/app/interrupt.h"
#include "host/app/json_lines.h"
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

Config eval_config(const EvalOptions& o) {
  if (!o.config.empty()) {
    std::vector<std::string> settings = o.settings;
    if (!o.model.empty()) settings.push_back("model.path=" + o.model);
    if (!o.data.empty()) settings.push_back("data.val_files=" + nlohmann::json(o.data).dump());
    return load_config(o.config, settings, Use::eval);
  }
  Config config;
  config.model.path = o.model;
  config.data.val_files = o.data;
  config.data.max_response_length = 2048;
  apply_settings(config, o.settings);
  check_config(config, Use::eval, "dapo eval");
  return config;
}

void write_responses(LineWriter& out, const EvalResult& result, const Tokenizer& tokenizer) {
  for (const EvalProblem& p : result.all)
    for (size_t i = 0; i < p.group.samples.size(); ++i) {
      const Response& response = p.group.samples[i].response;
      const Verdict& verdict = p.group.samples[i].verdict;
      out.line(JsonLine()
                   .add("id", p.id)
                   .add("sample", int64_t(i))
                   .add("prompt", tokenizer.decode(p.group.prompt, false))
                   .add("response", tokenizer.decode(response.shown()))
                   .add("ground_truth", p.ground_truth)
                   .add("acc", verdict.acc)
                   .add("pred", verdict.pred)
                   .add("reason", verdict.reason)
                   .add("tokens", std::ssize(response.ids))
                   .add("finish_reason", finish_name(response.finish))
                   .add("prompt_ids", p.group.prompt)
                   .add("ids", response.ids)
                   .str());
    }
  out.commit();
}

}  // namespace

int run_eval_command(const EvalOptions& o) {
  const Config config = eval_config(o);
  ChosenBackend chosen = make_backend(config.model.device, config.model.dtype, config.model.threads);
  Dataset data = Dataset::load(config.data.val_files, question_options(config.data));
  try_commands(config.reward, data[0]);
  Session s = open_session(config.model.path, std::move(chosen));
  const PromptEncoder encoder(config.data, config.model.path, *s.tokenizer);
  const std::vector<int32_t> stop = encoder.stop_ids(s.weights->config(), encoder.encode(data[0]));
  ModelMemory memory(*s.weights, generation_limits(config, s.weights->config(), *s.backend,
                                                   config.data.max_prompt_length + config.data.max_response_length,
                                                   config.rollout.max_num_seqs));
  Decoder decoder(memory);
  TerminalProgress progress(0);
  catch_interrupts();
  progress.line(s.device);
  if (const std::string text = unmet_pass_k(config.eval); !text.empty()) progress.note(text.c_str());
  progress.line(stop_text(stop, *s.tokenizer));
  if (const std::string date = encoder.date_text(); !date.empty()) progress.line(date);
  Rollout rollout(decoder, stop);
  std::optional<LineWriter> out;  // opened now, so that hours of work are not lost to a missing folder
  if (!o.out.empty()) out.emplace(o.out);
  progress.on_report = [](Phase) {
    if (interrupted()) throw Interrupted("interrupted: the evaluation is not complete, so nothing is reported");
  };
  const EvalResult result = evaluate(config, rollout, *s.tokenizer, std::move(data), progress);
  progress.line(eval_text(result));
  JsonLine line;
  for (const auto& [name, value] : result.fields()) line.add(name, value);
  progress.line(line.str());
  if (out) write_responses(*out, result, *s.tokenizer);
  return kExitOk;
}

}  // namespace dapo
