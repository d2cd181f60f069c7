// matmul and its two backwards over Products; the bias's gradient; cuBLASLt.
#include <cublasLt.h>

#include <map>
#include <tuple>

#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/products.h"
#include "cuda/shape.h"
#include "cuda/vec.cuh"
#include "cuda/workspace.h"

namespace dapo::cuda {
namespace {

void check_lt(cublasStatus_t s, const char* what) {
  if (s != CUBLAS_STATUS_SUCCESS) fail(kExitInternal, "cublasLt: {} failed with status {}", what, static_cast<int>(s));
}
#define LT_CHECK(call) check_lt((call), #call)

constexpr size_t kLtWorkspace = size_t{32} << 20;

cudaDataType_t lt_type(DType t) {
  return t == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

constexpr int kBiasRows = 64;  // rows of one partial sum of a bias's gradient
constexpr int kBiasThreads = 128;

/// parts[block, n] = sum of the block's rows of dy.
template <class T>
__global__ void column_sums_kernel(float* parts, const T* dy, int rows, int columns) {
  const int c = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (c >= columns) return;
  const int begin = static_cast<int>(blockIdx.y) * kBiasRows;
  const int end = begin + kBiasRows < rows ? begin + kBiasRows : rows;
  float sum = 0.0f;
  for (int n = begin; n < end; ++n) sum += to_float(dy[int64_t{n} * columns + c]);
  parts[int64_t{blockIdx.y} * columns + c] = sum;
}
__global__ void add_column_sums_kernel(float* to, const float* parts, int count, int columns) {
  const int c = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (c >= columns) return;
  float sum = 0.0f;
  for (int p = 0; p < count; ++p) sum += parts[int64_t{p} * columns + c];
  to[c] += sum;
}

}  // namespace

/// cuBLASLt in column-major terms: row-major c = op(a) op(b) is c^T = op(b)^T op(a)^T.
struct Products::Lt {
  using Shape = std::tuple<int64_t, int64_t, DType, DType, bool, bool, int64_t, int64_t, int64_t, bool, bool>;
  cublasLtHandle_t handle = nullptr;
  void* workspace = nullptr;
  std::map<Shape, cublasLtMatmulAlgo_t> algorithms;  // one a weight shape, whatever m

  Lt() {
    LT_CHECK(cublasLtCreate(&handle));
    CUDA_CHECK(cudaMalloc(&workspace, kLtWorkspace));
  }
  ~Lt() {
    cudaFree(workspace);
    cublasLtDestroy(handle);
  }

  struct Layouts {
    cublasLtMatmulDesc_t op = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
    Layouts(const Product& p, int64_t m) {
      const cublasOperation_t ta = p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                              tb = p.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
      LT_CHECK(cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F));
      LT_CHECK(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta));
      LT_CHECK(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb));
      if (p.bias != nullptr) {
        const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        const cudaDataType_t type = lt_type(p.b_type);
        LT_CHECK(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
        LT_CHECK(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof p.bias));
        LT_CHECK(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type));
      }
      const auto rows = [](int64_t x) { return static_cast<uint64_t>(x); };
      LT_CHECK(cublasLtMatrixLayoutCreate(&a, lt_type(p.b_type), rows(p.b_transposed ? p.k : p.n),
                                          rows(p.b_transposed ? p.n : p.k), p.ldb));
      LT_CHECK(cublasLtMatrixLayoutCreate(&b, lt_type(p.a_type), rows(p.a_transposed ? m : p.k),
                                          rows(p.a_transposed ? p.k : m), p.lda));
      LT_CHECK(cublasLtMatrixLayoutCreate(&c, lt_type(p.c_type), rows(p.n), rows(m), p.ldc));
    }
    ~Layouts() {
      cublasLtMatrixLayoutDestroy(c);
      cublasLtMatrixLayoutDestroy(b);
      cublasLtMatrixLayoutDestroy(a);
      cublasLtMatmulDescDestroy(op);
    }
    Layouts(const Layouts&) = delete;
    Layouts& operator=(const Layouts&) = delete;
  };

  /// Chosen for a middling m, without split-K: its order of k is then the same for every m.
  const cublasLtMatmulAlgo_t& algorithm(const Product& p) {
    const Shape shape{p.n,
                      p.k,
                      p.a_type,
                      p.c_type,
                      p.a_transposed,
                      p.b_transposed,
                      p.ldb,
                      p.ldc,
                      p.a_transposed ? p.m : 0,
                      p.accumulate,
                      p.bias != nullptr};
    const auto found = algorithms.find(shape);
    if (found != algorithms.end()) return found->second;
    const Layouts layouts(p, p.a_transposed ? p.m : 1024);
    cublasLtMatmulPreference_t preference = nullptr;
    LT_CHECK(cublasLtMatmulPreferenceCreate(&preference));
    const size_t bytes = kLtWorkspace;
    const uint32_t no_split = CUBLASLT_REDUCTION_SCHEME_NONE;
    LT_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                                                  sizeof bytes));
    LT_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &no_split,
                                                  sizeof no_split));
    cublasLtMatmulHeuristicResult_t result{};
    int count = 0;
    const cublasStatus_t s = cublasLtMatmulAlgoGetHeuristic(handle, layouts.op, layouts.a, layouts.b, layouts.c,
                                                            layouts.c, preference, 1, &result, &count);
    cublasLtMatmulPreferenceDestroy(preference);
    check_lt(s, "cublasLtMatmulAlgoGetHeuristic");
    if (count == 0) fail(kExitInternal, "cublasLt: no algorithm for n {}, k {}", p.n, p.k);
    return algorithms.emplace(shape, result.algo).first->second;
  }

  void run(const Product& p, void* to, const void* x, const void* y, cudaStream_t stream) {
    const cublasLtMatmulAlgo_t& algo = algorithm(p);
    const Layouts layouts(p, p.m);
    const float one = 1.0f, beta = p.accumulate ? 1.0f : 0.0f;
    LT_CHECK(cublasLtMatmul(handle, layouts.op, &one, y, layouts.a, x, layouts.b, &beta, to, layouts.c, to, layouts.c,
                            &algo, workspace, kLtWorkspace, stream));
  }
};

