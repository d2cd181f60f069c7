// Equalities between ops and between calls, bit for bit, on the backend under test: a row does not depend on the other
// rows of the call, pages give the results of packed rows, a drawn token has the log-prob of lm_logprob, draws follow
// the filtered distribution.
#pragma once

#include <simdjson.h>

#include "core/philox.h"
#include "tests/ops/device_tensor.h"
#include "tests/ops/ops_test.h"
#include "tests/testdata.h"

namespace dapo::ops {

/// Each row of a product must have the bits that it has in the largest product.
inline void expect_rows_invariant(DType t, int64_t most, int64_t o, int64_t i, bool bias) {
  Backend& b = test_backend(t);
  const Device1 x(b, t, {most, i}, random_values(most * i, t)), w(b, t, {o, i}, random_values(o * i, t, 1, 6));
  const Device1 shift(b, t, {o}, random_values(o, t, 1, 8)), y(b, t, {most, o});
  const Tensor none;
  b.matmul(y, x, w, bias ? shift.tensor() : none);
  const std::vector<std::byte> all = y.bytes();
  const size_t row = o * dtype_size(t);
  for (const int64_t m : {1,  2,  3,   4,   5,   7,   8,   9,   15,   16,   17,   31,   33,  63,
                          64, 65, 100, 129, 255, 256, 257, 500, 1000, 1023, 2047, 3001, 4095}) {
    if (m >= most) break;
    const int64_t begin = most - m;
    b.zero(y);
    b.matmul(y.tensor().rows(0, m), x.tensor().rows(begin, m), w, bias ? shift.tensor() : none);
    const std::vector<std::byte> some = y.bytes();
    const size_t bytes = static_cast<size_t>(m) * row;
    EXPECT_EQ(std::memcmp(some.data(), all.data() + static_cast<size_t>(begin) * row, bytes), 0)
        << dtype_name(t) << " product of " << m << " rows, weights " << o << " x " << i;
  }
}

/// attention() and rope_kv_write() + paged_attention() of the same rows.
inline void expect_pages_equal_packed(DType t, const std::vector<Segment>& s, AttentionDims d, int page_size) {
  const OpCase packed = attention_case(t, s, d), paged = paged_attention_case(t, s, d, page_size);
  const auto in = inputs_of(packed);
  auto paged_in = inputs_of(paged);
  paged_in[2] = in[2];
  EXPECT_TRUE(run_case(test_backend(t), packed, in)[0] == run_case(test_backend(t), paged, paged_in)[0])
      << paged.name();
}

/// attention() of a pack, and paged_attention() of only the rows [from, to) of each segment over pages that hold all
/// rows: chunks of a prefill, or (to = from + 1) a decode step.
inline void expect_chunk_equals_packed(DType t, const std::vector<Segment>& s, AttentionDims d, int page_size,
                                       const std::vector<std::pair<int32_t, int32_t>>& chunks) {
  Backend& b = test_backend(t);
  const OpCase packed = attention_case(t, s, d);
  const auto in = inputs_of(packed);
  const std::vector<std::byte> all = run_case(b, packed, in)[0];
  Paged g = paged_of(s, page_size);
  const auto B = std::ssize(s);
  const auto ints = [&](const std::vector<int32_t>& v, std::vector<int64_t> shape) {
    return Device1(b, DType::i32, std::move(shape), Values(v.begin(), v.end()));
  };
  const Device1 qkv(b, t, {rows_of(s), d.qkv_width()}, in[2]);
  const Values poison(g.page_count * 2 * d.kv_width() * page_size, NAN);
  const Device1 cache(b, t, {g.page_count, 2, d.kv_heads, page_size, d.head_dim}, poison);
  const Device1 prefix = ints(g.prefix, {B}), pages = ints(g.pages, {B, g.max_pages});
  {
    const Device1 begin = ints(g.row_begin, {B + 1}), own = ints(g.own, {B});
    int32_t longest = 0;
    for (const Segment& x : s) longest = std::max(longest, x.length);
    b.rope_kv_write(cache, qkv, {}, {begin, prefix, own, pages, page_size, longest, g.max_length}, d);
    b.synchronize();
  }
  const ScopedWorkspace workspace(b, packed.needs);
  const size_t bytes = d.q_width() * dtype_size(t);
  for (const auto& [from, to] : chunks) {
    std::vector<int32_t> begin{0}, own, rows;
    for (const Segment& x : s) {
      const int32_t end = std::min(to, x.length);
      for (int32_t r = from; r < end; ++r) rows.push_back(x.begin + r);
      begin.push_back(static_cast<int32_t>(rows.size())), own.push_back(end);
    }
    const auto n = std::ssize(rows);
    Values q(n * d.qkv_width());
    for (size_t r = 0; r < rows.size(); ++r)
      copy_row(q, r, in[2], static_cast<size_t>(rows[r]), static_cast<size_t>(d.qkv_width()));
    const Device1 some(b, t, {n, d.qkv_width()}, q), out(b, t, {n, d.q_width()}, Values(n * d.q_width(), NAN));
    const Device1 row_begin = ints(begin, {B + 1}), own_length = ints(own, {B});
    b.paged_attention(out, some, cache, {row_begin, prefix, own_length, pages, page_size, to - from, g.max_length}, d);
    const std::vector<std::byte> got = out.bytes();
    for (size_t r = 0; r < rows.size(); ++r)
      EXPECT_EQ(std::memcmp(&got[r * bytes], &all[static_cast<size_t>(rows[r]) * bytes], bytes), 0)
          << packed.name() << ", page " << page_size << ", rows " << from << " to " << to << ": row " << rows[r];
  }
}

/// rope_kv_write() with a table, and rope() before one without: the same rows and the same pages.
inline void expect_rope_into_pages(DType t, const std::vector<Segment>& s, AttentionDims d, int page_size) {
  Backend& b = test_backend(t);
  const Paged g = paged_of(s, page_size);
  const int64_t n = rows_of(s), B = std::ssize(s);
  const auto ints = [&](const std::vector<int32_t>& v, std::vector<int64_t> shape) {
    return Device1(b, DType::i32, std::move(shape), Values(v.begin(), v.end()));
  };
  std::vector<int32_t> positions;
  int32_t longest = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    longest = std::max(longest, s[i].length);
    for (int32_t j = 0; j < s[i].length; ++j) positions.push_back(g.prefix[i] + j);
  }
  const Device1 begin = ints(g.row_begin, {B + 1}), prefix = ints(g.prefix, {B}), own = ints(g.own, {B});
  const Device1 pages = ints(g.pages, {B, g.max_pages}), at = ints(positions, {n});
  const PagedSequences q{begin, prefix, own, pages, page_size, longest, g.max_length};
  const Device1 table(b, DType::f32, {g.max_length, d.head_dim}, random_values(g.max_length * d.head_dim, DType::f32));
  const Values rows = random_values(n * d.qkv_width(), t, 1, 9);
  const Device1 one(b, t, {n, d.qkv_width()}, rows), two(b, t, {n, d.qkv_width()}, rows);
  const std::vector<int64_t> shape{g.page_count, 2, d.kv_heads, page_size, d.head_dim};
  const Device1 one_cache(b, t, shape), two_cache(b, t, shape);
  const ScopedWorkspace workspace(b, attention_needs(s, d));
  b.rope(one, table, at, d, false);
  b.rope_kv_write(one_cache, one, {}, q, d);
  b.rope_kv_write(two_cache, two, table, q, d);
  const std::string what = dtype_name(t) + std::string(", head_dim ") + std::to_string(d.head_dim);
  EXPECT_TRUE(one.bytes() == two.bytes()) << what;
  EXPECT_TRUE(one_cache.bytes() == two_cache.bytes()) << what;
}

