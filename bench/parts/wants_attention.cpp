#include <algorithm>
#include <cmath>

#include "bench/parts/wants.h"
#include "tests/ops/reference.h"

namespace dapo::bench {
namespace {

using ops::Values;

Values row_of(Sampled& s, int operand, int64_t begin, int64_t count) {
  Values v(static_cast<size_t>(count));
  s.read(operand, begin, count, v.data());
  return v;
}

size_t segment_of(const std::vector<Segment>& segments, int64_t row) {
  size_t i = 0;
  while (row >= segments[i].begin + segments[i].length) ++i;
  return i;
}

struct Where {
  int64_t row, head, column;
};

}  // namespace

Want attend(Sampled& s, int q_operand, int64_t q, int operand, int64_t keys, int head_dim, int column,
            const std::function<std::pair<int64_t, int64_t>(int64_t)>& where) {
  const Values query = row_of(s, q_operand, q, head_dim);
  const double scale = 1 / std::sqrt(static_cast<double>(head_dim));
  Values scores;
  for (int64_t j = 0; j < keys; ++j)
    scores.push_back(scale * ops::dot(query, row_of(s, operand, where(j).first, head_dim)));
  const double most = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (const double x : scores) sum += std::exp(x - most);
  if (column < 0) return {most + std::log(sum), 0};
  Want w;
  for (int64_t j = 0; j < keys; ++j) {
    const double term = std::exp(scores[static_cast<size_t>(j)] - most) / sum * s.at(operand, where(j).second + column);
    w.value += term, w.terms += std::abs(term);
  }
  return w;
}

WantFn attention_want(std::vector<Segment> segments, AttentionDims d) {
  return [segments = std::move(segments), d](Sampled& s, int operand, int64_t e) {
    const ops::Packed at(d);
    const int64_t D = d.head_dim;
    const Where to =
        operand == 0 ? Where{e / D / d.heads, e / D % d.heads, e % D} : Where{e / d.heads, e % d.heads, -1};
    const size_t i = segment_of(segments, to.row);
    const std::vector<size_t> keys = ops::visible(segments, i, static_cast<int32_t>(to.row - segments[i].begin));
    const auto kv = static_cast<size_t>(to.head / (d.heads / d.kv_heads));
    return attend(s, 2, static_cast<int64_t>(at.q(static_cast<size_t>(to.row), static_cast<size_t>(to.head))), 2,
                  static_cast<int64_t>(keys.size()), d.head_dim, static_cast<int>(to.column), [&](int64_t j) {
                    const size_t row = keys[static_cast<size_t>(j)];
                    return std::pair(static_cast<int64_t>(at.k(row, kv)), static_cast<int64_t>(at.v(row, kv)));
                  });
  };
}

namespace {

/// p and ds of query row `row`, head `head` against key row `key`.
struct Pair {
  double p, ds;
};
class PairOf {
 public:
  PairOf(Sampled& s, const AttentionDims& d) : s_(s), d_(d), at_(d) {}
  Pair operator()(size_t row, size_t head, size_t key) {
    const size_t kv = head / static_cast<size_t>(d_.heads / d_.kv_heads);
    const auto D = static_cast<int64_t>(at_.D);
    const auto slot = static_cast<int64_t>(row) * d_.heads + static_cast<int64_t>(head);
    const Values q = row_of(s_, 2, static_cast<int64_t>(at_.q(row, head)), D), dout = row_of(s_, 1, slot * D, D);
    const Values k = row_of(s_, 2, static_cast<int64_t>(at_.k(key, kv)), D),
                 v = row_of(s_, 2, static_cast<int64_t>(at_.v(key, kv)), D), out = row_of(s_, 3, slot * D, D);
    const double scale = 1 / std::sqrt(static_cast<double>(D));
    const double p = std::exp(ops::dot(q, k) * scale - s_.at(4, slot));
    return {p, p * (ops::dot(dout, v) - ops::dot(dout, out)) * scale};
  }

 private:
  Sampled& s_;
  AttentionDims d_;
  ops::Packed at_;
};

}  // namespace

WantFn attention_backward_want(std::vector<Segment> segments, AttentionDims d) {
  return [segments = std::move(segments), d](Sampled& s, int, int64_t e) {
    const ops::Packed at(d);
    const auto W = static_cast<int64_t>(at.width), D = static_cast<int64_t>(at.D);
    const auto row = static_cast<size_t>(e / W);
    const int64_t column = e % W, c = column % D;
    const size_t own = segment_of(segments, e / W);
    PairOf pair(s, d);
    Want w;
    const auto add = [&w](double term) { w.value += term, w.terms += std::abs(term); };
    if (column < d.q_width()) {
      const auto head = static_cast<size_t>(column / D), kv = head / static_cast<size_t>(d.heads / d.kv_heads);
      for (const size_t key : ops::visible(segments, own, static_cast<int32_t>(e / W) - segments[own].begin))
        add(pair(row, head, key).ds * s.at(2, static_cast<int64_t>(at.k(key, kv)) + c));
      return w;
    }
    const bool of_v = column >= d.q_width() + d.kv_width();
    const int64_t kv = (column - d.q_width()) / D % d.kv_heads;
    const int64_t group = d.heads / d.kv_heads;
    for (size_t i = 0; i < segments.size(); ++i) {
      if (i != own && segments[i].prefix != static_cast<int32_t>(own)) continue;
      for (int32_t n = 0; n < segments[i].length; ++n) {
        const auto q = static_cast<size_t>(segments[i].begin + n);
        if (i == own && q < row) continue;
        for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
          const auto head = static_cast<size_t>(h);
          const Pair x = pair(q, head, row);
          add(of_v ? x.p * s.at(1, (static_cast<int64_t>(q) * d.heads + h) * D + c)
                   : x.ds * s.at(2, static_cast<int64_t>(at.q(q, head)) + c));
        }
      }
    }
    return w;
  };
}

}  // namespace dapo::bench
