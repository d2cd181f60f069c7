#include "bench/parts/bench_cases.h"

#include <algorithm>
#include <random>

#include "bench/parts/decode_case.h"
#include "bench/parts/expected.h"
#include "tests/ops/cases.h"
#include "tests/ops/cases_attention.h"
#include "tests/ops/cases_head.h"

namespace dapo::bench {
namespace {

using ops::OpCase;

constexpr int kSamples = 24;    // elements of an output that are compared
constexpr int kRowSamples = 8;  // of each dear row, if rows are dear

/// The case without the bytes of operands that only its gradient check reads.
OpCase without(OpCase c, std::initializer_list<int> unused) {
  for (const int i : unused) {
    const ops::Operand& o = c.operands[i];
    c.bytes -= o.numel() * dtype_size(o.dtype);
  }
  return c;
}

std::vector<Segment> grouped(int64_t tokens) {
  return ops::groups_of(2, tokens / 8, 4, 3 * tokens / 32);
}
std::vector<Segment> sequences_of(int64_t tokens, int length) {
  return ops::groups_of(std::max<int64_t>(1, tokens / length), length, 0, 0);
}

BenchCase attention_of(DType t, const std::vector<Segment>& s, AttentionDims d, bool backward) {
  BenchCase c{backward ? ops::attention_backward_case(t, s, d) : ops::attention_case(t, s, d)};
  c.expected = backward ? expected_attention_backward(s, d) : expected_attention(s, d);
  if (backward)
    c.prepare = [s, d](Backend& b, const std::vector<Tensor>& x) { b.attention(x[3], x[4], x[2], {s, x[5]}, d); };
  const bool equal =
      std::all_of(s.begin(), s.end(), [&](const Segment& x) { return x.prefix < 0 && x.length == s[0].length; });
  if (equal) c.sequences = {static_cast<int>(s.size()), s[0].length, d, backward};
  return c;
}

/// A case whose expected elements are its reference on a slice: see expected_of_slice().
BenchCase sliced(OpCase op, const std::vector<std::string>& axes,
                 const std::vector<std::pair<int, std::string>>& sampled) {
  BenchCase c{std::move(op)};
  c.expected = expected_of_slice(c.op, axes, sampled);
  return c;
}

void add_rows(std::vector<BenchCase>& all, const BenchShape& m, DType t) {
  const int64_t N = m.tokens, C = m.hidden;
  all.push_back({ops::embedding_case(t, N, m.vocab, C, 0), expected_gather(C)});
  all.push_back({ops::embedding_backward_case(t, N, m.vocab, C), expected_embedding_backward(C)});
  all.push_back({ops::gather_rows_case(t, DType::f32, N, N, C), expected_gather(C)});
  all.push_back({ops::sum_rows_case(t, N, N, C), expected_sum_rows(C)});
  for (const int64_t rows : {m.batches.back(), N}) {
    all.push_back(sliced(ops::rmsnorm_case(t, rows, C, true), {"nc", "n", "nc", "c", "nc", "nc"},
                         {{0, "n"}, {1, "n"}, {5, "n"}}));
    all.push_back(sliced(ops::swiglu_case(t, rows, m.ffn), {"nf", "ng"}, {{0, "n"}}));
    all.push_back(sliced(ops::rope_case(t, rows, m.heads, false), {"nw", "pd", "n"}, {{0, "n"}}));
  }
  all.push_back(sliced(ops::rmsnorm_backward_case(t, N, C), {"nc", "c", "nc", "nc", "c", "n"}, {{0, "n"}, {1, "c"}}));
  all.push_back(sliced(ops::swiglu_backward_case(t, N, m.ffn, true), {"ng", "nf", "ng", "nf"}, {{0, "n"}, {3, "n"}}));
}

BenchCase matmul_of(DType t, int64_t n, int64_t o, int64_t i, bool bias) {
  BenchCase c = sliced(
      ops::matmul_case(t, n, o, i, bias),
      bias ? std::vector<std::string>{"mo", "mi", "oi", "o"} : std::vector<std::string>{"mo", "mi", "oi"}, {{0, "mo"}});
  c.product = true;
  return c;
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
    for (const int64_t n : rows) all.push_back(matmul_of(t, n, o, i, bias));
    BenchCase dx =
        sliced(without(ops::matmul_backward_input_case(t, m.tokens, o, i), {3}), {"mi", "mo", "oi", "mi"}, {{0, "mi"}});
    std::vector<std::string> axes{"oi", "mo", "mi", "oi"};
    if (bias) axes.insert(axes.end(), {"o", "o"});
    BenchCase dw =
        sliced(without(ops::matmul_backward_weight_case(t, m.tokens, o, i, bias), {3}), axes, {{0, "oi"}, {4, "oi"}});
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
    for (const int context : m.contexts) all.push_back(decode_case(t, m.heads, batch, 1, 0, context));
  const int batch = m.batches.back(), context = m.contexts.back();
  const int group = std::min(16, batch);
  all.push_back(decode_case(t, m.heads, batch, group, context / 2, context / 2));
}

void add_head(std::vector<BenchCase>& all, const BenchShape& m, DType t) {
  const auto add = [&all](OpCase op, ExpectedFn expected) {
    BenchCase c{std::move(op), std::move(expected)};
    c.dear_row = true;
    all.push_back(std::move(c));
  };
  add(ops::lm_logprob_case(t, m.head_rows, m.vocab, m.hidden, 1.0f, true), expected_lm_logprob(m.hidden, m.vocab));
  add(ops::lm_dapo_case(t, m.head_rows, m.vocab, m.hidden, 1.0f, false),
      expected_lm_dapo(m.hidden, m.vocab, m.head_rows, ops::kCaseLoss));
  all.back().prepare = scatter_old_log_probs;
  for (const Sampling& s : {Sampling{1.0f, 0, 1.0f, 0.0f, 1}, Sampling{1.0f, 50, 0.95f, 0.0f, 1}}) {
    OpCase c = ops::lm_sample_case(t, m.batches.back(), m.vocab, m.hidden, s);
    c.shape += s.top_k > 0 ? "/top50" : "";
    c.operands[1].depth = (ops::sum_depth(m.hidden) + 16) * 2;  // as for lm_logprob
    add(std::move(c), expected_lm_sample(m.hidden, m.vocab));
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
  fail_input("--shape {}: not known; use toy, 0.5b, 1.5b, 7b or 32b, several separated by commas", name);
}

std::vector<WeightShape> bench_weights(const BenchShape& m) {
  return {{m.heads.qkv_width(), m.hidden, true, false},
          {m.hidden, m.heads.q_width(), false, false},
          {2 * m.ffn, m.hidden, false, false},
          {m.hidden, m.ffn, false, false},
          {m.vocab, m.hidden, false, true}};
}

BenchCase product_case(DType t, int64_t m, int64_t n, int64_t k) {
  return matmul_of(t, m, n, k, false);
}

std::vector<BenchCase> bench_cases(const BenchShape& m, DType t) {
  std::vector<BenchCase> all;
  add_rows(all, m, t);
  add_products(all, m, t);
  add_attention(all, m, t);
  add_head(all, m, t);
  std::vector<std::string> axes{"n", "n", "n", "n", "1"};
  if (t == DType::bf16) axes.push_back("n");  // the remainder
  BenchCase adamw =
      sliced(ops::adamw_case(t, m.flat, 1.0, 10, 1.0f), axes, {{0, "n"}, {1, "n"}, {2, "n"}, {3, "n"}, {5, "n"}});
  if (adamw.op.decode) adamw.got = decoded_got(adamw.op);
  all.push_back(std::move(adamw));
  all.push_back(sliced(ops::cast_case(DType::bf16, DType::f32, m.flat), {"n", "n"}, {{0, "n"}}));
  all.push_back(sliced(ops::increment_case(m.batches.back()), {"n"}, {{0, "n"}}));
  all.push_back(sliced(ops::sum_of_squares_case(m.flat), {"1", "n"}, {{0, "1"}}));
  for (BenchCase& c : all) c.op.shape = m.name + "/" + c.op.shape;
  return all;
}

namespace {

/// The elements of an output that are compared: its first, its last and some in between, or some of each dear row.
std::vector<int64_t> sampled_elements(const ops::Operand& o, bool dear_row) {
  const int64_t count = o.numel(), width = count / o.shape[0];
  std::mt19937_64 random(count);
  const auto below = [&random](int64_t n) { return int64_t(random() % uint64_t(n)); };
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
  CHECK(c.expected != nullptr, "{} has no expected values", c.name());
  Sampled sampled(backend, operands.set(0), kept);
  for (size_t i = 0; i < c.op.operands.size(); ++i) {
    const ops::Operand& o = c.op.operands[i];
    const double tolerance = o.tolerance(c.op.type);
    if (o.role == ops::Role::in || std::isinf(tolerance)) continue;
    const std::vector<int64_t> elements = sampled_elements(o, c.dear_row);
    std::vector<Expected> expected;
    double squares = 0;
    for (const int64_t e : elements) {
      expected.push_back(c.expected(sampled, i, e));
      squares += expected.back().value * expected.back().value;
    }
    const double rms = std::sqrt(squares / elements.size());
    for (size_t k = 0; k < elements.size(); ++k) {
      const Expected& w = expected[k];
      const double got = c.got ? c.got(sampled, i, elements[k]) : sampled.at(i, elements[k]);
      ++verdict.sampled;
      if (std::abs(got - w.value) <= tolerance * (std::abs(w.value) + rms + (i == 0 ? w.terms : 0))) continue;
      if (verdict.wrong++ == 0)
        verdict.worst = fmt::format("{}[{}]: expected {:g}, got {:g}", o.name, elements[k], w.value, got);
    }
  }
  return verdict;
}

}  // namespace dapo::bench
