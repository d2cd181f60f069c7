#include <algorithm>

#include "core/check.h"
#include "host/commands.h"
#include "host/jsonl.h"
#include "host/session.h"

namespace dapo {
namespace {

struct Row {
  std::vector<int32_t> ids;
  int32_t prompt_length = 1;  ///< the first token that is scored
};

Row read_row(const JsonRow& json, const Tokenizer& tokenizer, const ModelConfig& model) {
  Row row;
  row.ids = json.has("ids") ? json.ids("ids") : tokenizer.encode(json.text("text"));
  if (row.ids.size() < 2)
    json.fail_here("needs 2 tokens or more: the first has nothing before it to be predicted from");
  if (row.ids.size() > static_cast<size_t>(model.max_position))
    json.fail_here(fmt::format("has {} tokens, the model takes {} at most", row.ids.size(), model.max_position));
  for (const int32_t id : row.ids)
    if (id >= model.vocab) json.fail_here(fmt::format("id {} is outside of the model's {}", id, model.vocab));
  if (json.has("prompt_len")) {
    const int64_t n = json.integer("prompt_len");
    if (n < 1 || n >= static_cast<int64_t>(row.ids.size()))
      json.fail_here(fmt::format("prompt_len = {} leaves nothing to score: 1 to {}", n, row.ids.size() - 1));
    row.prompt_length = static_cast<int32_t>(n);
  }
  return row;
}

/// Rows [begin, end) as one pack, a segment each.
Pack pack_of(const std::vector<Row>& rows, size_t begin, size_t end) {
  Pack pack;
  for (size_t i = begin; i < end; ++i) {
    const Row& row = rows[i];
    const auto at = static_cast<int32_t>(pack.ids.size()), length = static_cast<int32_t>(row.ids.size());
    pack.segments.push_back({at, length, -1});
    pack.ids.insert(pack.ids.end(), row.ids.begin(), row.ids.end());
    for (int32_t t = row.prompt_length; t < length; ++t) {
      pack.rows.push_back(at + t - 1);
      pack.targets.push_back(row.ids[static_cast<size_t>(t)]);
    }
  }
  return pack;
}

}  // namespace

int run_score_command(const ScoreOptions& o) {
  if (!(o.temperature > 0)) fail_input("--temperature {}: must be above 0", o.temperature);
  Session s = open_session(o.model, make_backend(o.on.device, o.on.dtype, o.on.threads));
  std::vector<Row> rows;
  size_t longest = 0;
  read_rows(o.file, [&](const JsonRow& json) {
    rows.push_back(read_row(json, *s.tokenizer, s.model->config()));
    longest = std::max(longest, rows.back().ids.size());
  });

  ModelLimits limits;
  limits.max_length = static_cast<int>(longest);
  limits.pack_tokens = static_cast<int64_t>(std::max(longest, static_cast<size_t>(std::max(o.pack_tokens, 1))));
  limits.pack_segments = std::min<int64_t>(limits.pack_tokens / 2, static_cast<int64_t>(rows.size()));
  limits.pack_head_rows = limits.pack_tokens;
  s.model->reserve(limits);
  s.model->begin_update();

  LineWriter out(o.out);
  for (size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
    size_t tokens = 0;
    while (end < rows.size() && tokens + rows[end].ids.size() <= static_cast<size_t>(limits.pack_tokens) &&
           static_cast<int64_t>(end - begin) < limits.pack_segments)
      tokens += rows[end++].ids.size();
    Pack pack = pack_of(rows, begin, end);
    s.model->score(pack, o.temperature);
    auto log_prob = pack.log_prob.begin(), entropy = pack.entropy.begin();
    for (size_t i = begin; i < end; ++i) {
      const auto n = static_cast<int64_t>(rows[i].ids.size()) - rows[i].prompt_length;
      const std::vector<float> l(log_prob, log_prob + n), e(entropy, entropy + n);
      double sum = 0;
      for (const float x : l) sum += x;
      out.line(JsonLine()
                   .add("ids", rows[i].ids)
                   .add("prompt_len", rows[i].prompt_length)
                   .add("log_probs", l)
                   .add("entropy", e)
                   .add("sum_log_prob", sum)
                   .str());
      log_prob += n;
      entropy += n;
    }
    out.flush();
  }
  out.commit();
  return 0;
}

}  // namespace dapo
