#include "bench/parts/expected.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <random>

#include "tests/ops/reference.h"

namespace dapo::bench {
namespace {

using ops::Values;

Values read(Sampled& s, int operand, int64_t begin, int64_t count) {
  Values v(count);
  s.read(operand, begin, count, v.data());
  return v;
}
int64_t index_at(Sampled& s, int operand, int64_t i) {
  return static_cast<int64_t>(s.at(operand, i));
}

/// Place of an element on each axis of its tensor.
std::map<char, int64_t> place_of(const std::string& axes, const Tensor& t, int64_t element) {
  std::map<char, int64_t> place;
  for (int d = t.rank - 1; d >= 0; --d) place[axes[d]] = element % t.dim(d), element /= t.dim(d);
  return place;
}

}  // namespace

ExpectedFn expected_of_slice(const ops::OpCase& c, const std::vector<std::string>& axes,
                             const std::vector<std::pair<int, std::string>>& sampled) {
  CHECK_EQ(axes.size(), c.operands.size(), "{}", c.name());
  ops::OpCase small = c;  // without contents: these are read from the device
  for (ops::Operand& o : small.operands) o.preset.clear();
  return [small, axes, sampled](Sampled& s, int output, int64_t element) {
    std::string fixed;
    for (const auto& [operand, letters] : sampled)
      if (operand == output) fixed = letters;
    const auto place = place_of(axes[output], s.tensor(output), element);
    const auto at = [&](char axis) { return place.contains(axis) ? place.at(axis) : 0; };
    std::vector<Values> values;
    int64_t where = 0;  // of the element in its slice
    for (size_t i = 0; i < axes.size(); ++i) {
      const int operand = int(i);
      const Tensor& t = s.tensor(operand);
      const bool before = small.operands[i].role == ops::Role::inout;
      std::vector<int64_t> places{0};
      int64_t here = 0;
      for (int d = 0; d < t.rank; ++d) {
        const bool one = fixed.find(axes[i][d]) != std::string::npos;
        std::vector<int64_t> next;
        for (const int64_t p : places)
          for (int64_t k = one ? at(axes[i][d]) : 0, end = one ? k + 1 : t.dim(d); k < end; ++k)
            next.push_back(p * t.dim(d) + k);
        here = one ? here : here * t.dim(d) + at(axes[i][d]);
        places = std::move(next);
      }
      if (operand == output) where = here;
      Values v(places.size());
      if (!places.empty() && places.back() - places.front() + 1 == std::ssize(places) && !before)
        s.read(operand, places.front(), std::ssize(places), v.data());
      else
        for (size_t k = 0; k < v.size(); ++k) v[k] = before ? s.before(operand, places[k]) : s.at(operand, places[k]);
      values.push_back(std::move(v));
    }
    small.reference(values);
    return Expected{values[output][where], 0};
  };
}

GotFn decoded_got(const ops::OpCase& c) {
  ops::OpCase small = c;
  for (ops::Operand& o : small.operands) o.preset.clear();
  return [small](Sampled& s, int operand, int64_t e) {
    std::vector<Values> v;
    for (size_t i = 0; i < small.operands.size(); ++i) v.push_back({s.at(int(i), std::min(e, s.numel(int(i)) - 1))});
    small.decode(v);
    return v[operand][0];
  };
}

// ---- rows by index ------------------------------------------------------------------------------------------------

ExpectedFn expected_gather(int64_t width) {
  return [=](Sampled& s, int, int64_t e) {
    Values y(width);
    ops::gather_rows(y, read(s, 1, index_at(s, 2, e / width) * width, width), {0}, width);
    return Expected{y[e % width], 0};
  };
}

namespace {

/// The rows of `operand` that `list`[begin, end) names, one after the other.
Values listed_rows(Sampled& s, int operand, int list, int64_t begin, int64_t end, int64_t width) {
  Values all;
  for (int64_t j = begin; j < end; ++j) {
    const Values row = read(s, operand, index_at(s, list, j) * width, width);
    all.insert(all.end(), row.begin(), row.end());
  }
  return all;
}
Values counted(int64_t n) {
  Values v(n);
  for (int64_t i = 0; i < n; ++i) v[i] = double(i);
  return v;
}

}  // namespace

ExpectedFn expected_sum_rows(int64_t width) {
  return [=](Sampled& s, int, int64_t e) {
    const int64_t begin = index_at(s, 2, e / width), end = index_at(s, 2, e / width + 1);
    Values dx(width);
    ops::sum_rows(dx, listed_rows(s, 1, 3, begin, end, width), {0, double(end - begin)}, counted(end - begin), width);
    return Expected{dx[e % width], 0};
  };
}

ExpectedFn expected_embedding_backward(int64_t width) {
  return [=](Sampled& s, int, int64_t e) {
    int64_t u = 0;
    while (u < s.numel(2) && index_at(s, 2, u) < e / width) ++u;  // unique ids are sorted
    Values dtable(width);
    for (int64_t c = 0; c < width; ++c) dtable[c] = s.before(0, e / width * width + c);
    if (u < s.numel(2) && index_at(s, 2, u) == e / width) {
      const int64_t begin = index_at(s, 3, u), end = index_at(s, 3, u + 1);
      ops::embedding_backward(dtable, listed_rows(s, 1, 4, begin, end, width), {0}, {0, double(end - begin)},
                              counted(end - begin), width);
    }
    return Expected{dtable[e % width], 0};
  };
}

// ---- attention ----------------------------------------------------------------------------------------------------

Expected expected_attention_row(Sampled& s, int q_operand, int64_t q, int operand, int64_t keys, int head_dim,
                                int column, const std::function<std::pair<int64_t, int64_t>(int64_t)>& where) {
  Values k(keys * head_dim), v(keys * head_dim);
  for (int64_t j = 0; j < keys; ++j) {
    s.read(operand, where(j).first, head_dim, &k[j * head_dim]);
    s.read(operand, where(j).second, head_dim, &v[j * head_dim]);
  }
  const ops::AttentionRow row = ops::attention_row(read(s, q_operand, q, head_dim), k, v);
  return column < 0 ? Expected{row.lse, 0} : Expected{row.out[column], row.terms[column]};
}

namespace {

size_t segment_of(const std::vector<Segment>& segments, int64_t row) {
  size_t i = 0;
  while (row >= segments[i].begin + segments[i].length) ++i;
  return i;
}

}  // namespace

ExpectedFn expected_attention(std::vector<Segment> segments, AttentionDims d) {
  return [segments = std::move(segments), d](Sampled& s, int operand, int64_t e) {
    const ops::Packed at(d);
    const int64_t D = d.head_dim, slot = operand == 0 ? e / D : e, row = slot / d.heads, head = slot % d.heads;
    const size_t i = segment_of(segments, row), kv = head / (d.heads / d.kv_heads);
    const std::vector<size_t> keys = ops::visible(segments, i, row - segments[i].begin);
    return expected_attention_row(s, 2, at.q(row, head), 2, std::ssize(keys), d.head_dim, operand == 0 ? e % D : -1,
                                  [&](int64_t j) { return std::pair(at.k(keys[j], kv), at.v(keys[j], kv)); });
  };
}

ExpectedFn expected_attention_backward(std::vector<Segment> segments, AttentionDims d) {
  return [segments = std::move(segments), d](Sampled& s, int, int64_t e) {
    const ops::Packed at(d);
    const int64_t D = d.head_dim, group = d.heads / d.kv_heads, row = e / d.qkv_width(), column = e % d.qkv_width();
    const size_t own = segment_of(segments, row);
    const auto q_of = [&](int64_t query, int64_t head) { return read(s, 2, at.q(query, head), D); };
    const auto dout_of = [&](int64_t query, int64_t head) { return read(s, 1, (query * d.heads + head) * D, D); };
    const auto pair = [&](int64_t query, int64_t head, int64_t key) {
      const int64_t slot = query * d.heads + head, kv = head / group;
      return ops::attention_pair(q_of(query, head).data(), read(s, 2, at.k(key, kv), D).data(),
                                 read(s, 2, at.v(key, kv), D).data(), dout_of(query, head).data(),
                                 read(s, 3, slot * D, D).data(), s.at(4, slot), D);
    };
    Expected x;
    const auto add = [&x](double term) { x.value += term, x.terms += std::abs(term); };
    if (column < d.q_width()) {
      const int64_t head = column / D;
      for (const size_t key : ops::visible(segments, own, row - segments[own].begin))
        add(pair(row, head, key).ds * s.at(2, at.k(key, head / group) + column % D));
      return x;
    }
    // dk, dv: over the queries that see this row as a key.
    const bool of_v = column >= d.q_width() + d.kv_width();
    const int64_t kv = (column - d.q_width()) / D % d.kv_heads;
    for (size_t i = 0; i < segments.size(); ++i) {
      if (i != own && segments[i].prefix != int32_t(own)) continue;
      for (int64_t query = std::max<int64_t>(segments[i].begin, i == own ? row : 0);
           query < segments[i].begin + segments[i].length; ++query)
        for (int64_t head = kv * group; head < (kv + 1) * group; ++head) {
          const auto [p, ds] = pair(query, head, row);
          add(of_v ? p * dout_of(query, head)[column % D] : ds * q_of(query, head)[column % D]);
        }
    }
    return x;
  };
}

// ---- head ---------------------------------------------------------------------------------------------------------

std::vector<int64_t> dear_rows(int64_t rows) {
  constexpr int64_t kDearRows = 2;
  std::mt19937_64 random(rows);
  std::vector<int64_t> picked{rows - 1};
  while (std::ssize(picked) < std::min(kDearRows, rows)) {
    const int64_t r = random() % uint64_t(rows);
    if (std::find(picked.begin(), picked.end(), r) == picked.end()) picked.push_back(r);
  }
  return picked;
}

namespace {

/// Logits of the dear rows, computed together in one pass over the head.
class Logits {
 public:
  Logits(int x, int head, int64_t width, int64_t vocab) : x_(x), head_(head), width_(width), vocab_(vocab) {}
  const Values& row(Sampled& s, int64_t r) {
    if (rows_.empty()) compute(s);
    return rows_.at(r);
  }

