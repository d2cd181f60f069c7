// The cases of rows, norms, products, rope, mlp and update. cases_attention.h and cases_head.h hold the others.
#pragma once

#include <numeric>
#include <random>

#include "tests/ops/reference.h"

namespace dapo::ops {

/// Distinct ids with the rows that contain them: arguments of embedding_backward and sum_rows.
struct Grouped {
  std::vector<int32_t> unique, offsets, rows;
};
inline Grouped group_rows(const std::vector<int32_t>& ids) {
  Grouped g;
  g.unique = ids;
  std::sort(g.unique.begin(), g.unique.end());
  g.unique.erase(std::unique(g.unique.begin(), g.unique.end()), g.unique.end());
  for (const int32_t id : g.unique) {
    g.offsets.push_back(static_cast<int32_t>(g.rows.size()));
    for (size_t r = 0; r < ids.size(); ++r)
      if (ids[r] == id) g.rows.push_back(static_cast<int32_t>(r));
  }
  g.offsets.push_back(static_cast<int32_t>(g.rows.size()));
  return g;
}

inline std::vector<int32_t> some_ids(int64_t count, int64_t below, unsigned seed = 7) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<unsigned>(below));
  return ids;
}

/// Copies `count` rows of `width` doubles.
inline void copy_row(Values& to, size_t to_row, const Values& from, size_t from_row, size_t width) {
  for (size_t c = 0; c < width; ++c) to[to_row * width + c] = from[from_row * width + c];
}

inline OpCase embedding_case(DType T, int64_t rows, int64_t vocab, int64_t width, int32_t first_id) {
  OpCase c{"embedding", dims(rows, vocab, width), T};
  auto ids = some_ids(rows, vocab);
  for (int32_t& id : ids) id += first_id;
  if (first_id > 0) ids[0] = 0;                                                        // of another rank
  if (rows > 1) ids.back() = first_id + static_cast<int32_t>(vocab) * (first_id > 0);  // the first one past ours
  c.out("x", DType::f32, {rows, width}, 0, 0), c.in("table", T, {vocab, width}), c.index("ids", ids);
  c.run = [=](Backend& b, const std::vector<Tensor>& t) { b.embedding(t[0], t[1], t[2], first_id); };
  c.reference = [=](std::vector<Values>& v) { embedding(v[0], v[1], v[2], first_id, width); };
  c.bytes = static_cast<double>(rows * width) * static_cast<double>(dtype_size(T) + sizeof(float));
  return c;
}

inline OpCase embedding_backward_case(DType T, int64_t rows, int64_t vocab, int64_t width) {
  OpCase c{"embedding_backward", dims(rows, vocab, width), T};
  const Grouped g = group_rows(some_ids(rows, vocab));
  c.adds("dtable", DType::f32, {vocab, width}, 0, sum_depth(rows / vocab + 1)), c.in("dx", T, {rows, width});
  c.index("unique", g.unique), c.index("offsets", g.offsets), c.index("rows", g.rows);
  c.run = [](Backend& b, const std::vector<Tensor>& t) { b.embedding_backward(t[0], t[1], t[2], t[3], t[4]); };
  c.reference = [=](std::vector<Values>& v) { embedding_backward(v[0], v[1], v[2], v[3], v[4], width); };
  c.bytes =
      static_cast<double>(rows * width) * static_cast<double>(dtype_size(T)) + 8.0 * (std::ssize(g.unique) * width);
  return c;
}

/// Rows of f32 (the residual stream) or of T.
inline OpCase gather_rows_case(DType T, DType row, int64_t rows, int64_t from, int64_t width) {
  OpCase c{"gather_rows", dims(rows, from, width) + "/" + dtype_name(row), T};
  c.out("y", row, {rows, width}, 0, 0), c.in("x", row, {from, width}), c.index("index", some_ids(rows, from));
  c.run = [](Backend& b, const std::vector<Tensor>& t) { b.gather_rows(t[0], t[1], t[2]); };
  c.reference = [=](std::vector<Values>& v) { gather_rows(v[0], v[1], v[2], width); };
  c.bytes = static_cast<double>(2 * rows * width) * static_cast<double>(dtype_size(row));
  return c;
}