/// Counts of each token in draws with different keys, with the same logits in every row (the head's first column).
inline Values draw_counts(const Values& logits, int64_t draws, const Sampling& sampling) {
  Backend& b = test_backend(DType::f32);
  constexpr int64_t kWidth = 16;
  const auto V = std::ssize(logits);
  Values x(draws * kWidth), head(static_cast<size_t>(V * kWidth)), keys, positions;
  for (size_t r = 0; r < static_cast<size_t>(draws); ++r) {
    x[r * kWidth] = 1;
    keys.insert(keys.end(), {1.0, static_cast<double>(r / 16), static_cast<double>(r % 16)});
    positions.push_back(static_cast<double>(r % 5));
  }
  for (size_t j = 0; j < logits.size(); ++j) head[j * kWidth] = logits[j];
  const Device1 dx(b, DType::f32, {draws, kWidth}, x), dhead(b, DType::f32, {V, kWidth}, head);
  const Device1 dkeys(b, DType::i32, {draws, 3}, keys), dpositions(b, DType::i32, {draws}, positions);
  const Device1 tokens(b, DType::i32, {draws}), log_prob(b, DType::f32, {draws});
  const ScopedWorkspace workspace(b, head_needs(draws, V, kWidth));
  b.lm_sample(tokens, log_prob, dx, dhead, dkeys, dpositions, sampling);
  Values counts(logits.size());
  for (const double token : tokens.values()) counts.at(static_cast<size_t>(token)) += 1;
  return counts;
}

