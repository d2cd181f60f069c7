// A rollout by the Decoder alone, and packs with losses: what the equalities of a model are tested with.
#pragma once

#include <algorithm>
#include <vector>

#include "tests/model/rig.h"

namespace dapo {
inline namespace model_tests {

/// Prompts and responses of random ids, shorter and longer than a tile of keys.
inline std::vector<Group> some_groups() {
  std::vector<Group> groups;
  uint64_t seed = 1;
  const auto ids = [&](int n) { return random_ids(seed++, n, 101); };
  groups.push_back({ids(70), {ids(9), ids(130), ids(1)}});
  groups.push_back({ids(1), {ids(64), ids(65)}});
  groups.push_back({ids(64), {ids(40)}});
  return groups;
}

inline void give_losses(Pack& p) {
  for (size_t i = 0; i < p.head_rows.size(); ++i) {
    p.advantage[i] = i % 3 == 0 ? -0.7f : 1.2f;
    p.old_log_prob.push_back(-3.0f - 0.01f * static_cast<float>(i % 50));
  }
}

/// Pages in an order that is neither ascending nor contiguous.
struct Pages {
  int32_t next = 37;
  int32_t next_page() { return next = (next * 11 + 5) % 64; }  // a full-period walk of 64 pages
};

inline ModelLimits rollout_limits() {
  ModelLimits limits;
  limits.max_length = 512, limits.batch = 6, limits.prefill_tokens = 300, limits.kv_pages = 64;
  return limits;
}

/// Rolls out one group: the prompt in chunks, then `count` sampled tokens of each response in one decode batch.
struct Rolled {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> log_prob;
};
inline Rolled roll_out(Decoder& decoder, const std::vector<int32_t>& prompt, int samples, int count, int chunk,
                       const Sampling& sampling, int first_sample = 0) {
  decoder.begin();
  Pages pages;
  const int n = static_cast<int>(prompt.size()), prompt_pages = (n + 63) / 64, own_pages = (count + 63) / 64;
  const int max_pages = prompt_pages + own_pages;
  std::vector<int32_t> shared;
  for (int i = 0; i < prompt_pages; ++i) shared.push_back(pages.next_page());
  Rolled r;
  r.tokens.resize(static_cast<size_t>(samples));
  r.log_prob.resize(static_cast<size_t>(samples));
  std::vector<int32_t> tokens(static_cast<size_t>(samples));
  std::vector<float> log_prob(static_cast<size_t>(samples));
  std::vector<DrawKey> keys;
  for (int s = 0; s < samples; ++s) keys.push_back({3, 5, first_sample + s});
  for (int begin = 0; begin < n; begin += chunk) {
    const int end = std::min(n, begin + chunk);
    PagedBatch b{.ids = {prompt.begin() + begin, prompt.begin() + end},
                 .row_begin = {0, end - begin},
                 .prefix_length = {end},
                 .own_length = {0},
                 .pages = shared,
                 .max_pages = prompt_pages,
                 .head_rows = {},
                 .keys = {},
                 .positions = {}};
    b.prefix_length = {0}, b.own_length = {end};  // while it is being written the prompt is a sequence, not a prefix
    if (end == n) {
      b.head_rows.assign(static_cast<size_t>(samples), n - 1 - begin);
      b.keys = keys;
      b.positions.assign(static_cast<size_t>(samples), n);
      decoder.prefill(b, sampling, tokens, log_prob);
    } else {
      decoder.prefill(b, sampling, {}, {});
    }
  }
  PagedBatch b{.ids = tokens,
               .row_begin = {0},
               .prefix_length = {},
               .own_length = {},
               .pages = {},
               .max_pages = max_pages,
               .head_rows = {},
               .keys = keys,
               .positions = {}};
  for (int s = 0; s < samples; ++s) {
    b.row_begin.push_back(s + 1);
    b.prefix_length.push_back(n);
    b.own_length.push_back(1);
    b.positions.push_back(n + 1);
    b.pages.insert(b.pages.end(), shared.begin(), shared.end());
    for (int i = 0; i < own_pages; ++i) b.pages.push_back(pages.next_page());
  }
  const size_t rest = static_cast<size_t>(samples * (count - 1));
  std::vector<int32_t> more(rest);
  std::vector<float> more_log_prob(rest);
  if (count > 1) decoder.decode(b, count - 1, sampling, more, more_log_prob);
  for (size_t s = 0; s < static_cast<size_t>(samples); ++s) {
    r.tokens[s].push_back(tokens[s]);
    r.log_prob[s].push_back(log_prob[s]);
    for (size_t i = 0; i + 1 < static_cast<size_t>(count); ++i) {
      r.tokens[s].push_back(more[i * static_cast<size_t>(samples) + s]);
      r.log_prob[s].push_back(more_log_prob[i * static_cast<size_t>(samples) + s]);
    }
  }
  return r;
}

}  // namespace model_tests
}  // namespace dapo