/// Includes rows of dx without a source, which become zero.
inline OpCase sum_rows_case(DType T, int64_t count, int64_t rows, int64_t width) {
  OpCase c{"sum_rows", dims(count, rows, width), T};
  std::vector<std::vector<int32_t>> sources(count);
  const auto target = some_ids(rows, count);
  for (size_t r = 0; r < target.size(); ++r) sources[target[r]].push_back(static_cast<int32_t>(r));
  std::vector<int32_t> offsets{0}, order;
  for (const auto& s : sources)
    order.insert(order.end(), s.begin(), s.end()), offsets.push_back(static_cast<int32_t>(order.size()));
  c.out("dx", T, {count, width}, 1, sum_depth(rows / count + 1)), c.in("dy", T, {rows, width});
  c.index("offsets", offsets), c.index("rows", order);
  c.run = [](Backend& b, const std::vector<Tensor>& t) { b.sum_rows(t[0], t[1], t[2], t[3]); };
  c.reference = [=](std::vector<Values>& v) { sum_rows(v[0], v[1], v[2], v[3], width); };
  return std::move(c).counted(0);
}

inline OpCase rmsnorm_case(DType T, int64_t rows, int64_t width, bool delta) {
  OpCase c{delta ? "rmsnorm+add" : "rmsnorm", dims(rows, width), T};
  const float eps = 1e-6f;
  const double depth = sum_depth(width) + 8;
  c.out("y", T, {rows, width}, 1, depth), c.out("rstd", DType::f32, {rows}, 0, depth);
  c.in("x", DType::f32, {rows, width}, 2), c.in("w", T, {width}, 0.2, 1);
  if (delta) c.in("delta", T, {rows, width}), c.out("sum", DType::f32, {rows, width}, 0, 1);
  c.run = [=](Backend& b, const std::vector<Tensor>& t) {
    b.rmsnorm(t[0], delta ? t[5] : Tensor(), t[1], t[2], delta ? t[4] : Tensor(), t[3], eps);
  };
  c.reference = [=](std::vector<Values>& v) {
    Values s = v[2];
    for (size_t i = 0; delta && i < s.size(); ++i) s[i] += v[4][i];
    if (delta) v[5] = s;
    const Norm n = rmsnorm(s, v[3], eps);
    v[0] = n.y, v[1] = n.rstd;
  };
  return std::move(c).counted(0);
}

/// What is added to the residual comes in parts.
inline OpCase rmsnorm_parts_case(DType T, int64_t parts, int64_t rows, int64_t width) {
  OpCase c{"rmsnorm+parts", dims(parts, rows, width), T};
  const float eps = 1e-6f;
  const double depth = sum_depth(width) + 8 + double(parts);
  c.out("y", T, {rows, width}, 1, depth), c.out("rstd", DType::f32, {rows}, 0, depth);
  c.in("x", DType::f32, {rows, width}, 2), c.in("w", T, {width}, 0.2, 1), c.in("delta", T, {parts, rows, width});
  c.out("sum", DType::f32, {rows, width}, 0, double(parts));
  c.run = [=](Backend& b, const std::vector<Tensor>& t) { b.rmsnorm(t[0], t[5], t[1], t[2], t[4], t[3], eps); };
  c.reference = [=](std::vector<Values>& v) {
    v[5] = v[2];
    const Values delta = add_parts(v[4], rows * width);
    for (size_t i = 0; i < delta.size(); ++i) v[5][i] += delta[i];
    const Norm n = rmsnorm(v[5], v[3], eps);
    v[0] = n.y, v[1] = n.rstd;
  };
  return std::move(c).counted(0);
}

