// Which kernel runs a product: the choice by shape, and the comparison of bits before the library is used.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/choices.h"
#include "cuda/cublaslt.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/products.h"
#include "cuda/shape.h"
#include "cuda/trial.h"
#include "cuda/vec.cuh"

namespace dapo::cuda {
namespace {

constexpr int64_t kCheckedRows = 4096;

/// A forward product of this weight as matmul and the head issue it.
Product forward_product(const WeightShape& w, int64_t m, const void* bias) {
  return {.m = m,
          .n = w.outputs,
          .k = w.inputs,
          .a_type = DType::bf16,
          .b_type = DType::bf16,
          .c_type = w.logits ? DType::f32 : DType::bf16,
          .b_transposed = true,
          .lda = w.inputs,
          .ldb = w.inputs,
          .ldc = w.outputs,
          .bias = bias};
}
int64_t out_bytes(const WeightShape& w, int64_t rows) {
  return rows * w.outputs * (w.logits ? 4 : 2);
}
/// Rows are multiples of 16 bytes, and operands are aligned as was requested of the library's algorithms.
bool fits_library(const Product& p, const void* c, const void* a, const void* b) {
  const auto aligned = [](const void* q) { return reinterpret_cast<uintptr_t>(q) % CublasLt::kAlignment == 0; };
  return fits_tensor_cores(p, a, b) && p.ldc % 8 == 0 && p.n % 8 == 0 && aligned(a) && aligned(b) && aligned(c);
}

}  // namespace

struct Products::Operands {
  WeightShape weight;
  int64_t rows;
  Scratch x, w, bias, own, theirs, count;
  Operands(const WeightShape& s, int64_t r)
      : weight(s),
        rows(r),
        x(r * s.inputs * 2),
        w(s.outputs * s.inputs * 2),
        bias(s.outputs * 2),
        own(out_bytes(s, r)),
        theirs(out_bytes(s, r)),
        count(sizeof(unsigned)) {}
  bool complete() const { return x && w && bias && own && theirs && count; }
  Product product(int64_t m) const { return forward_product(weight, m, weight.bias ? bias.as<void>() : nullptr); }
};

Products::Products(cudaStream_t stream, const cudaDeviceProp& properties)
    : stream_(stream),
      sms_(properties.multiProcessorCount),
      arch_(properties.major * 10 + properties.minor),
      l2_bytes_(properties.l2CacheSize) {
  use(environment_choice<Kind>("DAPO_CUDA_PRODUCTS"));
}
Products::~Products() = default;

void Products::use(Kind kind) {
  if (kind == Kind::cublaslt && lt_ == nullptr) lt_ = std::make_unique<CublasLt>(stream_);
  kind_ = kind;
}

bool Products::open_library() {
  if (lt_ != nullptr) return true;
  if (!unusable_.empty()) return false;
  try {
    lt_ = std::make_unique<CublasLt>(stream_);
  } catch (const Error& e) {
    unusable_ = e.what();
  }
  return lt_ != nullptr;
}

void Products::prepare(std::span<const WeightShape> weights, DType type, int64_t rows) {
  if (kind_ == Kind::own || type != DType::bf16 || !open_library()) return;
  for (const WeightShape& w : weights) {
    int64_t& done = prepared_[{w.outputs, w.inputs, w.bias, w.logits}];
    if (done >= rows) continue;
    done = rows;
    admit(w, rows);
  }
  checked_rows_ = std::max(checked_rows_, std::min(rows, kCheckedRows));
}

/// Chooses an algorithm with the bits of our own kernels for each bucket of rows that the library would serve.
void Products::admit(const WeightShape& w, int64_t rows) {
  if (w.inputs % 8 != 0 || w.outputs % 8 != 0) return;  // served by the plain kernel
  size_t available = 0, total = 0;
  CUDA_CHECK(cudaMemGetInfo(&available, &total));
  int64_t checked = std::min(rows, kCheckedRows);
  while (checked > 64 && 2 * out_bytes(w, checked) > static_cast<int64_t>(available / 4)) checked /= 2;
  const auto refuse = [&](const std::string& why) {
    refused_ += fmt::format("{}{} x {} ({})", refused_.empty() ? "" : ", ", w.outputs, w.inputs, why);
  };
  const Operands o(w, checked);
  if (!o.complete()) return refuse("no memory to check its bits");
  fill_normal(o.x, checked * w.inputs, 1, 1.0f, stream_);
  fill_normal(o.w, w.outputs * w.inputs, 2, 0.05f, stream_);
  fill_normal(o.bias, w.outputs, 3, 1.0f, stream_);
  run_own(o.product(checked), o.own.as<void>(), o.x.as<void>(), o.w.as<void>());
  std::string differ;
  for (int64_t bucket = CublasLt::kLeastBucket; bucket <= 16384; bucket *= 2) {
    if (!admit_bucket(o, bucket)) differ += fmt::format("{}{}", differ.empty() ? "" : ", ", bucket);
    if (bucket >= rows) break;
  }
  CUDA_CHECK(cudaStreamSynchronize(stream_));
  if (differ.empty()) return;
  refuse(fmt::format("other bits at {} rows", differ));
  if (kind_ == Kind::cublaslt)  // one algorithm then has to serve every m
    for (int64_t bucket = CublasLt::kLeastBucket; bucket <= 16384; bucket *= 2) lt_->forget(o.product(bucket));
}

/// Chooses the first algorithm with the bits of our own kernels. For few rows, where the library's first is not always
/// a good one: the fastest of them, or none if our own kernels are faster. False: all have other bits.
bool Products::admit_bucket(const Operands& o, int64_t bucket) {
  constexpr int64_t kTimedBytes = 1 << 20;  // for smaller weights the launch dominates
  const bool timed = bucket <= CublasLt::kFewRows && o.weight.outputs * o.weight.inputs * 2 >= kTimedBytes;
  const Product asked = o.product(bucket), p = o.product(std::min(bucket, o.rows));
  const auto run_library = [&] { return lt_->run_as(asked, p, o.theirs.as<void>(), o.x.as<void>(), o.w.as<void>()); };
  double best = INFINITY;
  int taken = -1;
  for (int i = 0, count = lt_->algorithms(asked); i < count && (timed || taken < 0); ++i) {
    lt_->choose(asked, i);
    if (!run_library() || !same_words(o.own, o.theirs, out_bytes(o.weight, p.m) / 4, o.count, stream_)) continue;
    const double seconds = timed ? seconds_of(stream_, l2_bytes_, run_library) : 0;
    if (seconds < best) best = seconds, taken = i;
  }
  const bool own =
      timed && taken >= 0 && kind_ == Kind::automatic &&
      seconds_of(stream_, l2_bytes_, [&] { run_own(p, o.theirs.as<void>(), o.x.as<void>(), o.w.as<void>()); }) <= best;
  if (taken < 0 || own)
    lt_->forget(asked);
  else
    lt_->choose(asked, taken);
  return taken >= 0;
}

std::string Products::describe() const {
  std::string text;
  if (kind_ == Kind::own)
    text = "own kernels (DAPO_CUDA_PRODUCTS=own)";
  else if (lt_ == nullptr)
    text = "own kernels" + (unusable_.empty() ? "" : "; " + unusable_);
  else if (kind_ == Kind::cublaslt)
    text = fmt::format("cuBLASLt {} (DAPO_CUDA_PRODUCTS=cublaslt)", CublasLt::version());
  else
    text = fmt::format("own kernels or cuBLASLt {}, whichever is faster; the same bits up to {} rows",
                       CublasLt::version(), checked_rows_);
  if (!refused_.empty())
    text += (kind_ == Kind::cublaslt ? "; one algorithm for every m for " : "; own kernels for ") + refused_;
  if (arch_ != 90) text += fmt::format("; tuned for sm_90, this is sm_{}", arch_);
  return "products: " + text;
}

void Products::run(const Product& p, void* c, const void* a, const void* b) {
  if (p.m == 0 || p.n == 0) return;
  const bool library = kind_ == Kind::cublaslt || (kind_ == Kind::automatic && lt_ != nullptr && checked_rows_ > 0 &&
                                                   fits_library(p, c, a, b) && (!is_forward(p) || lt_->chosen(p)));
  if (library) {
    if (lt_->run(p, c, a, b)) return;
    const std::string text = fmt::format("cuBLASLt has no algorithm for m {}, n {}, k {}", p.m, p.n, p.k);
    CHECK(kind_ != Kind::cublaslt, "{}", text);
    if (missing_.insert({p.n, p.k}).second) std::fprintf(stderr, "%s: own kernels\n", text.c_str());
  }
  run_own(p, c, a, b);
}

}  // namespace dapo::cuda
