// Products by cuBLASLt, the alternative to gemm.cu. The library (500 MB) is loaded at its first use: programs start
// without it, and run if it is not installed.
#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <tuple>
#include <vector>

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

#define LT_FUNCTIONS(X)           \
  X(Create)                       \
  X(Destroy)                      \
  X(Matmul)                       \
  X(GetVersion)                   \
  X(MatrixLayoutSetAttribute)     \
  X(MatmulAlgoConfigGetAttribute) \
  X(MatmulDescCreate)             \
  X(MatmulDescDestroy)            \
  X(MatmulDescSetAttribute)       \
  X(MatrixLayoutCreate)           \
  X(MatrixLayoutDestroy)          \
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
                kOther = kOwn == 13 ? 12 : 13;  // the driver may be too old for the newer one
  for (const int version : {kOwn, kOther})
    if (library == nullptr) library = dlopen(fmt::format("libcublasLt.so.{}", version).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) fail_input("cuBLASLt is not found: {}; add its folder to LD_LIBRARY_PATH", dlerror());
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
/// We use the enumerations and descriptors of versions 12 and 13. Checked here and not in load(), which runs once.
const Api& lt() {
  static const Api api = load();
  const size_t version = api.GetVersion(), major = version / 10000;
  if (major != 12 && major != 13)
    fail_input("cuBLASLt has version {}.{}, 12 or 13 is needed", major, version / 100 % 100);
  return api;
}

constexpr size_t kLtWorkspace = size_t{32} << 20;

/// Whether k, not m, counts tokens: a weight's gradient.
bool counts_in_k(const Product& p) {
  return p.a_transposed && !p.b_transposed;
}

cudaDataType_t lt_type(DType t) {
  return t == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

/// Wrapped, since the library's type is an unnamed struct, which breaks std::vector under nvcc.
struct Algorithm {
  cublasLtMatmulAlgo_t algo;
};

/// In column-major terms: row-major c = op(a) op(b) is c^T = op(b)^T op(a)^T. Descriptors and algorithms of one shape
/// and bucket of tokens, created once; run() only sets the number of tokens and the address of the bias.
struct Plan {
  cublasLtMatmulDesc_t op = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  std::vector<Algorithm> algorithms;
  size_t taken = 0;
  bool chosen = false;
  int64_t m = 0, k = 0;
  const void* bias = nullptr;

  Plan() = default;
  explicit Plan(const Product& p) : Plan() {  // delegates, so that a failure half-way leaks nothing
    const cublasOperation_t ta = p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                            tb = p.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    LT_CHECK(lt().MatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    LT_CHECK(lt().MatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta));
    LT_CHECK(lt().MatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb));
    if (p.bias != nullptr) {
      const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
      const cudaDataType_t type = lt_type(p.b_type);
      LT_CHECK(lt().MatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
      LT_CHECK(lt().MatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type));
      set_bias(p.bias);
    }
    const auto size = [](int64_t x) { return static_cast<uint64_t>(x); };
    LT_CHECK(lt().MatrixLayoutCreate(&a, lt_type(p.b_type), size(p.b_transposed ? p.k : p.n),
                                     size(p.b_transposed ? p.n : p.k), p.ldb));
    LT_CHECK(lt().MatrixLayoutCreate(&b, lt_type(p.a_type), size(p.a_transposed ? p.m : p.k),
                                     size(p.a_transposed ? p.k : p.m), p.lda));
    LT_CHECK(lt().MatrixLayoutCreate(&c, lt_type(p.c_type), size(p.n), size(p.m), p.ldc));
    m = p.m, k = p.k;
  }
  ~Plan() {
    lt().MatrixLayoutDestroy(c);
    lt().MatrixLayoutDestroy(b);
    lt().MatrixLayoutDestroy(a);
    lt().MatmulDescDestroy(op);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  void set_bias(const void* to) {
    if (to == bias) return;
    LT_CHECK(lt().MatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &to, sizeof to));
    bias = to;
  }
  void set_tokens(const Product& p) {
    if (p.m == m && p.k == k) return;
    const auto set = [](cublasLtMatrixLayout_t layout, int64_t rows, int64_t columns) {
      const uint64_t down = rows, across = columns;
      LT_CHECK(lt().MatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_ROWS, &down, sizeof down));
      LT_CHECK(lt().MatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_COLS, &across, sizeof across));
    };
    set(a, p.b_transposed ? p.k : p.n, p.b_transposed ? p.n : p.k);
    set(b, p.a_transposed ? p.m : p.k, p.a_transposed ? p.k : p.m);
    set(c, p.n, p.m);
    m = p.m, k = p.k;
  }
};

}  // namespace

