#include "cpu/matmul.h"

#include <omp.h>

#include <cstring>
#include <dnnl.hpp>
#include <memory>
#include <random>
#include <unordered_map>
#include <vector>

#include "core/op_checks.h"
#include "cpu/cpu_backend.h"
#include "cpu/few_rows.h"
#include "cpu/parallel.h"
#include "cpu/vec.h"
#include "cpu/workspace.h"

namespace dapo::cpu {
namespace {

using dnnl::memory;

/// The parameters of a compiled product.
struct Key {
  int64_t m, n, k, lda, ldb, ldc;
  int threads;
  uint64_t kind;
  bool operator==(const Key&) const = default;

  explicit Key(const Product& p)
      : m(p.m), n(p.n), k(p.k), lda(p.lda), ldb(p.ldb), ldc(p.ldc), threads(omp_get_max_threads()), kind(0) {
    for (const int v : {static_cast<int>(p.a_type), static_cast<int>(p.b_type), static_cast<int>(p.c_type),
                        int{p.a_transposed}, int{p.b_transposed}, int{p.accumulate}, int{p.bias != nullptr}})
      kind = kind * 256 + v;
  }
};
struct KeyHash {
  size_t operator()(const Key& key) const {
    uint64_t h = key.kind + key.threads;
    for (const uint64_t v : {key.m, key.n, key.k, key.lda, key.ldb, key.ldc}) {
      h = (h ^ v) * 0x9E3779B97F4A7C15u;
      h ^= h >> 29;
    }
    return h;
  }
};

memory::data_type onednn_type(DType t) {
  CHECK(t == DType::f32 || t == DType::bf16, "products take f32 and bf16, not {}", dtype_name(t));
  return t == DType::f32 ? memory::data_type::f32 : memory::data_type::bf16;
}

memory::desc matrix(int64_t rows, int64_t cols, DType t, bool transposed, int64_t ld) {
  return {{rows, cols}, onednn_type(t), transposed ? memory::dims{1, ld} : memory::dims{ld, 1}};
}

// The one place where oneDNN 2 and 3 differ.
dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const memory::desc& a, const memory::desc& b,
                                      const memory::desc& bias, const memory::desc& c,
                                      const dnnl::primitive_attr& attr) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, a, b, bias, c, attr};
#else
  return {dnnl::matmul::desc(a, b, bias, c), attr, engine};
#endif
}

/// A compiled product, with the arguments of its call.
struct Compiled {
  dnnl::matmul primitive;
  memory a, b, c, bias, scratch;
  std::array<dnnl_exec_arg_t, 5> args;
  size_t scratch_bytes;
  bool row_invariant;  ///< oneDNN's AVX-512 brgemm
};

// On AVX2, oneDNN 2.6 (gemm:jit) is not batch-invariant: a row's bits depend on how many rows are in the call. A dot
// product along k, eight lanes wide, is; it has about half the speed, and is used where both operands are contiguous
// along k: the forward products.
using f32x8 = float __attribute__((vector_size(32)));

