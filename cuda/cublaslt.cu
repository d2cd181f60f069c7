// Products by cuBLASLt, an option beside gemm.cu. The library (500 MB) is loaded when it is first asked for: programs
// start without it, and run where it is not installed.
#include <cublasLt.h>
#include <dlfcn.h>

#include <map>
#include <tuple>

#include "cuda/cublaslt.h"
#include "cuda/cuda_backend.h"

namespace dapo::cuda {
namespace {

void check_lt(cublasStatus_t s, const char* what) {
  if (s == CUBLAS_STATUS_SUCCESS) return;
  const bool resources = s == CUBLAS_STATUS_NOT_INITIALIZED || s == CUBLAS_STATUS_ALLOC_FAILED;
  fail(resources ? kExitResources : kExitInternal, "cublasLt: {} failed with status {}", what, static_cast<int>(s));
}
#define LT_CHECK(call) check_lt((call), #call)

#define LT_FUNCTIONS(X)                                                                                           \
  X(Create)                                                                                                       \
  X(Destroy)                                                                                                      \
  X(Matmul)                                                                                                       \
  X(MatmulDescCreate) X(MatmulDescDestroy) X(MatmulDescSetAttribute) X(MatrixLayoutCreate) X(MatrixLayoutDestroy) \
      X(MatmulPreferenceCreate) X(MatmulPreferenceDestroy) X(MatmulPreferenceSetAttribute) X(MatmulAlgoGetHeuristic)

struct Api {
#define X(name) decltype(&::cublasLt##name) name;
  LT_FUNCTIONS(X)
#undef X
};

Api load() {
  Api api{};
#ifdef __CUDACC__
  void* library = nullptr;
  constexpr int kOwn = CUDART_VERSION / 1000,
                kOther = kOwn == 13 ? 12 : 13;  // an older driver may refuse the newer one
  for (const int version : {kOwn, kOther})
    if (library == nullptr) library = dlopen(fmt::format("libcublasLt.so.{}", version).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    fail_input("cublasLt is asked for (DAPO_CUDA_PRODUCTS) but not found: {}; add its folder to LD_LIBRARY_PATH",
               dlerror());
#define X(name)                                                                      \
  api.name = reinterpret_cast<decltype(api.name)>(dlsym(library, "cublasLt" #name)); \
  if (api.name == nullptr) fail_input("cublasLt: the library has no cublasLt" #name);
#else
#define X(name) api.name = &::cublasLt##name;
#endif
  LT_FUNCTIONS(X)
#undef X
  return api;
}
const Api& lt() {
  static const Api api = load();
  return api;
}

constexpr size_t kLtWorkspace = size_t{32} << 20;

cudaDataType_t lt_type(DType t) {
  return t == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

}  // namespace

/// cuBLASLt in column-major terms: row-major c = op(a) op(b) is c^T = op(b)^T op(a)^T.
struct CublasLt::State {
  using Shape = std::tuple<int64_t, int64_t, DType, DType, bool, bool, int64_t, int64_t, int64_t, bool, bool>;
  cublasLtHandle_t handle = nullptr;
  void* workspace = nullptr;
  cudaStream_t stream;
  std::map<Shape, cublasLtMatmulAlgo_t> algorithms;  // one a weight shape, whatever m

  explicit State(cudaStream_t s) : stream(s) {
    CUDA_CHECK(cudaMalloc(&workspace, kLtWorkspace));
    const cublasStatus_t status = lt().Create(&handle);
    if (status != CUBLAS_STATUS_SUCCESS) cudaFree(workspace);
    check_lt(status, "cublasLtCreate");
  }
  ~State() {
    cudaFree(workspace);
    lt().Destroy(handle);
  }

  struct Layouts {
    cublasLtMatmulDesc_t op = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
    Layouts() = default;
    Layouts(const Product& p, int64_t m) : Layouts() {  // delegates, so that a failure half-way leaks nothing
      const cublasOperation_t ta = p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                              tb = p.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
      LT_CHECK(lt().MatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F));
      LT_CHECK(lt().MatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta));
      LT_CHECK(lt().MatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb));
      if (p.bias != nullptr) {
        const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        const cudaDataType_t type = lt_type(p.b_type);
        LT_CHECK(lt().MatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
        LT_CHECK(lt().MatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof p.bias));
        LT_CHECK(lt().MatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type));
      }
      const auto rows = [](int64_t x) { return static_cast<uint64_t>(x); };
      LT_CHECK(lt().MatrixLayoutCreate(&a, lt_type(p.b_type), rows(p.b_transposed ? p.k : p.n),
                                       rows(p.b_transposed ? p.n : p.k), p.ldb));
      LT_CHECK(lt().MatrixLayoutCreate(&b, lt_type(p.a_type), rows(p.a_transposed ? m : p.k),
                                       rows(p.a_transposed ? p.k : m), p.lda));
      LT_CHECK(lt().MatrixLayoutCreate(&c, lt_type(p.c_type), rows(p.n), rows(m), p.ldc));
    }
    ~Layouts() {
      lt().MatrixLayoutDestroy(c);
      lt().MatrixLayoutDestroy(b);
      lt().MatrixLayoutDestroy(a);
      lt().MatmulDescDestroy(op);
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
    LT_CHECK(lt().MatmulPreferenceCreate(&preference));
    const size_t bytes = kLtWorkspace;
    const uint32_t no_split = CUBLASLT_REDUCTION_SCHEME_NONE;
    cublasLtMatmulHeuristicResult_t result{};
    int count = 0;
    cublasStatus_t s =
        lt().MatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes);
    if (s == CUBLAS_STATUS_SUCCESS)
      s = lt().MatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &no_split,
                                            sizeof no_split);
    if (s == CUBLAS_STATUS_SUCCESS)
      s = lt().MatmulAlgoGetHeuristic(handle, layouts.op, layouts.a, layouts.b, layouts.c, layouts.c, preference, 1,
                                      &result, &count);
    lt().MatmulPreferenceDestroy(preference);
    check_lt(s, "cublasLtMatmulAlgoGetHeuristic");
    if (count == 0) fail(kExitInternal, "cublasLt: no algorithm for n {}, k {}", p.n, p.k);
    return algorithms.emplace(shape, result.algo).first->second;
  }

  void run(const Product& p, void* to, const void* x, const void* y) {
    const cublasLtMatmulAlgo_t& algo = algorithm(p);
    const Layouts layouts(p, p.m);
    const float one = 1.0f, beta = p.accumulate ? 1.0f : 0.0f;
    LT_CHECK(lt().Matmul(handle, layouts.op, &one, y, layouts.a, x, layouts.b, &beta, to, layouts.c, to, layouts.c,
                         &algo, workspace, kLtWorkspace, stream));
  }
};

CublasLt::CublasLt(cudaStream_t stream) : state_(std::make_unique<State>(stream)) {}
CublasLt::~CublasLt() = default;
void CublasLt::run(const Product& p, void* c, const void* a, const void* b) {
  state_->run(p, c, a, b);
}

}  // namespace dapo::cuda