struct CublasLt::State {
  using Key = std::tuple<int64_t, int64_t, int64_t, DType, DType, bool, bool, int64_t, int64_t, int64_t, bool, bool>;
  cublasLtHandle_t handle = nullptr;
  void* workspace = nullptr;
  cudaStream_t stream;
  std::map<Key, std::unique_ptr<Plan>> plans;

  explicit State(cudaStream_t s) : stream(s) {
    lt();  // its errors come before anything is allocated
    CUDA_CHECK(cudaMalloc(&workspace, kLtWorkspace));
    const cublasStatus_t status = lt().Create(&handle);
    if (status != CUBLAS_STATUS_SUCCESS) cudaFree(workspace);
    check_lt(status, "cublasLtCreate");
  }
  ~State() {
    plans.clear();
    cudaFree(workspace);
    lt().Destroy(handle);
  }

  /// p with the bucket as its number of tokens (which in no op is the contiguous dimension of an operand).
  static Product at_bucket(Product p, int64_t bucket) {
    if (!(p.a_transposed && p.b_transposed)) (counts_in_k(p) ? p.k : p.m) = bucket;
    return p;
  }
  static Key key_of(const Product& p, int64_t bucket) {
    const bool weight_gradient = counts_in_k(p);
    return {bucket,
            weight_gradient ? p.m : p.k,
            p.n,
            p.a_type,
            p.c_type,
            p.a_transposed,
            p.b_transposed,
            p.lda,
            p.ldb,
            p.ldc,
            p.accumulate,
            p.bias != nullptr};
  }
  Plan* find(const Product& p, int64_t bucket) {
    const auto found = plans.find(key_of(p, bucket));
    return found == plans.end() ? nullptr : found->second.get();
  }
  Plan& plan(const Product& p, int64_t bucket) {
    if (Plan* found = find(p, bucket)) return *found;
    auto made = std::make_unique<Plan>(at_bucket(p, bucket));
    ask(*made, p);
    return *(plans[key_of(p, bucket)] = std::move(made));
  }