struct FilteredDistribution {
  Values logits, prob;
  Sampling sampling;
};
inline std::vector<FilteredDistribution> read_distributions(const std::string& path) {
  std::vector<FilteredDistribution> all;
  simdjson::dom::parser parser;
  simdjson::dom::document_stream lines;
  if (parser.load_many(path).get(lines) != simdjson::SUCCESS) fail_input("{}: cannot be read", path);
  for (const auto line : lines) {
    FilteredDistribution f;
    for (const double x : line["logits"].get_array()) f.logits.push_back(x);
    for (const double x : line["prob"].get_array()) f.prob.push_back(x);
    f.sampling.temperature = static_cast<float>(double{line["temperature"]});
    f.sampling.top_k = static_cast<int>(int64_t{line["top_k"]});
    f.sampling.top_p = static_cast<float>(double{line["top_p"]});
    f.sampling.min_p = static_cast<float>(double{line["min_p"]});
    all.push_back(std::move(f));
  }
  return all;
}

TEST(OpProperties, RowsOfAProductDoNotDependOnOtherRows) {
  struct Shape {
    int64_t most, o, i;
  };
  const std::vector<Shape> all = {{4096, 128, 128}, {1024, 384, 128}, {1024, 128, 384}, {600, 112, 7},
                                  {600, 7, 112},    {600, 33, 45},    {300, 1152, 896}, {150, 896, 4864}},
                           few = {{300, 128, 128}, {66, 112, 7}, {34, 33, 45}, {135, 384, 896}, {10, 4640, 72}};
  for (const DType t : tested_types()) {
    for (const auto& [most, o, i] : slow_device() ? few : all)
      for (const bool bias : {false, true}) expect_rows_invariant(t, most, o, i, bias);
    if (test_backend(t).device() == Device::cuda && !slow_device())
      expect_rows_invariant(t, 1536, 1536, 200, false);  // a large tile for each of up to 144 SMs
    expect_rows_invariant(t, slow_device() ? 3 : 70, 16384, slow_device() ? 64 : 896,
                          false);  // a slice of a vocabulary
  }
}

TEST(OpProperties, PagesGiveTheBitsOfPackedRows) {
  const auto mixed = segments_of({{5, -1}, {7, 0}, {1, 0}, {70, 0}, {65, -1}, {130, -1}, {64, 5}, {3, 5}});
  for (const DType t : tested_types())
    for (const AttentionDims d : {AttentionDims{1, 1, 16}, {4, 2, 32}, {14, 2, 64}, {2, 2, 128}})
      for (const int page : {64, 128}) expect_pages_equal_packed(t, mixed, d, page);
}