inline OpCase add_parts_case(DType sum, DType part, int64_t parts, int64_t rows, int64_t width) {
  OpCase c{"add_parts", dims(parts, rows, width) + " of " + dtype_name(part), sum};
  c.out("sum", sum, {rows, width}, 1, double(parts)), c.in("parts", part, {parts, rows, width});
  c.run = [](Backend& b, const std::vector<Tensor>& t) { b.add_parts(t[0], t[1]); };
  c.reference = [=](std::vector<Values>& v) { v[0] = add_parts(v[1], rows * width); };
  return std::move(c).counted(0);
}

inline OpCase rmsnorm_backward_case(DType T, int64_t rows, int64_t width) {
  OpCase c{"rmsnorm_backward", dims(rows, width), T};
  c.adds("dx", T, {rows, width}, 1, sum_depth(width)), c.adds("dw", DType::f32, {width}, 0, sum_depth(rows) + 4);
  c.in("dy", T, {rows, width}), c.in("x", DType::f32, {rows, width}, 2), c.in("w", T, {width}, 0.2, 1);
  c.in("rstd", DType::f32, {rows}, 0, 0.5);
  c.needs.hidden = width, c.needs.max_tokens = rows;
  c.run = [](Backend& b, const std::vector<Tensor>& t) { b.rmsnorm_backward(t[0], t[1], t[2], t[3], t[4], t[5]); };
  c.derive = [](std::vector<Values>& v) { v[5] = rmsnorm(v[3], v[4], 1e-6).rstd; };
  c.reference = [](std::vector<Values>& v) { rmsnorm_backward(v[0], v[1], v[2], v[3], v[4], v[5]); };
  c.loss = [](const std::vector<Values>& v) { return dot(v[2], rmsnorm(v[3], v[4], 1e-6).y); };
  c.gradients = {{3, 0}, {4, 1}};
  return std::move(c).counted(0);
}

inline OpCase matmul_case(DType T, int64_t m, int64_t o, int64_t i, bool bias) {
  OpCase c{bias ? "matmul+bias" : "matmul", dims(m, o, i), T};
  c.out("y", T, {m, o}, 1, sum_depth(i)), c.in("x", T, {m, i}), c.in("w", T, {o, i});
  if (bias) c.in("bias", T, {o});
  c.run = [=](Backend& b, const std::vector<Tensor>& t) { b.matmul(t[0], t[1], t[2], bias ? t[3] : Tensor()); };
  c.reference = [=](std::vector<Values>& v) { v[0] = matmul(v[1], v[2], bias ? v[3] : Values(), i); };
  return std::move(c).counted(2.0 * (m * o * i));
}

inline OpCase matmul_backward_input_case(DType T, int64_t m, int64_t o, int64_t i) {
  OpCase c{"matmul_backward_input", dims(m, o, i), T};
  c.out("dx", T, {m, i}, 1, sum_depth(o)), c.in("dy", T, {m, o}), c.in("w", T, {o, i}), c.in("x", T, {m, i});
  c.run = [](Backend& b, const std::vector<Tensor>& t) { b.matmul_backward_input(t[0], t[1], t[2]); };
  c.reference = [=](std::vector<Values>& v) { v[0] = matmul_backward_input(v[1], v[2], o); };
  c.loss = [=](const std::vector<Values>& v) { return dot(v[1], matmul(v[3], v[2], {}, i)); };
  c.gradients = {{3, 0}};
  return std::move(c).counted(2.0 * (m * o * i));
}

/// Depth of a sum over m rows in f32. Tensor cores truncate a partial sum where a CPU rounds it: a bias for each step
/// of 16 rows, which exceeds random rounding from some thousands of rows on (bench_ops; tests have fewer).
inline double row_sum_depth(DType T, int64_t m) {
  return sum_depth(m) + (T == DType::bf16 && m > 2048 ? static_cast<double>(m) / 16 : 0);
}

