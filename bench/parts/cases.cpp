#include "bench/parts/cases.h"

#include <algorithm>
#include <map>
#include <random>

#include "bench/parts/decode_case.h"
#include "bench/parts/wants.h"
#include "tests/ops/cases.h"
#include "tests/ops/cases_attention.h"
#include "tests/ops/cases_head.h"

namespace dapo::bench {
namespace {

using ops::OpCase;

constexpr int kSamples = 24;    // elements of an output
constexpr int kDearRows = 2;    // where a row costs a pass over the head: rows
constexpr int kRowSamples = 8;  // and elements of each

/// The case without operands that only its gradient check reads: their bytes are not moved.
OpCase without(OpCase c, std::initializer_list<int> unused) {
  for (const int i : unused) {
    const ops::Operand& o = c.operands[static_cast<size_t>(i)];
    c.bytes -= static_cast<double>(o.numel()) * static_cast<double>(dtype_size(o.dtype));
  }
  return c;
}

std::vector<Segment> grouped(int64_t tokens) {
  return ops::groups_of(2, static_cast<int32_t>(tokens / 8), 4, static_cast<int32_t>(3 * tokens / 32));
}
std::vector<Segment> sequences_of(int64_t tokens, int length) {
  return ops::groups_of(static_cast<int>(std::max<int64_t>(1, tokens / length)), length, 0, 0);
}

BenchCase attention_of(DType t, const std::vector<Segment>& s, AttentionDims d, bool backward) {
  BenchCase c{backward ? ops::attention_backward_case(t, s, d) : ops::attention_case(t, s, d)};
  c.want = backward ? attention_backward_want(s, d) : attention_want(s, d);
  if (backward)
    c.prepare = [s, d](Backend& b, const std::vector<Tensor>& x) { b.attention(x[3], x[4], x[2], {s, x[5]}, d); };
  const bool equal =
      std::all_of(s.begin(), s.end(), [&](const Segment& x) { return x.prefix < 0 && x.length == s[0].length; });
  if (equal) c.sequences = {static_cast<int>(s.size()), s[0].length, d, backward};
  return c;
}

void add_rows(std::vector<BenchCase>& all, const BenchShape& m, DType t) {
  const int64_t N = m.tokens, C = m.hidden;
  all.push_back({ops::embedding_case(t, N, m.vocab, C, 0), gather_rows_want(C)});
  all.push_back({ops::embedding_backward_case(t, N, m.vocab, C), embedding_backward_want(C)});
  all.push_back({ops::gather_rows_case(t, DType::f32, N, N, C), gather_rows_want(C)});
  all.push_back({ops::sum_rows_case(t, N, N, C), sum_rows_want(C)});
  for (const int64_t rows : {m.batches.back(), N}) {
    all.push_back({ops::rmsnorm_case(t, rows, C, true), rmsnorm_want(C)});
    all.push_back({ops::swiglu_case(t, rows, m.ffn), swiglu_want(m.ffn)});
    all.push_back({ops::rope_case(t, rows, m.heads, false), rope_want(m.heads)});
  }
  all.push_back({ops::rmsnorm_backward_case(t, N, C), rmsnorm_backward_want(C)});
  all.push_back({ops::swiglu_backward_case(t, N, m.ffn, true), swiglu_backward_want(m.ffn)});
}

void add_products(std::vector<BenchCase>& all, const BenchShape& m, DType t) {
  struct Weight {
    int64_t o, i;
    bool bias;
  };
  std::vector<int64_t> rows = m.batches;
  rows.push_back(m.tokens);
  for (const auto& [o, i, bias] : {Weight{m.heads.qkv_width(), m.hidden, true},
                                   {m.hidden, m.heads.q_width(), false},
                                   {2 * m.ffn, m.hidden, false},
                                   {m.hidden, m.ffn, false}}) {
    for (const int64_t n : rows) {
      BenchCase c{ops::matmul_case(t, n, o, i, bias), matmul_want(o, i, bias)};
      c.product = true;
      all.push_back(std::move(c));
    }
    BenchCase dx{without(ops::matmul_backward_input_case(t, m.tokens, o, i), {3}), matmul_backward_input_want(o, i)};
    BenchCase dw{without(ops::matmul_backward_weight_case(t, m.tokens, o, i, bias), {3}),
                 matmul_backward_weight_want(m.tokens, o, i)};
    if (bias) dw.op = without(std::move(dw.op), {5});
    dx.product = dw.product = true;
    all.push_back(std::move(dx)), all.push_back(std::move(dw));
  }
}

void add_attention(std::vector<BenchCase>& all, const BenchShape& m, DType t) {
  for (const bool backward : {false, true}) {
    all.push_back(attention_of(t, grouped(m.tokens), m.heads, backward));
    for (const int length : m.lengths)
      all.push_back(attention_of(t, sequences_of(m.tokens, length), m.heads, backward));
  }
  for (const int64_t batch : m.batches)
    for (const int context : m.contexts) all.push_back(decode_case(t, m.heads, static_cast<int>(batch), 1, 0, context));
  const int batch = static_cast<int>(m.batches.back()), context = m.contexts.back();
  const int group = std::min(16, batch);
  all.push_back(decode_case(t, m.heads, batch, group, context / 2, context / 2));
}

void add_head(std::vector<BenchCase>& all, const BenchShape& m, DType t) {
  const auto add = [&all](OpCase op, auto want) {
    BenchCase c{std::move(op), std::move(want)};
    c.dear_row = true;
    all.push_back(std::move(c));
  };
  add(ops::lm_logprob_case(t, m.head_rows, m.vocab, m.hidden, 1.0f, true), lm_logprob_want(m.hidden, m.vocab));
  add(ops::lm_dapo_case(t, m.head_rows, m.vocab, m.hidden, 1.0f, false), lm_dapo_want(m.hidden, m.vocab, m.head_rows));
  all.back().prepare = scatter_old_log_probs;
  for (const Sampling& s : {Sampling{1.0f, 0, 1.0f, 0.0f, 1}, Sampling{1.0f, 50, 0.95f, 0.0f, 1}}) {
    OpCase c = ops::lm_sample_case(t, m.batches.back(), m.vocab, m.hidden, s);
    c.shape += s.top_k > 0 ? "/top50" : "";
    c.operands[1].depth = (ops::sum_depth(m.hidden) + 16) * 2;  // as lm_logprob's
    add(std::move(c), lm_sample_want(m.hidden, m.vocab));
  }
}

}  // namespace

BenchShape bench_shape(const std::string& name, Device device, bool quick) {
  const bool cpu = device == Device::cpu;
  BenchShape s{.name = name,
               .hidden = 128,
               .ffn = 384,
               .vocab = 128,
               .heads = {4, 2, 32},
               .tokens = cpu ? 2048 : 64,
               .head_rows = cpu ? 2048 : 32,
               .batches = cpu ? std::vector<int64_t>{1, 64} : std::vector<int64_t>{4},
               .contexts = {96},
               .lengths = {64},
               .flat = cpu ? 196608 : 4096};
  if (name == "toy") return s;
  struct Model {
    const char* name;
    int64_t hidden, ffn;
    AttentionDims heads;
  };
  for (const Model& m : {Model{"0.5b", 896, 4864, {14, 2, 64}},
                         {"1.5b", 1536, 8960, {12, 2, 128}},
                         {"7b", 3584, 18944, {28, 4, 128}},
                         {"32b", 5120, 27648, {40, 8, 128}}})
    if (name == m.name) {
      s.hidden = m.hidden, s.ffn = m.ffn, s.heads = m.heads, s.vocab = 151936;
      s.tokens = cpu ? 2048 : 8192, s.head_rows = cpu ? 512 : 2048;
      s.batches = cpu ? std::vector<int64_t>{1, 32} : std::vector<int64_t>{1, 64, 256};
      s.contexts = cpu ? std::vector<int>{256} : std::vector<int>{1024, 4096};
      s.lengths = cpu ? std::vector<int>{1024} : std::vector<int>{1024, 2048, 4096, 8192};
      s.flat = int64_t{16} << 20;
      if (quick) s.tokens = std::min<int64_t>(s.tokens, 4096), s.lengths = {static_cast<int>(s.tokens)};
      if (quick) s.batches = {cpu ? 32 : 64}, s.contexts = {s.contexts[0]};
      return s;
    }
  fail_input("--shape {}: not known; toy, 0.5b, 1.5b, 7b or 32b, several with commas", name);
}

std::vector<WeightShape> bench_weights(const BenchShape& m) {
  return {{m.heads.qkv_width(), m.hidden, true, false},
          {m.hidden, m.heads.q_width(), false, false},
          {2 * m.ffn, m.hidden, false, false},
          {m.hidden, m.ffn, false, false},
          {m.vocab, m.hidden, false, true}};
}

BenchCase product_case(DType t, int64_t m, int64_t n, int64_t k) {
  BenchCase c{ops::matmul_case(t, m, n, k, false), matmul_want(n, k, false)};
  c.product = true;
  return c;
}

std::vector<BenchCase> bench_cases(const BenchShape& m, DType t) {
  std::vector<BenchCase> all;
  add_rows(all, m, t);
  add_products(all, m, t);
  add_attention(all, m, t);
  add_head(all, m, t);
  const auto elementwise = [&all](OpCase op) {
    BenchCase c{std::move(op)};
    ops::OpCase small = c.op;  // without contents: these are read from the device
    for (ops::Operand& o : small.operands) o.preset.clear();
    c.want = elementwise_want(small);
    if (c.op.decode) c.got = decoded_got(small);
    all.push_back(std::move(c));
  };
  elementwise(ops::adamw_case(t, m.flat, 1.0, 10, 1.0f));
  elementwise(ops::cast_case(DType::bf16, DType::f32, m.flat));
  elementwise(ops::increment_case(m.batches.back()));
  all.push_back({ops::sum_of_squares_case(m.flat), sum_of_squares_want()});
  for (BenchCase& c : all) c.op.shape = m.name + "/" + c.op.shape;
  return all;
}

std::vector<int64_t> dear_rows(int64_t rows) {
  std::mt19937_64 random(static_cast<uint64_t>(rows));
  std::vector<int64_t> picked{rows - 1};
  while (picked.size() < static_cast<size_t>(std::min<int64_t>(kDearRows, rows))) {
    const auto r = static_cast<int64_t>(random() % static_cast<uint64_t>(rows));
    if (std::find(picked.begin(), picked.end(), r) == picked.end()) picked.push_back(r);
  }
  return picked;
}

namespace {

/// Elements of an output that are compared: its first and last and some between, or some of each dear row.
std::vector<int64_t> sampled_elements(const ops::Operand& o, bool dear_row) {
  const int64_t count = o.numel(), width = count / o.shape[0];
  std::mt19937_64 random(static_cast<uint64_t>(count));
  const auto below = [&random](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
  std::vector<int64_t> elements;
  if (dear_row) {
    for (const int64_t r : dear_rows(o.shape[0]))
      for (int k = 0; k < (width > 1 ? kRowSamples : 1); ++k) elements.push_back(r * width + below(width));
    return elements;
  }
  elements = {0, count - 1};
  while (elements.size() < kSamples) elements.push_back(below(count));
  return elements;
}

}  // namespace

Verdict check_case(Backend& backend, const BenchCase& c, Operands& operands) {
  const std::vector<Tensor> kept = operands.keep_inouts();
  c.op.run(backend, operands.set(0));
  backend.synchronize();
  Verdict verdict;
  if (!c.want) return verdict;
  Sampled sampled(backend, operands.set(0), kept);
  for (size_t i = 0; i < c.op.operands.size(); ++i) {
    const ops::Operand& o = c.op.operands[i];
    const double tolerance = o.tolerance(c.op.type);
    if (o.role == ops::Role::in || std::isinf(tolerance)) continue;
    const std::vector<int64_t> elements = sampled_elements(o, c.dear_row);
    std::vector<Want> wants;
    double squares = 0;
    for (const int64_t e : elements) {
      wants.push_back(c.want(sampled, static_cast<int>(i), e));
      squares += wants.back().value * wants.back().value;
    }
    const double rms = std::sqrt(squares / static_cast<double>(elements.size()));
    for (size_t k = 0; k < elements.size(); ++k) {
      const Want& w = wants[k];
      const double got =
          c.got ? c.got(sampled, static_cast<int>(i), elements[k]) : sampled.at(static_cast<int>(i), elements[k]);
      ++verdict.sampled;
      if (std::abs(got - w.value) <= tolerance * (std::abs(w.value) + rms + (i == 0 ? w.terms : 0))) continue;
      if (verdict.wrong++ == 0)
        verdict.worst = fmt::format("{}[{}]: expected {:g}, got {:g}", o.name, elements[k], w.value, got);
    }
  }
  return verdict;
}

}  // namespace dapo::bench
