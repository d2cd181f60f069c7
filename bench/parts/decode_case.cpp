#include "bench/parts/decode_case.h"

#include "bench/parts/expected.h"
#include "core/sizes.h"
#include "tests/ops/cases_attention.h"

namespace dapo::bench {
namespace {

constexpr int kPage = 64;
// Keys and values are rows of one random table: token i of sequence b has row 29 b + i, token i of prompt g has row
// 17 g + i.
constexpr int kOwnStep = 29, kPromptStep = 17;
enum : size_t { kOut, kQkv, kTable, kCache, kRowBegin, kPrefix, kOwn, kPages, kFill };

}  // namespace

BenchCase decode_case(DType t, AttentionDims d, int batch, int group, int prefix, int own) {
  const int groups = ceil_div(batch, group);
  const auto pages_for = [](int tokens) { return ceil_div(tokens, kPage); };
  const int prompt_pages = pages_for(prefix), own_pages = pages_for(own), most = prompt_pages + own_pages;
  std::vector<int32_t> pages, row_begin, fill{0, prefix, 0, own, prefix, 0};
  for (int b = 0; b < batch; ++b) {
    row_begin.push_back(b);
    for (int i = 0; i < prompt_pages; ++i) pages.push_back(b / group * prompt_pages + i);
    for (int i = 0; i < own_pages; ++i) pages.push_back(groups * prompt_pages + b * own_pages + i);
  }
  row_begin.push_back(batch);
  const auto same = [batch](int x) { return std::vector<int32_t>(batch, x); };

  BenchCase c{{"paged_attention",
               fmt::format("B{}/{}+{}x{}", batch, prefix, own, ops::dims(d.heads, d.kv_heads, d.head_dim)), t,
               ops::least_needs()}};
  ops::OpCase& op = c.op;
  op.needs.attention = d, op.needs.hidden = d.q_width();
  op.needs.max_batch = op.needs.max_rows = op.needs.max_segments = batch;
  op.needs.max_length = prefix + own;
  op.out("out", t, {batch, d.q_width()}, 1, 2 * ops::sum_depth(d.head_dim) + 32);
  op.in("qkv", t, {batch, d.qkv_width()});
  op.in("table", t, {std::max(own + kOwnStep * batch, prefix + kPromptStep * groups), d.qkv_width()});
  op.out("cache", t, {int64_t{groups} * prompt_pages + int64_t{batch} * own_pages, 2, d.kv_heads, kPage, d.head_dim}, 0,
         INFINITY);
  op.index("row_begin", row_begin), op.index("prefix_length", same(prefix)), op.index("own_length", same(own));
  op.index("pages", pages, {batch, most}), op.index("fill", fill);
  op.run = [=](Backend& b, const std::vector<Tensor>& x) {
    const PagedSequences q{x[kRowBegin], x[kPrefix], x[kOwn], x[kPages], kPage, 1, prefix + own};
    b.paged_attention(x[kOut], x[kQkv], x[kCache], q, d);
  };
  c.prepare = [=](Backend& b, const std::vector<Tensor>& x) {
    const Tensor& f = x[kFill];  // row_begin of a prompt, row_begin of a response, prefix of it, no prefix
    for (int i = 0; i < groups && prefix > 0; ++i)
      b.rope_kv_write(x[kCache], x[kTable].rows(kPromptStep * i, prefix), {},
                      {f.rows(0, 2), f.rows(5, 1), f.rows(1, 1), x[kPages].rows(std::min(i * group, batch - 1), 1),
                       kPage, prefix, prefix},
                      d);
    for (int i = 0; i < batch; ++i)
      b.rope_kv_write(x[kCache], x[kTable].rows(kOwnStep * i, own), {},
                      {f.rows(2, 2), f.rows(4, 1), f.rows(3, 1), x[kPages].rows(i, 1), kPage, own, prefix + own}, d);
    b.synchronize();
  };
  c.expected = [=](Sampled& s, int, int64_t e) {
    const ops::Packed at(d);
    const int64_t row = e / d.q_width(), head = e % d.q_width() / d.head_dim, kv = head / (d.heads / d.kv_heads);
    return expected_attention_row(s, 1, at.q(row, head), 2, prefix + own, d.head_dim, e % d.head_dim, [&](int64_t j) {
      const int64_t from = j < prefix ? kPromptStep * (row / group) + j : kOwnStep * row + j - prefix;
      return std::pair(at.k(from, kv), at.v(from, kv));
    });
  };
  const double size = dtype_size(t), tokens = double{1} * groups * prefix + double{1} * batch * own;
  op.bytes = size * (2 * tokens * d.kv_width() + 2.0 * batch * d.q_width());
  op.flops = 4.0 * batch * (prefix + own) * d.q_width();
  return c;
}

}  // namespace dapo::bench
