// token_loss against verl's own compute_policy_loss: losses, gradients and clip statistics of whole batches, aggregated
// here as the host does.
#include "core/dapo_loss.h"

#include <simdjson.h>

#include <string>
#include <vector>

#include "tests/testdata.h"

namespace dapo {
namespace {

using Rows = std::vector<std::vector<double>>;

std::vector<double> numbers(simdjson::dom::element e) {
  std::vector<double> v;
  for (const double x : e.get_array()) v.push_back(x);
  return v;
}
Rows rows(simdjson::dom::element e) {
  Rows r;
  for (const auto row : e.get_array()) r.push_back(numbers(row));
  return r;
}

void expect_equals_verl(const std::string& path) {
  SCOPED_TRACE(path);
  simdjson::dom::parser parser;
  simdjson::dom::document_stream lines;
  ASSERT_EQ(parser.load_many(path).get(lines), simdjson::SUCCESS);
  int checked = 0, line = 0;
  for (const auto c : lines) {
    ++line;
    if (std::string_view(c["kind"]) != "policy_loss") continue;
    const Rows log_prob = rows(c["log_prob"]), old = rows(c["old_log_prob"]), gradient = rows(c["dloss_dlog_prob"]);
    const std::vector<double> advantage = numbers(c["advantages"]), length = numbers(c["lengths"]);
    DapoLoss p;
    p.clip_low = static_cast<float>(double{c["clip_ratio_low"]});
    p.clip_high = static_cast<float>(double{c["clip_ratio_high"]});
    p.dual_clip = static_cast<float>(double{c["clip_ratio_c"]});
    double tokens = 0, clipped = 0, dual = 0, loss = 0;
    for (const double n : length) tokens += n;
    const bool token_mean = std::string_view(c["loss_agg_mode"]) == "token-mean";
    double all_tokens = tokens, ranks = 1;  // of all ranks, where the line says how many
    if (double n; c["normalizer"]["batch_num_tokens"].get(n) == simdjson::SUCCESS) all_tokens = n;
    if (double n; c["normalizer"]["dp_size"].get(n) == simdjson::SUCCESS) ranks = n;
    const double mean_weight = ranks / all_tokens;
    for (size_t b = 0; b < log_prob.size(); ++b) {
      // Within a row all tokens have one weight: known for token-mean, else what verl gives one that is not clipped.
      double weight = token_mean ? mean_weight : 0;
      std::vector<TokenLoss> row;
      for (size_t t = 0; t < static_cast<size_t>(length[b]); ++t) {
        row.push_back(token_loss(static_cast<float>(log_prob[b][t]), static_cast<float>(old[b][t]),
                                 static_cast<float>(advantage[b]), p));
        loss += row.back().loss;
        if (!token_mean && row.back().dlogp != 0) weight = gradient[b][t] / row.back().dlogp;
      }
      for (size_t t = 0; t < row.size(); ++t) {
        // The ratio of f32 log-probs is off by about 1e-6.
        EXPECT_NEAR(row[t].dlogp * weight, gradient[b][t], 3e-6 * std::abs(gradient[b][t]) + 1e-9)
            << "line " << line << " row " << b << " token " << t;
        clipped += row[t].clip == kClippedLow || row[t].clip == kClippedHigh;
        dual += row[t].clip == kClippedDual;
      }
      for (size_t t = row.size(); t < gradient[b].size(); ++t) EXPECT_EQ(gradient[b][t], 0);
    }
    if (token_mean) {
      const double want = double{c["loss"]};
      EXPECT_NEAR(loss * mean_weight, want, 3e-6 * (std::abs(want) + 1)) << "line " << line;
    }
    if (tokens > 0) {
      EXPECT_NEAR(dual / tokens, double{c["clipfrac_lower"]}, 1e-6) << "line " << line;
      EXPECT_LE(clipped / tokens, double{c["clipfrac"]} + 1e-6) << "line " << line;
      EXPECT_GE(clipped / tokens + dual / tokens + 1e-6, double{c["clipfrac"]}) << "line " << line;
    }
    ++checked;
  }
  EXPECT_GE(checked, 60);
}

TEST(DapoLoss, EqualsVerl) {
  for (const std::string& path : golden_files("loss/loss.jsonl", "goldens/dapo_loss.jsonl")) expect_equals_verl(path);
}

}  // namespace
}  // namespace dapo