inline OpCase matmul_backward_weight_case(DType T, int64_t m, int64_t o, int64_t i, bool bias) {
  OpCase c{bias ? "matmul_backward_weight+bias" : "matmul_backward_weight", dims(m, o, i), T};
  c.adds("dw", DType::f32, {o, i}, 0, row_sum_depth(T, m)), c.in("dy", T, {m, o}), c.in("x", T, {m, i});
  c.in("w", T, {o, i});
  if (bias) c.adds("db", DType::f32, {o}, 0, sum_depth(m)), c.in("b", T, {o});
  c.needs.max_tokens = m, c.needs.hidden = o;
  c.run = [=](Backend& b, const std::vector<Tensor>& t) {
    b.matmul_backward_weight(t[0], bias ? t[4] : Tensor(), t[1], t[2]);
  };
  c.reference = [=](std::vector<Values>& v) { matmul_backward_weight(v[0], bias ? &v[4] : nullptr, v[1], v[2], m); };
  c.loss = [=](const std::vector<Values>& v) { return dot(v[1], matmul(v[2], v[3], bias ? v[5] : Values(), i)); };
  c.gradients = {{3, 0}};
  if (bias) c.gradients.push_back({5, 4});
  return std::move(c).counted(2.0 * (m * o * i));
}

inline OpCase rope_case(DType T, int64_t rows, AttentionDims d, bool inverse) {
  OpCase c{inverse ? "rope_inverse" : "rope", dims(rows, d.heads, d.kv_heads, d.head_dim), T};
  const int64_t length = 100;
  c.adds("qkv", T, {rows, d.qkv_width()}, 1, 8);
  c.in("table", DType::f32, {length, d.head_dim}), c.index("positions", some_ids(rows, length));
  c.run = [=](Backend& b, const std::vector<Tensor>& t) { b.rope(t[0], t[1], t[2], d, inverse); };
  c.reference = [=](std::vector<Values>& v) { rope(v[0], v[1], v[2], d, inverse); };
  c.bytes = 2.0 * (rows * (d.q_width() + d.kv_width())) * static_cast<double>(dtype_size(T));
  return c;
}

inline OpCase swiglu_case(DType T, int64_t rows, int64_t width) {
  OpCase c{"swiglu", dims(rows, width), T};
  c.out("a", T, {rows, width}, 1, 12), c.in("gu", T, {rows, 2 * width}, 3);
  c.run = [](Backend& b, const std::vector<Tensor>& t) { b.swiglu(t[0], t[1]); };
  c.reference = [=](std::vector<Values>& v) { v[0] = swiglu(v[1], width); };
  return std::move(c).counted(0);
}

inline OpCase swiglu_backward_case(DType T, int64_t rows, int64_t width, bool again) {
  OpCase c{again ? "swiglu_backward+a" : "swiglu_backward", dims(rows, width), T};
  c.out("dgu", T, {rows, 2 * width}, 1, 24), c.in("da", T, {rows, width}), c.in("gu", T, {rows, 2 * width}, 3);
  if (again) c.out("a", T, {rows, width}, 1, 12);
  c.run = [=](Backend& b, const std::vector<Tensor>& t) {
    b.swiglu_backward(t[0], again ? t[3] : Tensor(), t[1], t[2]);
  };
  c.reference = [=](std::vector<Values>& v) {
    swiglu_backward(v[0], v[1], v[2], width);
    if (again) v[3] = swiglu(v[2], width);
  };
  c.loss = [=](const std::vector<Values>& v) { return dot(v[1], swiglu(v[2], width)); };
  c.gradients = {{2, 0}};
  return std::move(c).counted(0);
}

