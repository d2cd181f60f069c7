#include <fmt/format.h>

#include "core/check.h"
#include "host/commands.h"
#include "host/evaluate.h"
#include "host/jsonl.h"
#include "host/progress.h"
#include "host/session.h"
#include "host/trainer.h"

namespace dapo {
namespace {

Config eval_config(const EvalOptions& o) {
  if (!o.config.empty()) {
    std::vector<std::string> settings = o.settings;
    if (!o.model.empty()) settings.push_back("model.path=" + o.model);
    Config config = load_config(o.config, settings, Use::eval);
    if (!o.data.empty()) config.data.val_files = o.data;
    return config;
  }
  Config config;
  config.model.path = o.model;
  config.data.val_files = o.data;
  config.data.max_response_length = 2048;
  apply_settings(config, o.settings);
  check_inputs(config, Use::eval, "dapo eval");
  return config;
}

void write_responses(const std::string& path, const EvalResult& result, const Tokenizer& tokenizer) {
  LineWriter out(path);
  for (const EvalProblem& p : result.all)
    for (size_t i = 0; i < p.responses.size(); ++i)
      out.line(JsonLine()
                   .add("row", int64_t{p.row})
                   .add("sample", static_cast<int64_t>(i))
                   .add("response", tokenizer.decode(p.responses[i].ids))
                   .add("acc", p.verdicts[i].acc)
                   .add("pred", p.verdicts[i].pred)
                   .add("reason", p.verdicts[i].reason)
                   .add("tokens", static_cast<int64_t>(p.responses[i].ids.size()))
                   .add("finish_reason", finish_name(p.responses[i].finish))
                   .str());
  out.commit();
}

}  // namespace

int run_eval_command(const EvalOptions& o) {
  const Config config = eval_config(o);
  ChosenBackend chosen = make_backend(config.model.device, config.model.dtype, config.model.threads);
  DatasetOptions options;
  options.prompt_key = config.data.prompt_key;
  options.answer_key = config.data.answer_key;
  options.need_answer = true;
  Dataset data = Dataset::load(config.data.val_files, options);
  Session s = open_session(config.model.path, std::move(chosen));
  const std::vector<int32_t> stop = stop_ids(s.model->config(), config.model.path);
  s.model->reserve(generation_limits(config, s.model->config(), *s.backend,
                                     config.data.max_prompt_length + config.data.max_response_length,
                                     config.rollout.max_num_seqs));
  TerminalProgress progress(0);
  progress.line(s.device);
  Rollout rollout(*s.model, stop);
  const EvalResult result = evaluate(config, rollout, *s.tokenizer, std::move(data), progress);
  if (!o.out.empty()) write_responses(o.out, result, *s.tokenizer);
  progress.line(eval_text(result, -1));
  JsonLine line;
  for (const auto& [name, value] : result.fields()) line.add(name, value);
  progress.line(line.str());
  return kExitOk;
}

}  // namespace dapo
