#include "cublasLt.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cuda_bf16.h"
#include "cuda_streams.h"
#include "sim.h"
#include "tensor_core.h"

struct cublasLtContext {
  int unused;
};
struct cublasLtMatmulPreferenceDescription {
  std::uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_MASK;
};
struct cublasLtMatmulDescription {
  cublasOperation_t a = CUBLAS_OP_N, b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  int bias_type = -1;  // as D
};
struct cublasLtMatrixDescription {
  cudaDataType_t type;
  std::uint64_t rows, cols;
  std::int64_t ld;
  cublasLtOrder_t order = CUBLASLT_ORDER_COL;
  std::int32_t batches = 1;
  std::int64_t stride = 0;

  std::int64_t row_stride() const { return order == CUBLASLT_ORDER_COL ? 1 : ld; }
  std::int64_t col_stride() const { return order == CUBLASLT_ORDER_COL ? ld : 1; }
};

namespace {

using Layout = cublasLtMatrixDescription;
using Index = std::int64_t;

// NOLINTBEGIN(clang-analyzer-core.NullDereference): of c, which is null only where beta is 0
float load(const void* p, cudaDataType_t type, Index i) {
  return type == CUDA_R_32F ? static_cast<const float*>(p)[i]
                            : sim::from_bf16(static_cast<const unsigned short*>(p)[i]);
}
// NOLINTEND(clang-analyzer-core.NullDereference)
void store(void* p, cudaDataType_t type, Index i, float v) {
  if (type == CUDA_R_32F)
    static_cast<float*>(p)[i] = v;
  else
    static_cast<unsigned short*>(p)[i] = sim::to_bf16(v);
}

constexpr int kAlgorithms = 4;
constexpr std::size_t kVersion = 130000;
unsigned other_bits = 0;
std::size_t version = kVersion;

// An algorithm's data: its place in the list, counted from 1, and the number of parts that it cuts k into.

constexpr Index kRows = 32, kCols = 4;  // of a tile: vectors along the rows

/// panel[i / width][k][i % width] = op(matrix)(i, k), zeros beyond: the same code then serves every element.
std::vector<float> pack(const void* p, cudaDataType_t type, Index n, Index depth, Index stride_n, Index stride_k,
                        Index width) {
  const Index panels = (n + width - 1) / width;
  std::vector<float> out(panels * depth * width, 0.0f);
#pragma omp parallel for
  for (Index i = 0; i < panels; ++i)
    for (Index k = 0; k < depth; ++k)
      for (Index j = 0; j < width && i * width + j < n; ++j)
        out[(i * depth + k) * width + j] = load(p, type, (i * width + j) * stride_n + k * stride_k);
  return out;
}

/// As the tensor cores sum, in steps of 16 (sim.h: set_exact_sums).
void exact_tile(const float* a, const float* b, Index depth, bool backwards, float (&sum)[kCols][kRows]) {
  constexpr Index kStep = 16;
  const Index steps = (depth + kStep - 1) / kStep;
  for (Index step = 0; step < steps; ++step) {
    const Index first = (backwards ? steps - 1 - step : step) * kStep, n = std::min(kStep, depth - first);
    float left[kCols * kStep];
    for (Index j = 0; j < kCols; ++j)
      for (Index k = 0; k < n; ++k) left[j * n + k] = b[(first + k) * kCols + j];
    sim::multiply_bf16(left, a + first * kRows, sum[0], kCols, kRows, static_cast<int>(n));
  }
}

void tile(const float* a, const float* b, Index depth, bool backwards, bool exact, float (&sum)[kCols][kRows]) {
  std::memset(sum, 0, sizeof sum);
  if (exact) return exact_tile(a, b, depth, backwards, sum);
  for (Index step = 0; step < depth; ++step) {
    const Index k = backwards ? depth - 1 - step : step;
    for (Index j = 0; j < kCols; ++j)
#pragma omp simd
      for (Index i = 0; i < kRows; ++i) sum[j][i] = __builtin_fmaf(a[k * kRows + i], b[k * kCols + j], sum[j][i]);
  }
}

struct Matmul {
  cublasLtMatmulDescription desc;
  Layout a, b, c, d;
  const void *A, *B, *C;
  void* D;
  float alpha, beta;
  bool backwards;