inline OpCase sum_of_squares_case(int64_t n) {
  OpCase c{"sum_of_squares", dims(n), DType::f32};
  c.adds("out", DType::f64, {1}, 0, 1e-4), c.in("x", DType::f32, {n});  // f64: far below f32's unit roundoff
  c.run = [](Backend& b, const std::vector<Tensor>& t) { b.sum_of_squares(t[0], t[1]); };
  c.reference = [](std::vector<Values>& v) { v[0][0] += dot(v[1], v[1]); };
  return std::move(c).counted(0);
}

/// norm2 >= 0, or NaN: then only the gradient may change.
inline OpCase adamw_case(DType T, int64_t n, double norm2, int64_t step, float max_norm) {
  OpCase c{"adamw", dims(n) + (std::isfinite(norm2) ? "" : "/not-finite") + (max_norm > 0 ? "/clipped" : ""), T};
  const AdamW p{1e-2f, 0.9f, 0.999f, 1e-8f, 0.1f, step, max_norm};
  const double depth = std::isfinite(norm2) ? 8 : 0;
  c.adds("w", T, {n}, 0, depth);
  c.adds("m", DType::f32, {n}, 0, depth), c.adds("v", DType::f32, {n}, 0, depth);
  c.adds("grad", DType::f32, {n}, 0, 0);
  c.operands.push_back({"norm2", DType::f64, {1}, Role::in, {norm2}});
  const bool split = T == DType::bf16;
  if (split) {
    Values low(n);
    std::mt19937 random(3);
    for (double& x : low) x = static_cast<int16_t>(random());
    c.operands.push_back({"remainder", DType::i16, {n}, Role::inout, low});
    // The two parts are compared as the master that they represent.
    c.decode = [](std::vector<Values>& v) {
      for (size_t i = 0; i < v[0].size(); ++i) {
        v[0][i] = join_master(to_bf16(static_cast<float>(v[0][i])), static_cast<int16_t>(v[5][i]));
        v[5][i] = 0;
      }
    };
  }
  c.derive = [](std::vector<Values>& v) {
    for (double& x : v[2]) x = x * x;
  };
  c.run = [=](Backend& b, const std::vector<Tensor>& t) {
    b.adamw(t[0], split ? t[5] : Tensor(), t[1], t[2], t[3], t[4], p);
  };
  c.reference = [p, norm2, decode = c.decode](std::vector<Values>& v) {
    if (decode) decode(v);
    for (size_t i = 0; i < v[0].size() && std::isfinite(norm2); ++i)
      adamw(v[0][i], v[1][i], v[2][i], v[3][i], norm2, p);
    std::fill(v[3].begin(), v[3].end(), 0.0);
  };
  return std::move(c).counted(0);
}

inline OpCase cast_case(DType to, DType from, int64_t n) {
  OpCase c{std::string("cast_to_") + dtype_name(to), dims(n), from};
  c.out("to", to, {n}, 0, 0), c.in("from", from, {n});
  c.run = [](Backend& b, const std::vector<Tensor>& t) { b.cast(t[0], t[1]); };
  c.reference = [=](std::vector<Values>& v) {
    for (size_t i = 0; i < v[0].size(); ++i)
      v[0][i] = to == DType::bf16 ? to_float(to_bf16(static_cast<float>(v[1][i]))) : v[1][i];
  };
  return std::move(c).counted(0);
}

inline OpCase increment_case(int64_t n) {
  OpCase c{"increment", dims(n), DType::f32};
  const auto before = some_ids(n, 1000);
  c.operands.push_back({"t", DType::i32, {n}, Role::inout, Values(before.begin(), before.end())});
  c.run = [](Backend& b, const std::vector<Tensor>& t) { b.increment(t[0]); };
  c.reference = [](std::vector<Values>& v) {
    for (double& x : v[0]) x += 1;
  };
  return std::move(c).counted(0);
}