 private:
  void compute(Sampled& s) {
    constexpr int64_t kStrip = 256;  // entries of the vocabulary at once
    for (const int64_t r : dear_rows(s.numel(x_) / width_)) rows_[r];
    for (int64_t begin = 0; begin < vocab_; begin += kStrip) {
      const Values strip = read(s, head_, begin * width_, std::min(kStrip, vocab_ - begin) * width_);
      for (auto& [r, z] : rows_) {
        const Values part = ops::product(read(s, x_, r * width_, width_), strip, width_);
        z.insert(z.end(), part.begin(), part.end());
      }
    }
  }
  int x_, head_;
  int64_t width_, vocab_;
  std::map<int64_t, Values> rows_;
};

}  // namespace

ExpectedFn expected_lm_logprob(int64_t width, int64_t vocab) {
  const auto logits = std::make_shared<Logits>(1, 2, width, vocab);
  return [=](Sampled& s, int operand, int64_t r) {
    const ops::HeadRow h = ops::head_row(logits->row(s, r), index_at(s, 3, r));
    return Expected{operand == 0 ? h.log_prob : h.entropy, 0};
  };
}

ExpectedFn expected_lm_sample(int64_t width, int64_t vocab) {
  const auto logits = std::make_shared<Logits>(2, 3, width, vocab);
  return [=](Sampled& s, int, int64_t r) {
    return Expected{ops::head_row(logits->row(s, r), index_at(s, 0, r)).log_prob, 0};
  };
}

ExpectedFn expected_lm_dapo(int64_t width, int64_t vocab, int64_t rows, DapoLoss params) {
  const auto logits = std::make_shared<Logits>(6, 7, width, vocab);
  // d logits of every row for one entry of the vocabulary, from the log-probs that the op gave (compared themselves).
  const auto columns = std::make_shared<std::map<int64_t, Values>>();
  const auto loss = [=](Sampled& s, int64_t r, double log_prob) {
    const double old = s.at(9, r);
    return ops::policy_loss(log_prob, &old, s.at(10, r), params);
  };
  const auto column = [=](Sampled& s, int64_t v) -> const Values& {
    Values& dz = (*columns)[v];
    for (int64_t r = std::ssize(dz); r < rows; ++r) {
      const Values x = read(s, 6, r * width, width);
      const int64_t target = index_at(s, 8, r);
      const auto logit = [&](int64_t entry) { return ops::dot(x, read(s, 7, entry * width, width)); };
      const double log_prob = s.at(2, r), p = std::exp(logit(v) - logit(target) + log_prob);
      dz.push_back(ops::logit_gradient(loss(s, r, log_prob), s.at(11, r), p, v == target, 1.0));
    }
    return dz;
  };
  return [=](Sampled& s, int operand, int64_t e) {
    if (operand == 1) {
      const Values& dz = column(s, e / width);
      Expected x{s.before(1, e), 0};
      for (int64_t r = 0; r < rows; ++r) x.value += dz[r] * s.at(6, r * width + e % width);
      return x;
    }
    const int64_t r = operand == 0 ? e / width : e, target = index_at(s, 8, r);
    const ops::HeadRow h = ops::head_row(logits->row(s, r), target);
    const ops::PolicyLoss l = loss(s, r, h.log_prob);
    if (operand != 0)
      return Expected{operand == 2 ? h.log_prob : operand == 3 ? h.entropy : operand == 4 ? l.loss : l.clip, 0};
    Expected x;
    for (int64_t v = 0; v < vocab; ++v)
      x.value += ops::logit_gradient(l, s.at(11, r), h.p[v], v == target, 1.0) * s.at(7, v * width + e % width);
    return x;
  };
}

void scatter_old_log_probs(Backend& b, const std::vector<Tensor>& t) {
  b.lm_logprob(t[9], {}, t[6], t[7], t[8], 1.0f);
  std::vector<float> old(t[9].numel());
  b.copy_out_now(old.data(), t[9]);
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (float& x : old) x += 0.5f * normal(random);
  b.copy_in(t[9], old.data());
  b.synchronize();
}

}  // namespace dapo::bench
