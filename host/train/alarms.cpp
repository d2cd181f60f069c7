#include "host/train/alarms.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/check.h"

namespace dapo {
namespace {

using Json = nlohmann::json;

/// What identifies an alarm: the words of its text up to the first comma or the like, without numbers.
std::string identity(const std::string& text) {
  std::string words, word;
  for (const char c : text.substr(0, text.find_first_of("(:;,")) + ' ')
    if (std::isalnum(static_cast<unsigned char>(c))) {
      word += c;
    } else {
      const bool number = std::ranges::any_of(word, [](char x) { return x >= '0' && x <= '9'; });
      if (!word.empty() && !number) words += (words.empty() ? "" : " ") + word;
      word.clear();
    }
  return words;
}

Json numbers(const AlarmState::Window& w) {
  return {w.steps, w.acc, w.length};
}
AlarmState::Window window_of(const Json& j) {
  return {j.at(0).get<double>(), j.at(1).get<double>(), j.at(2).get<double>()};
}

using Texts = std::vector<std::string>;

/// A verifier that fails, or that gives every response the same verdict.
void check_verifier(const Config& config, const StepMetrics& m, Texts& holds) {
  if (m.verifier_errors > 0)
    holds.push_back(
        fmt::format("the verifier could not judge {} responses; their {} groups are left out; the first {} "
                    "(rollouts/step_{}.jsonl has all reasons)",
                    m.verifier_errors, m.groups_unjudged, m.first_error, m.step));
  const int64_t groups = m.groups_generated - m.groups_unjudged;
  if (groups <= 1) return;
  const int64_t judged = m.groups_generated * config.rollout.n - m.verifier_errors;
  if (m.groups_wrong == groups)
    holds.push_back(
        fmt::format("not one of {} responses is right; reward.verifier = \"{}\" found an answer in {:.0f} % of them: "
                    "check the verifier, data.prompt_template and data.prompt_suffix (--check shows a prompt), or take "
                    "easier prompts",
                    judged, config.reward.verifier, 100 * m.found));
  if (m.groups_right == groups)
    holds.push_back(
        fmt::format("all {} responses are right: nothing is left to learn from these prompts, or reward.verifier = "
                    "\"{}\" accepts anything: read some responses",
                    judged, config.reward.verifier));
}

void check_sampling(const RolloutSection& r, Texts& holds) {
  if (r.top_p < 1 || r.top_k > 0 || r.min_p > 0)
    holds.push_back(
        fmt::format("responses are drawn from a filtered distribution (rollout.top_p = {}, top_k = {}, min_p = {}) "
                    "but trained on the log-probs of the whole one: the policy gradient is biased; set 1, 0, 0",
                    r.top_p, r.top_k, r.min_p));
}

void check_entropy(int64_t vocab, const StepMetrics& m, AlarmState& state, Texts& holds) {
  if (m.updates == 0) return;
  const bool based = state.entropy_steps >= AlarmState::kFirst;
  if (!based) state.entropy += (m.entropy - state.entropy) / ++state.entropy_steps;
  const double base = based ? state.entropy : 0;
  const std::string from = based ? fmt::format(" (mean of the first {} steps: {:.2g})", AlarmState::kFirst, base) : "";
  // A task that is learned needs no entropy: a fall relative to the start matters while answers are still wrong.
  const bool unsolved = m.train_acc < 0.9 && !(m.acc >= 0.9);
  if (m.entropy < 1e-3 || (based && unsolved && m.entropy < 0.05 * base))
    holds.push_back(
        fmt::format("entropy has collapsed to {:.2g} nats{}: the responses to a prompt are nearly all alike; raise "
                    "actor.clip_ratio_high or rollout.temperature, or lower actor.lr, and go back to an earlier model",
                    m.entropy, from));
  const double chance = std::log(static_cast<double>(vocab));
  if (m.entropy > 0.7 * chance || (based && m.entropy > 3 * base && m.entropy > base + 0.5))
    holds.push_back(
        fmt::format("entropy has risen to {:.2f} nats{}, that of chance is {:.2f}: the policy drifts towards noise; "
                    "lower actor.lr or actor.clip_ratio_high, and read some responses",
                    m.entropy, from, chance));
}

void compare(const AlarmState::Window& old, const AlarmState::Window& now, int64_t steps, int64_t step, Texts& holds) {
  const double change = now.length / std::max(old.length, 1.0);
  const std::string acc = fmt::format("{:.0f} % to {:.0f} %", 100 * old.acc, 100 * now.acc);
  const std::string length = fmt::format("{:.1f} to {:.1f} tokens", old.length, now.length);
  if (now.acc - old.acc >= 0.2 && (std::abs(change - 1) < 0.05 || change < 0.5))
    holds.push_back(fmt::format(
        "accuracy rose from {} within {} steps, while responses {} ({}): perhaps a shortcut that the "
        "verifier accepts; read rollouts/step_{}.jsonl, and judge it with a stricter verifier (dapo verify)",
        acc, steps, change < 0.5 ? "shrank" : "kept their length", length, step));
  if (now.acc - old.acc < 0.02 && change >= 2)
    holds.push_back(
        fmt::format("responses grew from {} within {} steps, while accuracy went from {}: length without reward; check "
                    "reward.overlong_buffer, actor.loss_agg_mode and the stop ids, and read rollouts/step_{}.jsonl",
                    length, steps, acc, step));
}

/// Reward and length of whole windows of steps.
void check_trend(const StepMetrics& m, AlarmState& state, Texts& holds) {
  if (!std::isfinite(m.acc) || !std::isfinite(m.length_mean)) return;  // all groups came from the bank
  AlarmState::Window& w = state.open;
  ++w.steps;
  w.acc += (m.acc - w.acc) / w.steps;
  w.length += (m.length_mean - w.length) / w.steps;
  if (w.steps < AlarmState::kWindow) return;
  const size_t count = state.windows.size();
  for (size_t i = 0; i < count; ++i)
    compare(state.windows[i], w, AlarmState::kWindow * static_cast<int64_t>(count - i), m.step, holds);
  if (count == AlarmState::kWindows) state.windows.erase(state.windows.begin());
  state.windows.push_back(std::exchange(w, {}));
}

}  // namespace

std::string AlarmState::text() const {
  Json json = {
      {"seen", seen}, {"entropy", {entropy, entropy_steps}}, {"open", numbers(open)}, {"windows", Json::array()}};
  for (const Window& w : windows) json["windows"].push_back(numbers(w));
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

AlarmState AlarmState::parse(const std::string& text) try {
  const Json json = Json::parse(text);
  AlarmState s;
  s.seen = json.at("seen").get<std::map<std::string, int64_t>>();
  s.entropy = json.at("entropy").at(0).get<double>();
  s.entropy_steps = json.at("entropy").at(1).get<double>();
  s.open = window_of(json.at("open"));
  for (const Json& w : json.at("windows")) s.windows.push_back(window_of(w));
  return s;
} catch (const Json::exception& e) {
  fail_input("the state of the alarms is not what AlarmState::text() writes: {}", e.what());
}

std::vector<std::string> raise_alarms(const Config& config, int64_t vocab, const StepMetrics& m, AlarmState& state) {
  Texts holds = m.alarms;  // the conditions that hold at this step
  check_verifier(config, m, holds);
  check_sampling(config.rollout, holds);
  check_entropy(vocab, m, state, holds);
  if (m.truncated > 0.5)
    holds.push_back(
        fmt::format("{:.0f} % of the responses are cut at the limit: raise data.max_response_length, or check that the "
                    "model can end a response (the stop ids that the run prints, data.prompt_template)",
                    100 * m.truncated));
  if (m.mismatch > 0 || m.ratio_error > 0)
    holds.push_back(
        fmt::format("rollout and training disagree by {:.3g} nats on the same weights ({} tokens compared), which must "
                    "be 0: please report it with dapo.json; until then actor.old_logprobs = \"recompute\" keeps the "
                    "ratios right",
                    m.mismatch, m.mismatch_tokens));
  check_trend(m, state, holds);
  std::vector<std::string> begun;
  for (std::string& text : holds) {
    const auto [at, added] = state.seen.try_emplace(identity(text), m.step);
    if (added || m.step - at->second > AlarmState::kQuiet) begun.push_back(std::move(text));
    at->second = m.step;
  }
  std::erase_if(state.seen, [&](const auto& seen) { return m.step - seen.second > AlarmState::kQuiet; });
  return begun;
}

}  // namespace dapo