/// Shapes of a toy, slices of 0.5B, odd sizes.
inline std::vector<OpCase> plain_cases(DType T) {
  std::vector<OpCase> all;
  const auto add = [&all](OpCase c) { all.push_back(std::move(c)); };
  add(embedding_case(T, 37, 50, 112, 0)), add(embedding_case(T, 300, 128, 128, 1000)),
      add(embedding_case(T, 9, 20, 7, 0));
  add(embedding_backward_case(T, 37, 50, 7)), add(embedding_backward_case(T, 1000, 20, 128));
  add(embedding_backward_case(T, 1000, 20, 33).with_integers());
  for (const DType row : {DType::f32, DType::bf16})
    if (row == T || row == DType::f32) {
      add(gather_rows_case(T, row, 61, 17, 112)), add(gather_rows_case(T, row, 500, 300, 128));
      add(gather_rows_case(T, row, 37, 20, 7));
    }
  add(sum_rows_case(T, 40, 61, 112)), add(sum_rows_case(T, 40, 61, 7).with_integers());
  for (const auto& [rows, width] : {std::pair<int64_t, int64_t>{1, 7}, {5, 112}, {130, 128}, {67, 896}}) {
    add(rmsnorm_case(T, rows, width, false)), add(rmsnorm_case(T, rows, width, true));
    add(rmsnorm_parts_case(T, 3, rows, width)), add(add_parts_case(T, T, 3, rows, width));
    add(add_parts_case(DType::f32, T == DType::f32 ? DType::bf16 : T, 2, rows, width));
    if (T != DType::f32) add(add_parts_case(DType::f32, DType::f32, 3, rows, width));
    add(rmsnorm_backward_case(T, rows, width));
  }
  // More rows than cuda/ has partial sums of dw, and rows wider than one of its blocks.
  add(rmsnorm_backward_case(T, 1100, 24)), add(rmsnorm_backward_case(T, 3, 301)),
      add(rmsnorm_backward_case(T, 3, 8232));
  struct Shape {
    int64_t m, o, i;
  };
  for (const auto& [m, o, i] : {Shape{1, 1, 1},
                                {1, 128, 128},
                                {3, 112, 7},
                                {33, 7, 112},
                                {64, 384, 128},
                                {17, 257, 129},
                                {70, 1152, 896},
                                {9, 896, 4864}}) {
    add(matmul_case(T, m, o, i, false)), add(matmul_case(T, m, o, i, true));
    add(matmul_backward_input_case(T, m, o, i));
    add(matmul_backward_weight_case(T, m, o, i, false)), add(matmul_backward_weight_case(T, m, o, i, true));
  }
  add(matmul_case(T, 37, 60, 200, true).with_integers());
  add(matmul_backward_input_case(T, 37, 200, 60).with_integers());
  add(matmul_backward_weight_case(T, 300, 37, 60, true).with_integers());
  for (const bool inverse : {false, true}) {
    add(rope_case(T, 19, {3, 1, 10}, inverse)), add(rope_case(T, 40, {4, 2, 32}, inverse));
    add(rope_case(T, 33, {14, 2, 64}, inverse));
  }
  for (const auto& [rows, width] : {std::pair<int64_t, int64_t>{1, 7}, {19, 112}, {64, 384}, {3, 4864}}) {
    add(swiglu_case(T, rows, width));
    add(swiglu_backward_case(T, rows, width, false)), add(swiglu_backward_case(T, rows, width, true));
  }
  for (const int64_t n : {1, 37, 5000, 100003}) {
    if (T == DType::f32) add(sum_of_squares_case(n)), add(increment_case(n));
    add(cast_case(DType::bf16, T, n)), add(cast_case(DType::f32, T, n));
    add(adamw_case(T, n, 7.0, 1, 1.0f)), add(adamw_case(T, n, 0.5, 100, 0.0f));
    add(adamw_case(T, n, std::nan(""), 2, 1.0f)), add(adamw_case(T, n, INFINITY, 2, 0.0f));
  }
  return all;
}

}  // namespace dapo::ops
