#include "host/train/evaluate.h"

#include <algorithm>

#include "core/nvtx.h"
#include "host/train/draw.h"
#include "host/train/encode_prompts.h"
#include "host/train/limits.h"
#include "host/train/passk.h"

namespace dapo {
namespace {

/// The problems as groups without samples; their draws are keyed by the example's index.
std::vector<Group> prompts_of(const Config& config, const Dataset& data, const Tokenizer& tokenizer,
                              const ModelConfig& model, EvalResult& result) {
  const PromptEncoder encoder(config.data, config.model.path, tokenizer);
  const size_t most = config.eval.max_problems > 0 ? config.eval.max_problems : data.size();
  EncodedPrompts prompts = encode_prompts(config.data, encoder, data, "evaluation", most);
  result.prompts_dropped = prompts.dropped;
  std::vector<Group> groups;
  for (size_t i = 0; i < prompts.ids.size(); ++i) {
    std::vector<int32_t>& ids = prompts.ids[i];
    const int32_t example = prompts.examples[i];
    check_positions(model, config.model.path, ids.size(), config.data.max_response_length);
    groups.push_back(
        {.example = example, .step = kEvalStep, .prompt_key = example, .prompt = std::move(ids), .samples = {}});
  }
  return groups;
}

void summarize(const Config& config, EvalResult& r) {
  std::vector<double> means;
  double length = 0, truncated = 0, responses = 0;
  for (int k : config.eval.pass_k)
    if (k <= config.eval.n) r.pass.emplace_back(k, 0.0);
  const double problems = r.all.size();
  for (const EvalProblem& p : r.all) {
    const int n = p.group.samples.size(), right = p.group.correct();
    for (const Sample& s : p.group.samples) {
      r.verifier_errors += s.verdict.error;
      length += s.response.ids.size();
      truncated += s.response.finish == Finish::length;
    }
    responses += n;
    means.push_back(double(right) / n);
    for (auto& [k, value] : r.pass) value += pass_at_k(n, right, k) / problems;
    r.maj += majority_of(p.group.samples) / problems;
  }
  const Estimate e = estimate(means);
  r.avg = e.mean;
  r.low = e.low;
  r.high = e.high;
  r.length_mean = length / responses;
  r.truncated = truncated / responses;
}

}  // namespace

double majority_of(const std::vector<Sample>& samples) {
  std::vector<Vote> votes;
  votes.reserve(samples.size());
  for (const Sample& s : samples) votes.push_back({s.verdict.found ? s.verdict.pred : "", s.verdict.acc});
  return majority(votes);
}

EvalResult evaluate(const Config& config, Rollout& rollout, const Tokenizer& tokenizer, Dataset data,
                    Progress& progress) {
  const NvtxRange range("eval");
  const Stopwatch watch;
  if (config.eval.dedupe) {
    const DedupeReport report = data.dedupe();
    if (report.rows != report.problems) progress.note(report.text().c_str());
  }
  EvalResult result;
  result.n = config.eval.n;
  Reward reward(config.reward, tokenizer);
  std::vector<Group> groups = prompts_of(config, data, tokenizer, rollout.model(), result);
  result.problems = groups.size();

  const EvalSection& e = config.eval;
  rollout.begin({.temperature = e.temperature, .top_k = e.top_k, .top_p = e.top_p, .seed = config.trainer.seed});
  draw_and_judge(groups, data, {e.n, config.data.max_response_length, Phase::eval}, rollout, reward, progress);
  for (Group& g : groups) {
    const Example& example = data[g.example];
    result.all.push_back({example.id, example.answer, std::move(g)});
  }
  summarize(config, result);
  if (result.problems > 1 && result.avg == 0)
    progress.note(fmt::format("not one of {} responses is right: verifier ({}), template or suffix?",
                              result.problems * result.n, config.reward.verifier)
                      .c_str());
  result.tokens = rollout.stats().drawn_tokens;
  result.seconds = watch.seconds();
  return result;
}

}  // namespace dapo