inline f32x8 load8(const float* p) {
  f32x8 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline f32x8 fma8(f32x8 a, f32x8 b, f32x8 c) {
  return reinterpret_cast<f32x8>(
      _mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
}
inline float sum8(f32x8 v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

constexpr int kDotRows = 3, kDotCols = 4;  // twelve sums, three rows and a column: 16 registers

template <int kRows, int kCols>
void dot_tile(const Product& p, float* c, const float* a, const float* b) {
  f32x8 sum[kRows][kCols] = {};
  const int64_t whole = p.k & ~int64_t{7};
  for (int64_t k = 0; k < whole; k += 8)
    for (int j = 0; j < kCols; ++j)
      for (int i = 0; i < kRows; ++i) sum[i][j] = fma8(load8(a + i * p.lda + k), load8(b + j * p.ldb + k), sum[i][j]);
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kCols; ++j) {
      float s = sum8(sum[i][j]);
      for (int64_t k = whole; k < p.k; ++k) s = __builtin_fmaf(a[i * p.lda + k], b[j * p.ldb + k], s);
      c[i * p.ldc + j] = s;
    }
}

bool can_dot(const Product& p) {
  return p.a_type == DType::f32 && p.b_type == DType::f32 && p.b_transposed && !p.a_transposed && !p.accumulate;
}

void dot_product(const Product& p, void* c_, const void* a_, const void* b_) {
  float* c = static_cast<float*>(c_);
  const float *a = static_cast<const float*>(a_), *b = static_cast<const float*>(b_);
  const float* bias = static_cast<const float*>(p.bias);
  const int64_t block = std::max<int64_t>(kDotRows, (256 << 10) / (4 * p.k) / kDotRows * kDotRows);  // rows in L2
  for (int64_t m0 = 0; m0 < p.m; m0 += block) {
    const int64_t m1 = std::min(p.m, m0 + block);
#pragma omp parallel for schedule(static) if ((m1 - m0) * p.n * p.k > 1 << 17)
    for (int64_t n = 0; n < p.n; n += kDotCols) {
      const bool wide = n + kDotCols <= p.n;
      int64_t m = m0;
      for (; wide && m + kDotRows <= m1; m += kDotRows)
        dot_tile<kDotRows, kDotCols>(p, c + m * p.ldc + n, a + m * p.lda, b + n * p.ldb);
      for (; m < m1; ++m)
        for (int64_t j = n; j < std::min(p.n, n + kDotCols); ++j)
          dot_tile<1, 1>(p, c + m * p.ldc + j, a + m * p.lda, b + j * p.ldb);
      for (int64_t i = m0; bias != nullptr && i < m1; ++i)
        for (int64_t j = n; j < std::min(p.n, n + kDotCols); ++j) c[i * p.ldc + j] += bias[j];
    }
  }
}

class Products {
 public:
  void run(const Product& p, void* c, const void* a, const void* b) {
    if (few_rows_can(p) && few_rows_agree(p, b)) return few_rows_product(p, c, a, b, packed(p));
    run_library(p, c, a, b);
  }

 private:
  void run_library(const Product& p, void* c, const void* a, const void* b) {
    Compiled& k = compiled(p);
    if (!k.row_invariant && can_dot(p)) return dot_product(p, c, a, b);
    if (k.scratch_bytes > scratch_bytes_) {
      scratch_.reset(static_cast<char*>(std::aligned_alloc(Arena::kAlign, k.scratch_bytes)));
      CHECK(scratch_ != nullptr, "{} bytes", k.scratch_bytes);
      scratch_bytes_ = k.scratch_bytes;
    }
    k.a.set_data_handle(const_cast<void*>(a));
    k.b.set_data_handle(const_cast<void*>(b));
    k.c.set_data_handle(c);
    if (p.bias != nullptr) k.bias.set_data_handle(const_cast<void*>(p.bias));
    k.scratch.set_data_handle(scratch_.get());
    const int count = p.bias != nullptr ? 5 : 4;
    const dnnl_status_t status = dnnl_primitive_execute(k.primitive.get(), stream_.get(), count, k.args.data());
    CHECK_EQ(status, dnnl_success, "oneDNN product {} x {} x {}", p.m, p.n, p.k);
  }

  bf16* packed(const Product& p) {
    const size_t need = few_rows_packed(p);
    if (packed_.size() < need) packed_.resize(need);
    return packed_.data();
  }

  /// Whether few_rows_product gives this shape the bits that oneDNN gives it (which computes the larger batches of
  /// training). Compared once for each shape, with these weights and random rows.
  bool few_rows_agree(const Product& p, const void* b) {
    Key key(p);
    key.m = 0;  // oneDNN's bits do not depend on it
    const auto [known, fresh] = few_rows_agree_.try_emplace(key, false);
    if (!fresh) return known->second;
    Product q = p;
    q.m = 16, q.lda = p.k, q.ldc = p.n;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<bf16> a(q.m * q.k);
    for (bf16& x : a) x = to_bf16(normal(random));
    const size_t bytes = q.m * q.n * dtype_size(q.c_type);
    std::vector<char> ours(bytes), library(bytes);
    few_rows_product(q, ours.data(), a.data(), b, packed(q));
    run_library(q, library.data(), a.data(), b);
    return known->second = ours == library;
  }

  Compiled& compiled(const Product& p) {
    const Key key(p);
    if (const auto it = cache_.find(key); it != cache_.end()) return *it->second;
    if (cache_.size() >= kMaxCompiled) cache_.clear();
    return *cache_.emplace(key, compile(p)).first->second;
  }

  std::unique_ptr<Compiled> compile(const Product& p) {
    const memory::desc a = matrix(p.m, p.k, p.a_type, p.a_transposed, p.lda);
    const memory::desc b = matrix(p.k, p.n, p.b_type, p.b_transposed, p.ldb);
    const memory::desc c = matrix(p.m, p.n, p.c_type, false, p.ldc);
    const memory::desc bias = p.bias != nullptr ? matrix(1, p.n, p.b_type, false, p.n) : memory::desc();
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (p.accumulate) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attr.set_post_ops(sum);
    }
    try {
      const auto pd = describe(engine_, a, b, bias, c, attr);
      auto k = std::make_unique<Compiled>();
      k->primitive = dnnl::matmul(pd);
      k->row_invariant = std::strncmp(pd.impl_info_str(), "brg:avx512", 10) == 0;
      k->a = memory(a, engine_, nullptr);
      k->b = memory(b, engine_, nullptr);
      k->c = memory(c, engine_, nullptr);
      k->scratch = memory(pd.scratchpad_desc(), engine_, nullptr);
      k->args = {{{DNNL_ARG_SRC, k->a.get()},
                  {DNNL_ARG_WEIGHTS, k->b.get()},
                  {DNNL_ARG_DST, k->c.get()},
                  {DNNL_ARG_SCRATCHPAD, k->scratch.get()},
                  {DNNL_ARG_BIAS, nullptr}}};
      if (p.bias != nullptr) {
        k->bias = memory(bias, engine_, nullptr);
        k->args[4].memory = k->bias.get();
      }
      k->scratch_bytes = (pd.scratchpad_desc().get_size() + Arena::kAlign) / Arena::kAlign * Arena::kAlign;
      return k;
    } catch (const dnnl::error& e) {
      fail(kExitInternal, "oneDNN cannot multiply {} [{}, {}] by {} [{}, {}]: {}", dtype_name(p.a_type), p.m, p.k,
           dtype_name(p.b_type), p.k, p.n, e.message);
    }
  }

  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  // About 30 KB and 0.3 ms each; a rollout whose batch shrinks from 256 to 1 needs about 1300.
  static constexpr size_t kMaxCompiled = 2048;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::unordered_map<Key, std::unique_ptr<Compiled>, KeyHash> cache_;
  std::unordered_map<Key, bool, KeyHash> few_rows_agree_;
  std::unique_ptr<char, Free> scratch_;
  size_t scratch_bytes_ = 0;
  std::vector<bf16> packed_;
};

}  // namespace

