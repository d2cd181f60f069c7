// The cases of attention over segments and over pages.
#pragma once

#include "core/sizes.h"
#include "tests/ops/cases.h"

namespace dapo::ops {

/// Segments {length, prefix}, one after another.
inline std::vector<Segment> segments_of(std::initializer_list<std::pair<int32_t, int32_t>> list) {
  std::vector<Segment> s;
  int32_t begin = 0;
  for (const auto& [length, prefix] : list) s.push_back({begin, length, prefix}), begin += length;
  return s;
}
/// groups prompts of `prompt` tokens, each with `responses` of `length` tokens.
inline std::vector<Segment> groups_of(int groups, int32_t prompt, int responses, int32_t length) {
  std::vector<Segment> s;
  int32_t begin = 0;
  for (int g = 0; g < groups; ++g) {
    const int32_t prefix = s.size();
    s.push_back({begin, prompt, -1}), begin += prompt;
    for (int r = 0; r < responses; ++r) s.push_back({begin, length, prefix}), begin += length;
  }
  return s;
}

inline int64_t rows_of(const std::vector<Segment>& s) {
  return s.back().begin + s.back().length;
}
/// Pairs of a row and a row that it attends to.
inline double pairs_of(const std::vector<Segment>& s) {
  double pairs = 0;
  for (const Segment& x : s) {
    const double prefix = x.prefix < 0 ? 0 : s[x.prefix].length;
    pairs += x.length * (prefix + (x.length + 1) / 2.0);
  }
  return pairs;
}

inline WorkspaceNeeds attention_needs(const std::vector<Segment>& s, AttentionDims d) {
  WorkspaceNeeds n = least_needs();
  n.attention = d, n.hidden = d.q_width();
  n.max_tokens = n.max_rows = n.max_length = rows_of(s);
  n.max_segments = n.max_batch = std::ssize(s);
  return n;
}

struct PackedCase {
  std::vector<Segment> segments;
  std::vector<int32_t> flat;  ///< i32[S, 3]
};
inline std::shared_ptr<const PackedCase> pack(const std::vector<Segment>& s) {
  auto p = std::make_shared<PackedCase>();
  p->segments = s;
  for (const Segment& x : s) p->flat.insert(p->flat.end(), {x.begin, x.length, x.prefix});
  return p;
}
inline std::string describe(const std::vector<Segment>& s, AttentionDims d) {
  return dims(rows_of(s), d.heads, d.kv_heads, d.head_dim) + "/" + std::to_string(s.size()) + "segments";
}

inline OpCase attention_case(DType T, const std::vector<Segment>& s, AttentionDims d) {
  OpCase c{"attention", describe(s, d), T, attention_needs(s, d)};
  const auto p = pack(s);
  const int64_t N = rows_of(s);
  // Probabilities and sums are f32; values are averaged with weights that sum to one; scores are sums of D terms.
  const double depth = 2 * sum_depth(d.head_dim) + 32;
  c.out("out", T, {N, d.q_width()}, 1, depth), c.out("lse", DType::f32, {N, d.heads}, 0, depth);
  c.in("qkv", T, {N, d.qkv_width()}), c.index("segments", p->flat, {std::ssize(s), 3});
  c.run = [=](Backend& b, const std::vector<Tensor>& t) { b.attention(t[0], t[1], t[2], {p->segments, t[3]}, d); };
  c.reference = [=](std::vector<Values>& v) { attention(v[0], v[1], v[2], p->segments, d); };
  c.terms = [=](const std::vector<Values>& v) {  // probabilities may be rounded before the product with the values
    Values out(v[0].size()), lse(static_cast<size_t>(N * d.heads)), terms(out.size());
    attention(out, lse, v[2], p->segments, d, &terms);
    return terms;
  };
  return std::move(c).counted(4 * pairs_of(s) * static_cast<double>(d.q_width()));
}

inline OpCase attention_backward_case(DType T, const std::vector<Segment>& s, AttentionDims d) {
  OpCase c{"attention_backward", describe(s, d), T, attention_needs(s, d)};
  const auto p = pack(s);
  const int64_t N = rows_of(s);
  // In bf16 p and ds may be rounded before they enter a product.
  c.out("dqkv", T, {N, d.qkv_width()}, 1, 2 * sum_depth(N) + 4 * sum_depth(d.head_dim) + 64);
  c.in("dout", T, {N, d.q_width()}), c.in("qkv", T, {N, d.qkv_width()}), c.in("out", T, {N, d.q_width()});
  c.in("lse", DType::f32, {N, d.heads}, 0.1, 6), c.index("segments", p->flat, {std::ssize(s), 3});
  c.run = [=](Backend& b, const std::vector<Tensor>& t) {
    b.attention_backward(t[0], t[1], t[2], t[3], t[4], {p->segments, t[5]}, d);
  };
  c.derive = [=](std::vector<Values>& v) { attention(v[3], v[4], v[2], p->segments, d); };
  c.reference = [=](std::vector<Values>& v) { attention_backward(v[0], v[1], v[2], v[3], v[4], p->segments, d); };
  c.terms = [=](const std::vector<Values>& v) {
    Values dqkv(v[0].size()), terms(v[0].size());
    attention_backward(dqkv, v[1], v[2], v[3], v[4], p->segments, d, &terms);
    return terms;
  };
  c.loss = [=](const std::vector<Values>& v) {
    Values out(v[3].size()), lse(v[4].size());
    attention(out, lse, v[2], p->segments, d);
    return dot(v[1], out);
  };
  c.gradients = {{2, 0}};
  return std::move(c).counted(10 * pairs_of(s) * static_cast<double>(d.q_width()));
}

/// A pack as rollout has it: each segment is a sequence, and shares the pages of its prefix.
struct Paged {
  std::vector<int32_t> row_begin, prefix, own, pages;
  int64_t max_pages = 0, page_count = 0;
  int max_length = 0;
};
inline Paged paged_of(const std::vector<Segment>& s, int page_size) {
  Paged p;
  std::vector<std::vector<int32_t>> own(s.size());
  int32_t next = 0;
  const auto pages_for = [page_size](int32_t tokens) { return ceil_div(tokens, page_size); };
  for (size_t i = 0; i < s.size(); ++i)
    for (int32_t j = 0; j < pages_for(s[i].length); ++j) own[i].push_back(next++);
  p.page_count = next;
  for (size_t i = 0; i < s.size(); ++i) {
    const bool prompt = s[i].prefix < 0;
    p.row_begin.push_back(s[i].begin);
    p.prefix.push_back(prompt ? 0 : s[s[i].prefix].length);
    p.own.push_back(s[i].length);
    p.max_length = std::max(p.max_length, p.prefix.back() + p.own.back());
    if (!prompt) {
      const auto& shared = own[s[i].prefix];
      own[i].insert(own[i].begin(), shared.begin(), shared.end());
    }
    p.max_pages = std::max(p.max_pages, std::ssize(own[i]));
  }
  p.row_begin.push_back(static_cast<int32_t>(rows_of(s)));
  for (auto& list : own) {
    list.resize(p.max_pages, -1);  // a page that is never read
    p.pages.insert(p.pages.end(), list.begin(), list.end());
  }
  return p;
}

/// Writes the keys and values of all rows, then lets all rows attend, prompts and responses in one call: the result is
/// that of attention().
inline OpCase paged_attention_case(DType T, const std::vector<Segment>& s, AttentionDims d, int page_size) {
  OpCase c = attention_case(T, s, d);
  c.op = "paged_attention", c.shape += "/page" + std::to_string(page_size);
  const auto p = pack(s);
  const Paged g = paged_of(s, page_size);
  const auto B = std::ssize(s);
  int32_t longest = 0;
  for (const Segment& x : s) longest = std::max(longest, x.length);
  c.operands[1].role = Role::in;  // the op has no lse
  c.operands[0].name = "out";
  c.operands.push_back({"cache", T, {g.page_count, 2, d.kv_heads, page_size, d.head_dim}, Role::in, {}});
  c.operands.back().role = Role::out, c.operands.back().depth = INFINITY;  // its layout differs between backends
  const int r = c.index("row_begin", g.row_begin);
  c.index("prefix_length", g.prefix), c.index("own_length", g.own), c.index("pages", g.pages, {B, g.max_pages});
  c.run = [=](Backend& b, const std::vector<Tensor>& t) {
    const size_t at = r;
    const PagedSequences q{t[at], t[at + 1], t[at + 2], t[at + 3], page_size, longest, g.max_length};
    b.rope_kv_write(t[at - 1], t[2], {}, q, d);
    b.paged_attention(t[0], t[2], t[at - 1], q, d);
  };
  return c;
}

inline std::vector<OpCase> attention_cases(DType T) {
  std::vector<OpCase> all;
  const std::vector<std::vector<Segment>> packs = {
      segments_of({{1, -1}}), segments_of({{70, -1}}),
      segments_of({{5, -1}, {7, 0}, {1, 0}, {70, 0}, {65, -1}, {130, -1}, {64, 5}, {3, 5}}),
      segments_of({{64, -1}, {64, 0}, {65, 0}, {63, -1}, {1, 3}})};
  for (const auto& s : packs)
    for (const AttentionDims d : {AttentionDims{1, 1, 16}, {4, 2, 32}, {6, 1, 64}, {2, 2, 128}}) {
      all.push_back(attention_case(T, s, d));
      all.push_back(attention_backward_case(T, s, d));
      all.push_back(paged_attention_case(T, s, d, d.head_dim == 32 ? 128 : 64));
    }
  // A prompt with so many query rows after it (more than 4,096 with the heads packed) that cuda/ sums dk, dv in parts.
  for (const int d : {32, 64, 128})
    if (T == DType::bf16) all.push_back(attention_backward_case(T, groups_of(1, 70, 9, 32), {16, 1, d}));
  return all;
}

}  // namespace dapo::ops