  /// The library's suggestions. For forward products none that splits k: their bits must be those of one chain over k.
  /// For few rows those for other numbers of rows as well: what it has left without splits is not its best (64 x 896 x
  /// 4864 on an H200: 26 us, where an algorithm that it suggests for 256 rows takes 10). Gradients only have to be
  /// reproducible, and may sum splits from the workspace in order: the head's dX has k = V and few tiles.
  void ask(Plan& plan, const Product& p) {
    add_suggestions(plan, plan, p);
    if (!is_forward(p) || plan.m > kFewRows) return;
    for (int64_t rows = kLeastBucket; rows <= kFewRows; rows *= 2)
      if (rows != plan.m) add_suggestions(plan, Plan(at_bucket(p, rows)), p);
  }
  void add_suggestions(Plan& plan, const Plan& asked, const Product& p) {
    constexpr int kAsked = 8;
    cublasLtMatmulPreference_t preference = nullptr;
    LT_CHECK(lt().MatmulPreferenceCreate(&preference));
    const size_t bytes = kLtWorkspace;
    const uint32_t schemes = is_forward(p) ? CUBLASLT_REDUCTION_SCHEME_NONE : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint32_t alignment = kAlignment;
    cublasLtMatmulHeuristicResult_t results[kAsked] = {};
    int count = 0;
    cublasStatus_t s = CUBLAS_STATUS_SUCCESS;
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      if (s == CUBLAS_STATUS_SUCCESS)
        s = lt().MatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value);
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, bytes);
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes);
    for (const auto operand : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      set(operand, alignment);
    if (s == CUBLAS_STATUS_SUCCESS)
      s = lt().MatmulAlgoGetHeuristic(handle, asked.op, asked.a, asked.b, asked.c, asked.c, preference, kAsked, results,
                                      &count);
    lt().MatmulPreferenceDestroy(preference);
    if (s == CUBLAS_STATUS_NOT_SUPPORTED) return;  // no algorithm: run() returns false
    check_lt(s, "cublasLtMatmulAlgoGetHeuristic");
    for (int i = 0; i < count; ++i) {
      const cublasLtMatmulAlgo_t& algo = results[i].algo;
      if (results[i].state != CUBLAS_STATUS_SUCCESS) continue;
      if (is_forward(p) && (attribute<int32_t>(algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, 1) > 1 ||
                            attribute<uint32_t>(algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, 0) != 0))
        continue;
      if (std::ranges::none_of(plan.algorithms, [&](const Algorithm& known) { return same(known.algo, algo); }))
        plan.algorithms.push_back({algo});
    }
  }
  static bool same(const cublasLtMatmulAlgo_t& x, const cublasLtMatmulAlgo_t& y) {
    return std::memcmp(&x, &y, sizeof x) == 0;
  }
  template <class V>
  static V attribute(const cublasLtMatmulAlgo_t& algo, cublasLtMatmulAlgoConfigAttributes_t which, V fallback) {
    V value{};
    size_t written = 0;
    const cublasStatus_t s = lt().MatmulAlgoConfigGetAttribute(&algo, which, &value, sizeof value, &written);
    return s == CUBLAS_STATUS_SUCCESS ? value : fallback;
  }

  bool run(Plan& plan, const Product& p, void* to, const void* x, const void* y) {
    if (plan.algorithms.empty()) return false;
    plan.set_tokens(p);
    if (p.bias != nullptr) plan.set_bias(p.bias);
    const float one = 1.0f, beta = p.accumulate ? 1.0f : 0.0f;
    const cublasStatus_t s = lt().Matmul(handle, plan.op, &one, y, plan.a, x, plan.b, &beta, to, plan.c, to, plan.c,
                                         &plan.algorithms[plan.taken].algo, workspace, kLtWorkspace, stream);
    // An algorithm of the bucket may not support every number of tokens in it.
    if (s == CUBLAS_STATUS_NOT_SUPPORTED || s == CUBLAS_STATUS_INVALID_VALUE) return false;
    check_lt(s, "cublasLtMatmul");
    return true;
  }
};

CublasLt::CublasLt(cudaStream_t stream) : state_(std::make_unique<State>(stream)) {}
CublasLt::~CublasLt() = default;

std::string CublasLt::version() {
  const size_t v = lt().GetVersion();
  return fmt::format("{}.{}.{}", v / 10000, v / 100 % 100, v % 100);
}

int64_t CublasLt::bucket_of(const Product& p) {
  const int64_t tokens = std::clamp<int64_t>(counts_in_k(p) ? p.k : p.m, kLeastBucket, 16384);
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(tokens)));
}
int CublasLt::algorithms(const Product& p) {
  return static_cast<int>(state_->plan(p, bucket_of(p)).algorithms.size());
}
void CublasLt::choose(const Product& p, int i) {
  Plan& plan = state_->plan(p, bucket_of(p));
  CHECK(i >= 0 && static_cast<size_t>(i) < plan.algorithms.size(), "algorithm {}", i);
  plan.taken = static_cast<size_t>(i), plan.chosen = true;
}
void CublasLt::forget(const Product& p) {
  if (Plan* plan = state_->find(p, bucket_of(p))) plan->taken = 0, plan->chosen = false;
}
bool CublasLt::chosen(const Product& p) const {
  const Plan* plan = state_->find(p, bucket_of(p));
  return plan != nullptr && plan->chosen;
}
bool CublasLt::run(const Product& p, void* c, const void* a, const void* b) {
  constexpr int64_t kMiddling = 1024;
  return state_->run(state_->plan(p, is_forward(p) && !chosen(p) ? kMiddling : bucket_of(p)), p, c, a, b);
}
bool CublasLt::run_as(const Product& bucket, const Product& p, void* c, const void* a, const void* b) {
  return state_->run(state_->plan(bucket, bucket_of(bucket)), p, c, a, b);
}

}  // namespace dapo::cuda
