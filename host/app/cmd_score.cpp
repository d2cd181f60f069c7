#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "host/app/commands.h"
#include "host/app/interrupt.h"
#include "host/app/json_lines.h"
#include "host/app/session.h"
#include "host/train/packing.h"
#include "host/train/settings.h"
#include "model/learner.h"

namespace dapo {
namespace {

struct Row {
  std::vector<int32_t> ids;
  int32_t prompt_length = 0;  ///< tokens before the first scored one; 0: a plain text, scored from its second token
  std::vector<float> log_prob, entropy;

  int32_t first() const { return std::max(prompt_length, 1); }
  std::span<const int32_t> prompt() const { return std::span(ids).first(static_cast<size_t>(prompt_length)); }
  std::span<const int32_t> response() const { return std::span(ids).subspan(static_cast<size_t>(prompt_length)); }
};

std::vector<int32_t> encode(const JsonRow& json, const Tokenizer* tokenizer, const char* field, bool special) {
  if (tokenizer == nullptr)
    json.fail_here(fmt::format("\"{}\" needs a tokenizer, and the model's folder has none: give \"ids\"", field));
  return tokenizer->encode(json.text(field), special);
}

void set_response(const JsonRow& json, Row& row, const std::vector<int32_t>& response) {
  row.prompt_length = static_cast<int32_t>(row.ids.size());
  if (row.ids.empty()) json.fail_here("the prompt has no tokens");
  if (response.empty()) json.fail_here("the response has no tokens: nothing to score");
  row.ids.insert(row.ids.end(), response.begin(), response.end());
}

Row read_row(const JsonRow& json, const Tokenizer* tokenizer, const ModelConfig& model) {
  Row row;
  if (json.has("prompt_ids")) {
    row.ids = json.ids("prompt_ids");
    set_response(json, row, json.ids("ids"));
  } else if (!json.has("ids") && json.has("response")) {
    row.ids = encode(json, tokenizer, "prompt", true);
    set_response(json, row, encode(json, tokenizer, "response", false));
  } else {
    row.ids = json.has("ids") ? json.ids("ids") : encode(json, tokenizer, "text", false);
  }
  if (row.ids.size() < 2) json.fail_here("needs 2 tokens or more: the first one has no context to be predicted from");
  if (row.ids.size() > static_cast<size_t>(model.max_position))
    json.fail_here(fmt::format("has {} tokens; the model takes at most {}", row.ids.size(), model.max_position));
  for (const int32_t id : row.ids)
    if (id >= model.vocab)
      json.fail_here(fmt::format("id {} is outside the model's vocabulary of {}", id, model.vocab));
  if (json.has("prompt_len")) {
    const int64_t n = json.integer("prompt_len");
    if (n < 1 || n >= static_cast<int64_t>(row.ids.size()))
      json.fail_here(fmt::format("prompt_len = {} leaves nothing to score: 1 to {}", n, row.ids.size() - 1));
    row.prompt_length = static_cast<int32_t>(n);
  }
  return row;
}

/// Plain texts, as one pack with one segment per text.
void score_texts(std::span<Row> rows, Learner& learner, float temperature) {
  Pack pack;
  for (const Row& row : rows) {
    const auto at = static_cast<int32_t>(pack.ids.size()), length = static_cast<int32_t>(row.ids.size());
    pack.segments.push_back({at, length, -1});
    pack.ids.insert(pack.ids.end(), row.ids.begin(), row.ids.end());
    for (int32_t t = 1; t < length; ++t) {
      pack.head_rows.push_back(at + t - 1);
      pack.targets.push_back(row.ids[static_cast<size_t>(t)]);
    }
  }
  learner.score(pack, temperature);
  auto log_prob = pack.log_prob.begin(), entropy = pack.entropy.begin();
  for (Row& row : rows) {
    const auto n = static_cast<int64_t>(row.ids.size()) - 1;
    row.log_prob.assign(log_prob, log_prob + n);
    row.entropy.assign(entropy, entropy + n);
    log_prob += n;
    entropy += n;
  }
}

/// Responses, split from their prompts as in rollout and training, for the same bits. Adjacent rows share a prompt.
void score_responses(std::span<Row> rows, Learner& learner, float temperature) {
  std::vector<PackInput> groups;
  std::vector<Row*> of;  // in the order of the responses in the groups
  std::vector<size_t> begin;
  for (Row& row : rows) {
    if (groups.empty() || !std::ranges::equal(groups.back().prompt, row.prompt())) {
      groups.push_back({row.prompt(), {}});
      begin.push_back(of.size());
    }
    groups.back().responses.push_back({row.response(), {}, 1.0f});
    of.push_back(&row);
  }
  const ModelLimits& limits = learner.limits();
  for (MicroBatch& packed : pack_groups(groups, {limits.pack_tokens, limits.pack_segments})) {
    learner.score(packed.pack, temperature);
    for (const Placement& r : packed.placements) {
      Row& row = *of[begin[static_cast<size_t>(r.group)] + static_cast<size_t>(r.response)];
      for (int k = 0; k < r.length; ++k) {
        const auto head = static_cast<size_t>(r.head_row(k));
        row.log_prob.push_back(packed.pack.log_prob[head]);
        row.entropy.push_back(packed.pack.entropy[head]);
      }
    }
  }
}

/// The sum of a row's log-probs. `number`: the row's, from 1; `written`: where the rows before it are.
double sum_of(const Row& row, size_t number, const std::string& model, LineWriter& out) {
  double sum = 0;
  for (size_t i = 0; i < row.log_prob.size(); ++i) {
    const float x = row.log_prob[i];
    if (!std::isfinite(x) || !std::isfinite(row.entropy[i]))
      fail(kExitNumerics,
           "row {}: the log-prob of token {} is {}, the entropy before it {}: the weights of {} hold NaN or infinity, "
           "or "
           "numbers overflow on the way (try --dtype f32); {} rows are complete, in {}",
           number, row.first() + i, x, row.entropy[i], model, number - 1, out.commit_partial());
    sum += x;
  }
  return sum;
}

void write_row(LineWriter& out, const Row& row, double sum) {
  out.line(JsonLine()
               .add("ids", row.ids)
               .add("prompt_len", row.first())
               .add("log_probs", row.log_prob)
               .add("entropy", row.entropy)
               .add("sum_log_prob", sum)
               .str());
}

}  // namespace

int run_score_command(const ScoreOptions& o) {
  check_output(o.out, {o.file});
  if (!(o.temperature >= static_cast<float>(kLeastTemperature)))
    fail_input("--temperature {}: at least {}", o.temperature, kLeastTemperature);
  Session s =
      open_session(o.model, make_backend(o.on.device, o.on.dtype, o.on.threads), Start::folder, 1, 0, Tokens::maybe);
  std::vector<Row> rows;
  size_t longest = 0;
  read_rows(o.file, [&](const JsonRow& json) {
    rows.push_back(read_row(json, s.tokenizer.get(), s.weights->config()));
    longest = std::max(longest, rows.back().ids.size());
  });

  ModelLimits limits;
  limits.max_length = static_cast<int>(longest);
  limits.pack_tokens = static_cast<int64_t>(std::max(longest, static_cast<size_t>(std::max(o.pack_tokens, 1))));
  limits.pack_segments = std::min<int64_t>(limits.pack_tokens, 2 * static_cast<int64_t>(rows.size()));
  limits.pack_head_rows = limits.pack_tokens;
  ModelMemory memory(*s.weights, limits);
  Learner learner(memory);
  learner.begin();

  LineWriter out(o.out);
  catch_interrupts();
  for (size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
    if (interrupted())
      throw Interrupted(
          fmt::format("interrupted: {} of {} rows are complete, in {}", begin, rows.size(), out.commit_partial()));
    const bool texts = rows[begin].prompt_length == 0;
    size_t tokens = 0;
    while (end < rows.size() && (rows[end].prompt_length == 0) == texts &&
           tokens + rows[end].ids.size() <= static_cast<size_t>(limits.pack_tokens) &&
           2 * static_cast<int64_t>(end - begin + 1) <= std::max<int64_t>(limits.pack_segments, 2))
      tokens += rows[end++].ids.size();
    const std::span<Row> part = std::span(rows).subspan(begin, end - begin);
    (texts ? score_texts : score_responses)(part, learner, o.temperature);
    for (size_t i = begin; i < end; ++i) {
      write_row(out, rows[i], sum_of(rows[i], i + 1, o.model, out));
      rows[i] = {};
    }
    out.flush();
  }
  out.commit();
  return 0;
}

}  // namespace dapo