void product(const Product& p, void* c, const void* a, const void* b) {
  if (p.m == 0 || p.n == 0) return;
  // Of each host thread: its cache and scratch have no lock, and in tests the ranks of a group are threads.
  static thread_local Products products;
  products.run(p, c, a, b);
}

template <class T>
void CpuBackend<T>::matmul(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& bias) {
  check_matmul(dtype(), y, x, w, bias);
  const int64_t m = x.dim(0), o = w.dim(0), i = w.dim(1);
  product({.m = m,
           .n = o,
           .k = i,
           .a_type = dtype(),
           .b_type = dtype(),
           .c_type = dtype(),
           .b_transposed = true,
           .lda = i,
           .ldb = i,
           .ldc = o,
           .bias = bias.data},
          y.data, x.data, w.data);
}

template <class T>
void CpuBackend<T>::matmul_backward_input(const Tensor& dx, const Tensor& dy, const Tensor& w) {
  check_matmul_backward_input(dtype(), dx, dy, w);
  const int64_t m = dy.dim(0), o = w.dim(0), i = w.dim(1);
  product(
      {.m = m, .n = i, .k = o, .a_type = dtype(), .b_type = dtype(), .c_type = dtype(), .lda = o, .ldb = i, .ldc = i},
      dx.data, dy.data, w.data);
}

template <class T>
void CpuBackend<T>::matmul_backward_weight(const Tensor& dw, const Tensor& db, const Tensor& dy, const Tensor& x) {
  check_matmul_backward_weight(dtype(), dw, db, dy, x);
  const int64_t m = dy.dim(0), o = dw.dim(0), i = dw.dim(1);
  if (m == 0) return;
  product({.m = o,
           .n = i,
           .k = m,
           .a_type = dtype(),
           .b_type = dtype(),
           .c_type = DType::f32,
           .a_transposed = true,
           .lda = o,
           .ldb = i,
           .ldc = i,
           .accumulate = true},
          dw.data, dy.data, x.data);
  if (!db) return;
  // Columns are independent: each thread owns some, and adds the rows in order.
  constexpr int64_t kColumns = 8 * kLanes;
  const T* from = dy.as<T>();
  float* to = db.as<float>();
#pragma omp parallel for schedule(static) if (m * o > kParallelFrom)
  for (int64_t c0 = 0; c0 < o; c0 += kColumns) {
    const int64_t width = std::min(kColumns, o - c0);
    f32x16 sum[8];
    each_part(width, [&](int64_t c, auto n) { sum[c / kLanes] = load_part(to + c0 + c, n); });
    for (int64_t r = 0; r < m; ++r)
      each_part(width, [&](int64_t c, auto n) { sum[c / kLanes] += load_part(from + r * o + c0 + c, n); });
    each_part(width, [&](int64_t c, auto n) { store_part(to + c0 + c, sum[c / kLanes], n); });
  }
}

template class CpuBackend<float>;
template class CpuBackend<bf16>;

}  // namespace dapo::cpu