TEST(OpProperties, RopeIntoPagesIsRopeThenPages) {
  const auto mixed = segments_of({{5, -1}, {7, 0}, {1, 0}, {70, 0}, {130, -1}});
  for (const DType t : tested_types())
    for (const AttentionDims d : {AttentionDims{3, 1, 10}, {4, 2, 32}, {14, 2, 64}})
      expect_rope_into_pages(t, mixed, d, 64);
}

/// Prefixes and own tokens longer than one split of decode (512 tokens); prefixes that fill a page, or only partly.
TEST(OpProperties, ChunksAndDecodeGiveTheBitsOfPackedRows) {
  const auto mixed = segments_of({{65, -1}, {130, 0}, {3, 0}, {128, -1}, {70, 3}});
  const auto lengthy = segments_of({{530, -1}, {600, 0}, {1, 0}});
  for (const DType t : tested_types()) {
    for (const AttentionDims d : {AttentionDims{1, 1, 16}, {4, 2, 32}, {7, 1, 64}, {2, 1, 128}})
      for (const int page : {64, 128})
        expect_chunk_equals_packed(t, mixed, d, page,
                                   {{0, 1}, {1, 2}, {63, 64}, {64, 65}, {129, 130}, {0, 40}, {40, 130}});
    expect_chunk_equals_packed(t, lengthy, {2, 1, 32}, 64, {{0, 1}, {529, 530}, {511, 512}, {512, 513}, {599, 600}});
  }
  expect_chunk_equals_packed(tested_types().back(), lengthy, {7, 1, 64}, 128, {{0, 1}, {512, 513}, {500, 530}});
  expect_chunk_equals_packed(tested_types().back(), lengthy, {1, 1, 128}, 128, {{511, 512}, {512, 513}});
}

TEST(OpProperties, ADrawnTokensLogProbHasTheBitsOfLmLogprob) {
  for (const DType t : tested_types())
    for (const float temperature : {1.0f, 0.7f}) {
      Backend& b = test_backend(t);
      const int64_t B = 37, V = 5001, C = 112;
      const OpCase sample = lm_sample_case(t, B, V, C, {temperature, 0, 0.95f, 0.0f, 9});
      const auto in = inputs_of(sample);
      const auto drawn = decoded(sample, run_case(b, sample, in));
      for (const int64_t rows : {B, int64_t{1}}) {  // with the same other rows, and alone
        const size_t begin = B - rows;
        const Values x(in[2].begin() + static_cast<std::ptrdiff_t>(begin) * C, in[2].end());
        const Device1 dx(b, t, {rows, C}, x), head(b, t, {V, C}, in[3]), log_prob(b, DType::f32, {rows});
        const Device1 targets(b, DType::i32, {rows},
                              Values(drawn[0].begin() + static_cast<std::ptrdiff_t>(begin), drawn[0].end()));
        const ScopedWorkspace workspace(b, head_needs(rows, V, C));
        b.lm_logprob(log_prob, Tensor(), dx, head, targets, temperature);
        const Values got = log_prob.values();
        for (size_t r = 0; r < got.size(); ++r) EXPECT_EQ(got[r], drawn[1][begin + r]) << "row " << r;
      }
    }
}

TEST(OpProperties, GreedyTakesTheHighestLogit) {
  Values logits = random_values(1000, DType::f32);
  logits[617] = 9;
  const Values counts = draw_counts(logits, 3, {0.0f, 0, 1.0f, 0.0f, 1});
  EXPECT_EQ(counts[617], 3);
}

/// min_p = 1 keeps only the likeliest token, for any rounding of 1 / temperature.
TEST(OpProperties, MinPOfOneTakesTheHighestLogit) {
  const Values logits = random_values(300, DType::f32);
  const size_t top = std::max_element(logits.begin(), logits.end()) - logits.begin();
  for (const float temperature : {0.6f, 0.65f, 0.7f, 0.75f, 0.8f, 0.85f, 0.9f, 1.1f, 1.2f, 1.3f})
    EXPECT_EQ(draw_counts(logits, 2, {temperature, 0, 1.0f, 1.0f, 1})[top], 2) << temperature;
}

