#include <cmath>
#include <map>
#include <memory>
#include <random>

#include "bench/parts/wants.h"
#include "tests/ops/reference.h"

namespace dapo::bench {
namespace {

using ops::Values;

/// Logits of the sampled rows, computed together in one pass over the head.
class Logits {
 public:
  Logits(int x, int head, int64_t width, int64_t vocab) : x_(x), head_(head), width_(width), vocab_(vocab) {}
  const Values& row(Sampled& s, int64_t r) {
    if (rows_.empty()) compute(s);
    return rows_.at(r);
  }

 private:
  void compute(Sampled& s) {
    constexpr int64_t kStrip = 256;
    const auto width = static_cast<size_t>(width_);
    std::vector<Values> x;
    std::vector<Values*> z;
    for (const int64_t r : dear_rows(s.numel(x_) / width_)) {
      x.emplace_back(width);
      s.read(x_, r * width_, width_, x.back().data());
      Values& row = rows_[r];
      row.resize(static_cast<size_t>(vocab_));
      z.push_back(&row);
    }
    Values strip(static_cast<size_t>(kStrip) * width);
    for (int64_t begin = 0; begin < vocab_; begin += kStrip) {
      const int64_t n = std::min(kStrip, vocab_ - begin);
      s.read(head_, begin * width_, n * width_, strip.data());
#pragma omp parallel for
      for (int64_t j = 0; j < n; ++j)
        for (size_t r = 0; r < x.size(); ++r) {
          double sum = 0;
          const double *a = x[r].data(), *b = &strip[static_cast<size_t>(j) * width];
#pragma omp simd reduction(+ : sum)
          for (size_t c = 0; c < width; ++c) sum += a[c] * b[c];
          (*z[r])[static_cast<size_t>(begin + j)] = sum;
        }
    }
  }
  int x_, head_;
  int64_t width_, vocab_;
  std::map<int64_t, Values> rows_;
};

double log_prob_of(const Values& z, double target) {
  const auto t = static_cast<size_t>(target);
  return t < z.size() ? z[t] - ops::softmax(z.data(), z.size()).lse : NAN;
}

}  // namespace

WantFn lm_logprob_want(int64_t width, int64_t vocab) {
  const auto logits = std::make_shared<Logits>(1, 2, width, vocab);
  return [=](Sampled& s, int operand, int64_t r) {
    const Values& z = logits->row(s, r);
    return Want{operand == 0 ? log_prob_of(z, s.at(3, r)) : ops::softmax(z.data(), z.size()).entropy, 0};
  };
}

WantFn lm_sample_want(int64_t width, int64_t vocab) {
  const auto logits = std::make_shared<Logits>(2, 3, width, vocab);
  return [=](Sampled& s, int, int64_t r) { return Want{log_prob_of(logits->row(s, r), s.at(0, r)), 0}; };
}

void scatter_old_log_probs(Backend& b, const std::vector<Tensor>& t) {
  b.lm_logprob(t[9], {}, t[6], t[7], t[8], 1.0f);
  std::vector<float> old(static_cast<size_t>(t[9].numel()));
  b.copy_out_now(old.data(), t[9]);
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (float& x : old) x += 0.5f * normal(random);
  b.copy_in(t[9], old.data());
  b.synchronize();
}

namespace {

/// Gradient of the loss by z[r, v] over (weight * p-term), and the loss, of one row at this log-prob.
struct TokenLoss {
  double loss = 0, dlogp = 0;
  int clip = 0;
  TokenLoss(Sampled& s, int64_t r, double log_prob) {
    ops::token_loss(log_prob, s.at(9, r), s.at(10, r), {0.2f, 0.28f, 3.0f, 20.0f}, loss, dlogp, clip);
  }
};

/// dz[r, v] of every row for the sampled entries v of the vocabulary, from the log-probs that the op gave (they are
/// compared by themselves).
class ColumnGradients {
 public:
  ColumnGradients(int64_t width, int64_t rows) : width_(width), rows_(rows) {}
  const Values& of(Sampled& s, int64_t v) {
    Values& dz = columns_[v];
    if (!dz.empty()) return dz;
    const auto logit = [&](const Values& x, int64_t entry) {
      Values h(x.size());
      s.read(7, entry * width_, width_, h.data());
      return ops::dot(x, h);
    };
    for (int64_t r = 0; r < rows_; ++r) {
      Values x(static_cast<size_t>(width_));
      s.read(6, r * width_, width_, x.data());
      const auto target = static_cast<int64_t>(s.at(8, r));
      const double log_prob = s.at(2, r), p = std::exp(logit(x, v) - logit(x, target) + log_prob);
      dz.push_back(s.at(11, r) * TokenLoss(s, r, log_prob).dlogp * ((v == target) - p));
    }
    return dz;
  }

 private:
  int64_t width_, rows_;
  std::map<int64_t, Values> columns_;
};

}  // namespace

WantFn lm_dapo_want(int64_t width, int64_t vocab, int64_t rows) {
  const auto logits = std::make_shared<Logits>(6, 7, width, vocab);
  const auto columns = std::make_shared<ColumnGradients>(width, rows);
  return [=](Sampled& s, int operand, int64_t e) {
    if (operand == 1) {
      const Values& dz = columns->of(s, e / width);
      Want w{s.before(1, e), 0};
      for (int64_t r = 0; r < rows; ++r) w.value += dz[static_cast<size_t>(r)] * s.at(6, r * width + e % width);
      return w;
    }
    const int64_t r = operand == 0 ? e / width : e;
    const Values& z = logits->row(s, r);
    const auto target = static_cast<size_t>(s.at(8, r));
    const ops::Softmax soft = ops::softmax(z.data(), z.size());
    const double log_prob = z[target] - soft.lse;
    const TokenLoss token(s, r, log_prob);
    if (operand == 2) return Want{log_prob, 0};
    if (operand == 3) return Want{soft.entropy, 0};
    if (operand == 4) return Want{token.loss, 0};
    if (operand == 5) return Want{static_cast<double>(token.clip), 0};
    Want w;
    for (size_t v = 0; v < z.size(); ++v)
      w.value += s.at(11, r) * token.dlogp * ((v == target) - soft.p[v]) *
                 s.at(7, static_cast<int64_t>(v) * width + e % width);
    return w;
  };
}

}  // namespace dapo::bench
