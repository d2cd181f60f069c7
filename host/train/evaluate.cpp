#include "host/train/evaluate.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>

#include "core/nvtx.h"
#include "host/train/draw.h"
#include "host/train/encode_prompts.h"
#include "host/train/limits.h"
#include "host/train/reward.h"

namespace dapo {
namespace {

/// The problems as groups without samples; their draws are keyed by the example's index.
std::vector<Group> prompts_of(const Config& config, const Dataset& data, const Tokenizer& tokenizer,
                              const ModelConfig& model, SetResult& result) {
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

/// Gives the groups what an interrupted evaluation has drawn of the same prompts.
void go_on(std::vector<Group>& groups, std::vector<Group>& drawn, int samples) {
  std::map<int32_t, Group*> by_example;
  for (Group& g : drawn) by_example[g.example] = &g;
  for (Group& g : groups) {
    const auto before = by_example.find(g.example);
    if (before == by_example.end() || before->second->prompt != g.prompt) continue;
    g.samples = std::move(before->second->samples);
    g.samples.resize(samples);
  }
  drawn.clear();
}

void summarize(const Config& config, SetResult& r) {
  std::vector<double> avg, maj;
  std::vector<std::pair<int, std::vector<double>>> pass, maj_k;
  double length = 0, truncated = 0, responses = 0;
  for (int k : config.eval.pass_k)
    if (k <= config.eval.n) pass.emplace_back(k, std::vector<double>());
  for (int k : config.eval.pass_k)  // maj@1 is avg@n
    if (k > 1 && k < config.eval.n) maj_k.emplace_back(k, std::vector<double>());
  for (const EvalProblem& p : r.all) {
    const int n = p.group.samples.size(), right = p.group.correct();
    for (const Sample& s : p.group.samples) {
      r.verifier_errors += s.verdict.error;
      length += s.response.ids.size();
      r.tokens += std::ssize(s.response.ids);
      truncated += s.response.finish == Finish::length;
    }
    responses += n;
    avg.push_back(double(right) / n);
    for (auto& [k, values] : pass) values.push_back(pass_at_k(n, right, k));
    const std::vector<Vote> votes = votes_of(p.group.samples);
    maj.push_back(majority(votes));
    for (auto& [k, values] : maj_k) values.push_back(majority_at_k(votes, k));
  }
  r.avg = estimate(avg);
  for (const auto& [k, values] : pass) r.pass.emplace_back(k, estimate(values));
  for (const auto& [k, values] : maj_k) r.maj_k.emplace_back(k, estimate(values));
  r.maj = estimate(maj);
  r.length_mean = length / responses;
  r.truncated = truncated / responses;
}

/// What deserves attention: responses that could not be judged, and none that is right.
void note_oddities(const Config& config, const SetResult& r, Progress& progress) {
  const auto note = [&](const std::string& text) { progress.note(text.c_str()); };
  if (r.verifier_errors > 0)
    for (const EvalProblem& p : r.all) {
      const auto first = std::ranges::find_if(p.group.samples, [](const Sample& s) { return s.verdict.error; });
      if (first == p.group.samples.end()) continue;
      note(fmt::format("the verifier could not judge {} of {} responses, which count as wrong; the first {}",
                       r.verifier_errors, r.problems * r.n, first->verdict.reason));
      break;
    }
  if (r.problems > 1 && r.avg.mean == 0)
    note(fmt::format("not one of {} responses is right: verifier ({}), template or suffix?", r.problems * r.n,
                     config.reward.verifier));
}

}  // namespace

std::vector<Vote> votes_of(const std::vector<Sample>& samples) {
  std::vector<Vote> votes;
  votes.reserve(samples.size());
  for (const Sample& s : samples) votes.push_back({s.verdict.found ? s.verdict.pred : "", s.verdict.acc});
  return votes;
}

EvalResult evaluate(const Config& config, Rollout& rollout, const Tokenizer& tokenizer, std::span<const EvalSet> sets,
                    Progress& progress, const Grid* grid, DrawnSets* drawn) {
  const NvtxRange range("eval");
  EvalResult result;
  if (drawn) drawn->resize(sets.size());
  for (size_t i = 0; i < sets.size(); ++i) try {
      result.sets.push_back(
          evaluate_set(config, rollout, tokenizer, sets[i], progress, grid, drawn ? &(*drawn)[i] : nullptr));
    } catch (const Error& e) {
      if (!drawn || e.code() != kExitInterrupted) throw;
      for (size_t done = 0; done < i; ++done)
        for (EvalProblem& p : result.sets[done].all) (*drawn)[done].push_back(std::move(p.group));
      throw;
    }
  if (drawn) drawn->clear();
  return result;
}

SetResult evaluate_set(const Config& config, Rollout& rollout, const Tokenizer& tokenizer, const EvalSet& set,
                       Progress& progress, const Grid* grid, std::vector<Group>* drawn) {
  const Stopwatch watch;
  Dataset data = set.data;
  if (config.eval.dedupe) {
    const DedupeReport report = data.dedupe();
    if (report.rows != report.problems) progress.note(report.text().c_str());
  }
  SetResult result;
  result.name = set.name;
  result.n = config.eval.n;
  std::optional<Reward> reward;
  if (grid == nullptr || grid->leads()) reward.emplace(config.reward, tokenizer);
  std::vector<Group> groups = prompts_of(config, data, tokenizer, rollout.model(), result);
  result.problems = groups.size();

  const EvalSection& e = config.eval;
  rollout.begin({.temperature = e.temperature, .top_k = e.top_k, .top_p = e.top_p, .seed = config.trainer.seed});
  if (drawn) go_on(groups, *drawn, e.n);
  try {
    draw_and_judge(groups, data, {e.n, config.data.max_response_length, Phase::eval, nullptr, grid}, rollout,
                   reward ? &*reward : nullptr, progress);
  } catch (const Error& error) {
    if (drawn && error.code() == kExitInterrupted) *drawn = std::move(groups);
    throw;
  }
  for (Group& g : groups) {
    const Example& example = data[g.example];
    result.all.push_back({example.id, example.answer, std::move(g)});
  }
  summarize(config, result);
  note_oddities(config, result, progress);
  result.seconds = watch.seconds();
  return result;
}

Comparison compare(const SetResult& baseline, const SetResult& model) {
  Comparison out;
  out.name = model.name;
  const auto share = [](const EvalProblem& p) { return double(p.group.correct()) / p.group.samples.size(); };
  std::map<std::string_view, double> before;
  for (const EvalProblem& p : baseline.all) before.emplace(p.id, share(p));
  std::vector<double> differences;
  for (const EvalProblem& p : model.all) {
    const auto known = before.find(p.id);
    if (known == before.end()) continue;  // its prompt was too long for the baseline
    differences.push_back(share(p) - known->second);
    out.better += differences.back() > 0;
    out.worse += differences.back() < 0;
  }
  out.problems = differences.size();
  out.difference = estimate(differences, -1, 1);
  return out;
}

}  // namespace dapo