  static const void* at(const void* p, const Layout& l, Index batch) {
    return static_cast<const char*>(p) + batch * l.stride * (l.type == CUDA_R_32F ? 4 : 2);
  }
  void run() const {
    for (Index i = 0; i < d.batches; ++i)
      run_one(at(A, a, i), at(B, b, i), C ? at(C, c, i) : nullptr, const_cast<void*>(at(D, d, i)));
  }
  void run_one(const void* pa, const void* pb, const void* pc, void* pd) const {
    const bool ta = desc.a != CUBLAS_OP_N, tb = desc.b != CUBLAS_OP_N;
    const Index m = static_cast<Index>(d.rows), n = static_cast<Index>(d.cols),
                k = static_cast<Index>(ta ? a.rows : a.cols);
    const auto left =
        pack(pa, a.type, m, k, ta ? a.col_stride() : a.row_stride(), ta ? a.row_stride() : a.col_stride(), kRows);
    const auto right =
        pack(pb, b.type, n, k, tb ? b.row_stride() : b.col_stride(), tb ? b.col_stride() : b.row_stride(), kCols);
    const bool exact = sim::exact_sums() && a.type == CUDA_R_16BF && b.type == CUDA_R_16BF;
    const auto bias_type = desc.bias_type < 0 ? d.type : static_cast<cudaDataType_t>(desc.bias_type);
#pragma omp parallel for collapse(2) schedule(static)
    for (Index i = 0; i < (m + kRows - 1) / kRows; ++i)
      for (Index j = 0; j < (n + kCols - 1) / kCols; ++j) {
        float sum[kCols][kRows];
        tile(&left[i * k * kRows], &right[j * k * kCols], k, backwards, exact, sum);
        for (Index y = 0; y < kCols && j * kCols + y < n; ++y)
          for (Index x = 0; x < kRows && i * kRows + x < m; ++x) {
            const Index row = i * kRows + x, col = j * kCols + y;
            float v = alpha * sum[y][x];
            if (beta != 0.0f) v += beta * load(pc, c.type, row * c.row_stride() + col * c.col_stride());
            if (desc.epilogue == CUBLASLT_EPILOGUE_BIAS) v += load(desc.bias, bias_type, row);
            store(pd, d.type, row * d.row_stride() + col * d.col_stride(), v);
          }
      }
  }
  /// Bytes from the first to the last element of all batches.
  static std::size_t extent(const Layout& l) {
    const auto last = (static_cast<Index>(l.rows) - 1) * l.row_stride() +
                      (static_cast<Index>(l.cols) - 1) * l.col_stride() + (l.batches - 1) * l.stride;
    return static_cast<std::size_t>(last + 1) * (l.type == CUDA_R_32F ? 4 : 2);
  }
};

bool known(cudaDataType_t t) {
  return t == CUDA_R_32F || t == CUDA_R_16BF;
}

cublasStatus_t fits(const cublasLtMatmulDescription& op, const Layout& a, const Layout& b, const Layout& c,
                    const Layout& d) {
  const bool ta = op.a != CUBLAS_OP_N, tb = op.b != CUBLAS_OP_N;
  if ((ta ? a.cols : a.rows) != d.rows || (tb ? b.rows : b.cols) != d.cols ||
      (ta ? a.rows : a.cols) != (tb ? b.cols : b.rows))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (c.rows != d.rows || c.cols != d.cols || !d.rows || !d.cols) return CUBLAS_STATUS_INVALID_VALUE;
  for (const Layout* l : {&a, &b, &c, &d}) {
    if (!known(l->type)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (l->ld < static_cast<Index>(l->order == CUBLASLT_ORDER_COL ? l->rows : l->cols))
      return CUBLAS_STATUS_INVALID_VALUE;
    if (l->batches != d.batches) return CUBLAS_STATUS_INVALID_VALUE;
  }
  // Like the library: both factors have one type, the result has that type or f32.
  if (a.type != b.type || c.type != d.type || (a.type == CUDA_R_32F && d.type != CUDA_R_32F))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (op.epilogue == CUBLASLT_EPILOGUE_BIAS) {
    const int type = op.bias_type < 0 ? d.type : op.bias_type;
    if (!op.bias) return CUBLAS_STATUS_INVALID_VALUE;
    if (type != d.type && !(a.type == CUDA_R_16BF && type == CUDA_R_16BF)) return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

#define ENTER_LT(name) \
  if (const int injected = sim::enter(name)) return static_cast<cublasStatus_t>(injected)

cublasStatus_t cublasLtCreate(cublasLtHandle_t* h) {
  ENTER_LT("cublasLtCreate");
  *h = new cublasLtContext{};
  sim::count_handles(1);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) {
  delete h;
  sim::count_handles(-1);
  return CUBLAS_STATUS_SUCCESS;
}
const char* cublasLtGetStatusName(cublasStatus_t s) {
  switch (s) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH:
      return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR:
      return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "unknown status";
}
const char* cublasLtGetStatusString(cublasStatus_t s) {
  return cublasLtGetStatusName(s);
}
std::size_t cublasLtGetVersion() {
  return version;
}
void sim::set_library_other_bits(unsigned mask) {
  other_bits = mask;
}
void sim::set_library_version(std::size_t v) {
  version = v;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* d, cublasComputeType_t, cudaDataType_t scale) {
  ENTER_LT("cublasLtMatmulDescCreate");
  if (scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *d = new cublasLtMatmulDescription;
  sim::count_handles(1);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
  sim::count_handles(d ? -1 : 0);
  delete d;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a, const void* v,
                                              std::size_t n) {
  ENTER_LT("cublasLtMatmulDescSetAttribute");
  if (n != (a == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? 8u : 4u)) return CUBLAS_STATUS_INVALID_VALUE;
  switch (a) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      std::memcpy(&d->a, v, n);
      break;
    case CUBLASLT_MATMUL_DESC_TRANSB:
      std::memcpy(&d->b, v, n);
      break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      std::memcpy(&d->epilogue, v, n);
      break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      std::memcpy(&d->bias, v, n);
      break;
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      std::memcpy(&d->bias_type, v, n);
      break;
    case CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET:
      break;
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* l, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t cols, std::int64_t ld) {
  ENTER_LT("cublasLtMatrixLayoutCreate");
  *l = new Layout{type, rows, cols, ld};
  sim::count_handles(1);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
  sim::count_handles(l ? -1 : 0);
  delete l;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t a,
                                                const void* v, std::size_t n) {
  ENTER_LT("cublasLtMatrixLayoutSetAttribute");
  switch (a) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
      std::memcpy(&l->type, v, n);
      break;
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      std::memcpy(&l->order, v, n);
      break;
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
      std::memcpy(&l->rows, v, n);
      break;
    case CUBLASLT_MATRIX_LAYOUT_COLS:
      std::memcpy(&l->cols, v, n);
      break;
    case CUBLASLT_MATRIX_LAYOUT_LD:
      std::memcpy(&l->ld, v, n);
      break;
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      std::memcpy(&l->batches, v, n);
      break;
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      std::memcpy(&l->stride, v, n);
      break;
  }
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* p) {
  ENTER_LT("cublasLtMatmulPreferenceCreate");
  *p = new cublasLtMatmulPreferenceDescription{};
  sim::count_handles(1);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
  sim::count_handles(p ? -1 : 0);
  delete p;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t a, const void* v,
                                                    std::size_t n) {
  if (n != (a == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? 8u : 4u)) return CUBLAS_STATUS_INVALID_VALUE;
  if (a == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) std::memcpy(&p->reduction, v, n);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
                                              int requested, cublasLtMatmulHeuristicResult_t results[], int* returned) {
  ENTER_LT("cublasLtMatmulAlgoGetHeuristic");
  *returned = 0;
  if (const cublasStatus_t s = fits(*op, *a, *b, *c, *d)) return s;
  // If splits of k are allowed, the best algorithm uses one.
  const bool split = (preference->reduction & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) != 0;
  for (int i = 0; i < std::min(requested, kAlgorithms); ++i)
    results[(*returned)++] = {
        {{static_cast<std::uint64_t>(i) + 1, split && i == 0 ? 2u : 1u}}, 0, CUBLAS_STATUS_SUCCESS, 1.0f, {}};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t a, void* v, std::size_t n,
                                                    std::size_t* written) {
  if (n != 4) return CUBLAS_STATUS_INVALID_VALUE;
  const std::uint32_t parts = static_cast<std::uint32_t>(algo->data[1]);
  const std::uint32_t scheme = parts > 1 ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : CUBLASLT_REDUCTION_SCHEME_NONE;
  const std::uint32_t value = a == CUBLASLT_ALGO_CONFIG_SPLITK_NUM ? parts : scheme;
  std::memcpy(v, &value, n);
  if (written != nullptr) *written = n;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t op, const void* alpha, const void* A,
                              cublasLtMatrixLayout_t a, const void* B, cublasLtMatrixLayout_t b, const void* beta,
                              const void* C, cublasLtMatrixLayout_t c, void* D, cublasLtMatrixLayout_t d,
                              const cublasLtMatmulAlgo_t* algo, void*, std::size_t, cudaStream_t stream) {
  ENTER_LT("cublasLtMatmul");
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  cublasLtMatmulAlgo_t first{};  // none was passed: the library chooses one itself
  first.data[0] = first.data[1] = 1;
  if (algo == nullptr) algo = &first;
  if (algo->data[0] < 1 || algo->data[0] > kAlgorithms) return CUBLAS_STATUS_INVALID_VALUE;
  if (const cublasStatus_t s = fits(*op, *a, *b, *c, *d)) return s;
  // A split of k has other bits as well.
  const bool backwards = (other_bits >> (algo->data[0] - 1) & 1) != 0 || algo->data[1] > 1;
  Matmul m{*op, *a, *b, *c, *d, A, B, C, D, 0, 0, backwards};
  std::memcpy(&m.alpha, alpha, sizeof m.alpha);
  std::memcpy(&m.beta, beta, sizeof m.beta);
  if (!sim::is_device(A, Matmul::extent(*a)) || !sim::is_device(B, Matmul::extent(*b)) ||
      !sim::is_device(D, Matmul::extent(*d)) || (m.beta != 0.0f && !sim::is_device(C, Matmul::extent(*c))))
    return CUBLAS_STATUS_INVALID_VALUE;
  return sim::submit(stream, [m] { return m.run(), cudaSuccess; }) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                                  : CUBLAS_STATUS_EXECUTION_FAILED;
}
