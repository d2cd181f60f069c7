#include "host/train/evaluate.h"

#include <algorithm>
#include <future>

#include "core/nvtx.h"
#include "host/train/limits.h"
#include "host/train/passk.h"
#include "host/train/prompts.h"

namespace dapo {
namespace {

/// The problems to answer, as requests; more responses than the batch holds are split over several of a problem.
std::vector<Request> make_requests(const Config& config, const Dataset& data, const Tokenizer& tokenizer,
                                   const Rollout& rollout, EvalResult& result) {
  const PromptEncoder encoder(config.data, config.model.path, tokenizer);
  std::vector<Request> requests;
  for (size_t row = 0; row < data.size(); ++row) {
    if (config.eval.max_problems > 0 && static_cast<int>(result.all.size()) == config.eval.max_problems) break;
    const std::vector<int32_t> ids = encoder.encode(data[row]);
    if (ids.empty() || static_cast<int>(ids.size()) > config.data.max_prompt_length) {
      if (config.data.overlong_prompts == OverlongPrompts::error)
        fail_input("evaluation row {}: a prompt of {} tokens, data.max_prompt_length is {}", data[row].id, ids.size(),
                   config.data.max_prompt_length);
      ++result.prompts_dropped;
      continue;
    }
    check_positions(rollout.model(), config.model.path, static_cast<int64_t>(ids.size()),
                    config.data.max_response_length);
    const int64_t problem = static_cast<int64_t>(result.all.size());
    for (int first = 0; first < config.eval.n; first += rollout.batch()) {
      Request r;
      r.id = problem;
      r.prompt = ids;
      r.samples = std::min(config.eval.n - first, rollout.batch());
      r.max_new = config.data.max_response_length;
      r.step = kEvalStep;
      r.prompt_key = static_cast<int32_t>(row);
      r.first_sample = first;
      requests.push_back(std::move(r));
    }
    result.all.push_back({static_cast<int32_t>(row), data[row].id, {}, {}, ids, data[row].answer});
  }
  if (result.all.empty()) fail_input("nothing to evaluate: {} rows, {} dropped", data.size(), result.prompts_dropped);
  return requests;
}

void summarize(const Config& config, EvalResult& r) {
  std::vector<double> means;
  double length = 0, cut = 0, responses = 0;
  for (int k : config.eval.pass_k)
    if (k <= config.eval.n) r.pass.emplace_back(k, 0.0);
  for (const EvalProblem& p : r.all) {
    const int n = static_cast<int>(p.verdicts.size());
    int right = 0;
    for (const Verdict& v : p.verdicts) {
      right += v.acc;
      r.verifier_errors += v.error;
    }
    for (const Response& a : p.responses) {
      length += static_cast<double>(a.ids.size());
      cut += a.finish == Finish::length;
      ++responses;
    }
    means.push_back(static_cast<double>(right) / n);
    for (auto& [k, value] : r.pass) value += pass_at_k(n, right, k) / static_cast<double>(r.all.size());
    r.maj += majority_of(p.verdicts) / static_cast<double>(r.all.size());
  }
  const Estimate e = estimate(means);
  r.avg = e.mean;
  r.low = e.low;
  r.high = e.high;
  r.length_mean = length / responses;
  r.truncated = cut / responses;
}

}  // namespace

double majority_of(const std::vector<Verdict>& verdicts) {
  std::vector<Vote> votes;
  for (const Verdict& v : verdicts) votes.push_back({v.found ? v.pred : "", v.acc});
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
  std::vector<Request> requests = make_requests(config, data, tokenizer, rollout, result);
  result.problems = static_cast<int64_t>(result.all.size());

  Sampling sampling;
  sampling.temperature = config.eval.temperature;
  sampling.top_p = config.eval.top_p;
  sampling.top_k = config.eval.top_k;
  sampling.seed = config.trainer.seed;
  rollout.begin(sampling);
  std::vector<std::pair<size_t, std::future<std::vector<Verdict>>>> verdicts(requests.size());
  std::vector<std::vector<Response>> parts(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    verdicts[i].first = static_cast<size_t>(requests[i].id);
    requests[i].id = static_cast<int64_t>(i);
    rollout.add(std::move(requests[i]));
  }
  while (rollout.busy()) {
    for (Group& g : rollout.advance()) {
      const size_t i = static_cast<size_t>(g.id), row = static_cast<size_t>(result.all[verdicts[i].first].row);
      verdicts[i].second = reward.judge(g.responses, data[row].answer);
      parts[i] = std::move(g.responses);
    }
    progress.report(Phase::eval, rollout.stats().finished, result.problems * result.n, rollout.stats().drawn_tokens);
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    EvalProblem& p = result.all[verdicts[i].first];
    std::vector<Verdict> v = verdicts[i].second.get();
    std::move(v.begin(), v.end(), std::back_inserter(p.verdicts));
    std::move(parts[i].begin(), parts[i].end(), std::back_inserter(p.responses));
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

std::vector<std::pair<std::string, double>> EvalResult::fields() const {
  std::vector<std::pair<std::string, double>> f = {{"eval/problems", static_cast<double>(problems)},
                                                   {"eval/n", static_cast<double>(n)},
                                                   {"eval/avg", avg},
                                                   {"eval/low", low},
                                                   {"eval/high", high},
                                                   {"eval/maj", maj}};
  for (const auto& [k, value] : pass) f.emplace_back(fmt::format("eval/pass@{}", k), value);
  f.insert(f.end(), {{"eval/length_mean", length_mean},
                     {"eval/truncated", truncated},
                     {"eval/verifier_errors", static_cast<double>(verifier_errors)},
                     {"eval/prompts_dropped", static_cast<double>(prompts_dropped)},
                     {"eval/seconds", seconds},
                     {"eval/tokens", static_cast<double>(tokens)}});
  return f;
}

}  // namespace dapo