Products::Products(cudaStream_t stream, const cudaDeviceProp& properties)
    : stream_(stream), sms_(properties.multiProcessorCount), lt_(std::make_unique<Lt>()) {}
Products::~Products() = default;

void Products::run(const Product& p, void* c, const void* a, const void* b) {
  if (p.m == 0 || p.n == 0) return;
  if (kind_ == Kind::cublaslt)
    lt_->run(p, c, a, b, stream_);
  else
    run_own(p, c, a, b);
}

template <class T>
void CudaBackend<T>::matmul(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& bias) {
  const int64_t m = x.dim(0), n = w.dim(0), k = w.dim(1);
  expect("matmul y", y, dtype(), {m, n});
  expect("matmul x", x, dtype(), {m, k});
  expect("matmul w", w, dtype(), {n, k});
  if (bias) expect("matmul bias", bias, dtype(), {n});
  products_->run({m, n, k, dtype(), dtype(), dtype(), false, true, k, k, n, false, bias.data}, y.data, x.data, w.data);
}

template <class T>
void CudaBackend<T>::matmul_backward_input(const Tensor& dx, const Tensor& dy, const Tensor& w) {
  const int64_t m = dy.dim(0), k = w.dim(0), n = w.dim(1);
  expect("matmul_backward_input dx", dx, dtype(), {m, n});
  expect("matmul_backward_input dy", dy, dtype(), {m, k});
  products_->run({m, n, k, dtype(), dtype(), dtype(), false, false, k, n, n}, dx.data, dy.data, w.data);
}

template <class T>
void CudaBackend<T>::matmul_backward_weight(const Tensor& dw, const Tensor& db, const Tensor& dy, const Tensor& x) {
  const int64_t k = dy.dim(0), m = dy.dim(1), n = x.dim(1);
  expect("matmul_backward_weight dw", dw, DType::f32, {m, n});
  expect("matmul_backward_weight x", x, dtype(), {k, n});
  if (k == 0) return;
  products_->run({m, n, k, dtype(), dtype(), DType::f32, true, false, m, n, n, true}, dw.data, dy.data, x.data);
  if (!db) return;
  expect("matmul_backward_weight db", db, DType::f32, {m});
  const int blocks = narrow(ceil_div(k, kBiasRows)), columns = narrow(m);
  ArenaScope scope(workspace());
  const Tensor parts = workspace().take("bias parts", DType::f32, {blocks, columns});
  const unsigned strips = static_cast<unsigned>(ceil_div(columns, kBiasThreads));
  launch(column_sums_kernel<T>, {dim3(strips, static_cast<unsigned>(blocks)), dim3(kBiasThreads), 0, stream_},
         parts.as<float>(), dy.as<const T>(), narrow(k), columns);
  launch(add_column_sums_kernel, {dim3(strips), dim3(kBiasThreads), 0, stream_}, db.as<float>(),
         parts.as<const float>(), blocks, columns);
}

size_t matmul_workspace(const WorkspaceNeeds& needs) {
  Arena measure("matmul");
  const int64_t widest = std::max(needs.attention.qkv_width(), std::max(needs.hidden, 2 * needs.ffn));
  measure.take("bias parts", DType::f32, {ceil_div(needs.max_tokens, kBiasRows), widest});
  return measure.peak();
}

#define DAPO_INSTANTIATE(T)                                                                         \
  template void CudaBackend<T>::matmul(const Tensor&, const Tensor&, const Tensor&, const Tensor&); \
  template void CudaBackend<T>::matmul_backward_input(const Tensor&, const Tensor&, const Tensor&); \
  template void CudaBackend<T>::matmul_backward_weight(const Tensor&, const Tensor&, const Tensor&, const Tensor&);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