TEST(OpProperties, DrawsFollowTheFilteredDistributions) {
  std::vector<FilteredDistribution> all;
  for (const std::string& path : golden_files("sampling/sampling.jsonl", "goldens/sampling.jsonl"))
    for (FilteredDistribution& d : read_distributions(path)) all.push_back(std::move(d));
  double sum = 0, lines = 0;
  for (size_t i = 0; i < all.size(); i += slow_device() ? 12 : 1) {
    Sampling sampling = all[i].sampling;
    sampling.seed = i;
    const Values counts = draw_counts(all[i].logits, slow_device() ? 200 : 2000, sampling);
    for (size_t j = 0; j < counts.size(); ++j)
      if (all[i].prob[j] == 0) {
        EXPECT_EQ(counts[j], 0) << "line " << i + 1 << ": token " << j << " is filtered out";
      }
    const double z = chi_square_deviate(counts, all[i].prob);
    EXPECT_LT(z, 4.5) << "line " << i + 1;  // one line in 1e5 by chance; draws are keyed, so a result repeats
    sum += z, ++lines;
  }
  EXPECT_LT(std::abs(sum) / std::sqrt(lines), 5) << "all lines together";
}

/// An update in one run gives the same as in runs that are cut anywhere, with any alignment; likewise the sum of
/// squares of a run that begins anywhere.
TEST(OpProperties, AnUpdateDoesNotDependOnWhereItsRunsAreCut) {
  const int64_t n = 5003;
  const AdamW params{1e-2f, 0.9f, 0.999f, 1e-8f, 0.1f, 3, 1.0f};
  for (const DType t : tested_types()) {
    Backend& b = test_backend(t);
    Values low(n);
    std::mt19937 random(3);
    for (double& x : low) x = static_cast<int16_t>(random());
    Values square = random_values(n, DType::f32, 1, 7);
    for (double& x : square) x = x * x;
    const Device1 norm2(b, DType::f64, {1}, {7.0});
    std::vector<std::vector<std::byte>> whole;
    for (const std::vector<int64_t>& cuts :
         std::vector<std::vector<int64_t>>{{0, n}, {0, 3, n}, {0, 8, 4096, n}, {0, 5, 17, 2050, n}, {0, n - 6, n}}) {
      const Device1 w(b, t, {n}, random_values(n, t, 1, 5)), m(b, DType::f32, {n}, random_values(n, DType::f32, 1, 6)),
          v(b, DType::f32, {n}, square), grad(b, DType::f32, {n}, random_values(n, DType::f32, 1, 8));
      const Device1 remainder(b, DType::i16, {n}, low);
      for (size_t i = 0; i + 1 < cuts.size(); ++i) {
        const int64_t begin = cuts[i], count = cuts[i + 1] - begin;
        b.adamw(w.tensor().rows(begin, count), t == DType::f32 ? Tensor() : remainder.tensor().rows(begin, count),
                m.tensor().rows(begin, count), v.tensor().rows(begin, count), grad.tensor().rows(begin, count), norm2,
                params);
      }
      const std::vector<std::vector<std::byte>> got{w.bytes(), m.bytes(), v.bytes(), grad.bytes(), remainder.bytes()};
      if (whole.empty()) whole = got;
      EXPECT_TRUE(got == whole) << dtype_name(t) << ", first run of " << cuts[1];
    }
  }
  Backend& b = test_backend(DType::f32);
  const Values x = random_values(n, DType::f32);
  for (const int64_t begin : {1, 2, 4, 7}) {
    const Device1 all(b, DType::f32, {n}, x), some(b, DType::f32, {n - begin}, Values(x.begin() + begin, x.end()));
    const Device1 shifted(b, DType::f64, {1}, {0.0}), aligned(b, DType::f64, {1}, {0.0});
    const ScopedWorkspace workspace(b, least_needs());
    b.sum_of_squares(shifted, all.tensor().rows(begin, n - begin));
    b.sum_of_squares(aligned, some);
    EXPECT_EQ(shifted.values()[0], aligned.values()[0]) << "from element " << begin;
  }
}

}  // namespace dapo::ops
