#include "bench/parts/cudnn_attention.h"

#ifdef DAPO_CUDNN
#include <cudnn_frontend.h>
#include <dlfcn.h>

#include <cmath>

#include "cuda/probe.h"

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;  // where the frontend looks up libcudnn's functions
}

namespace dapo::bench {
namespace {

namespace fe = cudnn_frontend;
using Tensors = std::unordered_map<int64_t, void*>;
enum Uid : int64_t { kQ = 1, kK, kV, kO, kStats, kDO, kDQ, kDK, kDV };

void good(fe::error_t e, const char* what) {
  if (e.is_bad()) fail(kExitInternal, "cuDNN: {}: {}", what, e.get_message());
}
void good(cudnnStatus_t s, const char* what) {
  if (s != CUDNN_STATUS_SUCCESS) fail(kExitInternal, "cuDNN: {}: {}", what, fe::detail::get_error_string(s));
}

std::string load() {
  try {
    fe::cudnn_dlhandle = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
    if (fe::cudnn_dlhandle == nullptr) return fmt::format("{}; add its folder to LD_LIBRARY_PATH", dlerror());
    cudnnHandle_t handle = nullptr;
    const cudnnStatus_t s = fe::detail::create_handle(&handle);
    if (s != CUDNN_STATUS_SUCCESS) return fe::detail::get_error_string(s);
    fe::detail::destroy_handle(handle);
    return "";
  } catch (const std::exception& e) {
    return e.what();
  }
}

}  // namespace

std::string CudnnAttention::missing() {
  static const std::string why = load();
  return why;
}

struct CudnnAttention::State {
  Backend& device;
  EqualSequences sequences;
  cudnnHandle_t handle = nullptr;
  std::shared_ptr<fe::graph::Graph> there, back;
  Tensor stats, workspace;

  State(Backend& b, const EqualSequences& s) : device(b), sequences(s) {}
  ~State() {
    if (stats) device.release(stats.data, stats.bytes());
    if (workspace) device.release(workspace.data, workspace.bytes());
    there.reset(), back.reset();
    if (handle != nullptr) fe::detail::destroy_handle(handle);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  /// [batch, heads, length, D] over our rows of `width` elements.
  fe::graph::Tensor_attributes rows(Uid uid, const char* name, int64_t heads, int64_t width) const {
    const int64_t B = sequences.batch, S = sequences.length, D = sequences.dims.head_dim;
    return fe::graph::Tensor_attributes()
        .set_uid(uid)
        .set_name(name)
        .set_dim({B, heads, S, D})
        .set_stride({S * width, D, width, 1});
  }
  fe::graph::Tensor_attributes lse() const {
    const int64_t B = sequences.batch, S = sequences.length, H = sequences.dims.heads;
    return fe::graph::Tensor_attributes()
        .set_uid(kStats)
        .set_name("lse")
        .set_dim({B, H, S, 1})
        .set_stride({H * S, S, 1, 1})
        .set_data_type(fe::DataType_t::FLOAT);
  }
  std::shared_ptr<fe::graph::Graph> graph() const {
    auto g = std::make_shared<fe::graph::Graph>();
    g->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    return g;
  }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(sequences.dims.head_dim)); }

  void build_forward() {
    const AttentionDims& d = sequences.dims;
    const int64_t W = d.qkv_width();
    there = graph();
    auto [o, s] = there->sdpa(there->tensor(rows(kQ, "q", d.heads, W)), there->tensor(rows(kK, "k", d.kv_heads, W)),
                              there->tensor(rows(kV, "v", d.kv_heads, W)),
                              fe::graph::SDPA_attributes()
                                  .set_name("attention")
                                  .set_generate_stats(true)
                                  .set_attn_scale(scale())
                                  .set_causal_mask(true));
    const auto out = rows(kO, "o", d.heads, d.q_width());
    o->set_output(true).set_uid(kO).set_dim(out.get_dim()).set_stride(out.get_stride());
    s->set_output(true).set_uid(kStats).set_data_type(fe::DataType_t::FLOAT);
    good(there->build(handle, {fe::HeurMode_t::A}), "plan of attention");
  }
  void build_backward() {
    const AttentionDims& d = sequences.dims;
    const int64_t W = d.qkv_width(), Q = d.q_width();
    back = graph();
    auto [dq, dk, dv] =
        back->sdpa_backward(back->tensor(rows(kQ, "q", d.heads, W)), back->tensor(rows(kK, "k", d.kv_heads, W)),
                            back->tensor(rows(kV, "v", d.kv_heads, W)), back->tensor(rows(kO, "o", d.heads, Q)),
                            back->tensor(rows(kDO, "do", d.heads, Q)), back->tensor(lse()),
                            fe::graph::SDPA_backward_attributes()
                                .set_name("attention backward")
                                .set_attn_scale(scale())
                                .set_causal_mask(true));
    const auto query = rows(kDQ, "dq", d.heads, W), key = rows(kDK, "dk", d.kv_heads, W);
    dq->set_output(true).set_uid(kDQ).set_dim(query.get_dim()).set_stride(query.get_stride());
    dk->set_output(true).set_uid(kDK).set_dim(key.get_dim()).set_stride(key.get_stride());
    dv->set_output(true).set_uid(kDV).set_dim(key.get_dim()).set_stride(key.get_stride());
    good(back->build(handle, {fe::HeurMode_t::A}), "plan of attention's backward");
  }
  void reserve() {
    int64_t most = 1;
    for (const auto& g : {there, back}) {
      int64_t bytes = 0;
      if (g == nullptr) continue;
      good(g->get_workspace_size(bytes), "workspace");
      most = std::max(most, bytes);
    }
    const auto take = [&](DType t, int64_t count) {
      return Tensor(device.allocate(count * dtype_size(t)), t, {count});
    };
    stats = take(DType::f32, int64_t{sequences.batch} * sequences.dims.heads * sequences.length);
    workspace = take(DType::u8, most);
  }
  void put_qkv(Tensors& at, const Tensor& qkv, Uid q, Uid k, Uid v) const {
    char* base = static_cast<char*>(qkv.data);
    at[q] = base;
    at[k] = base + sequences.dims.q_width() * 2;
    at[v] = base + (sequences.dims.q_width() + sequences.dims.kv_width()) * 2;
  }
};

CudnnAttention::CudnnAttention(Backend& backend, const EqualSequences& s)
    : state_(std::make_unique<State>(backend, s)) {
  State& m = *state_;
  try {
    good(fe::detail::create_handle(&m.handle), "cudnnCreate");
    good(fe::detail::set_stream(m.handle, static_cast<cudaStream_t>(cuda_stream(backend))), "cudnnSetStream");
    m.build_forward();
    if (s.backward) m.build_backward();
    m.reserve();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    fail(kExitInternal, "cuDNN: {}", e.what());
  }
}
CudnnAttention::~CudnnAttention() = default;

void CudnnAttention::forward(const Tensor& out, const Tensor& qkv) {
  Tensors at{{kO, out.data}, {kStats, state_->stats.data}};
  state_->put_qkv(at, qkv, kQ, kK, kV);
  good(state_->there->execute(state_->handle, at, state_->workspace.data), "attention");
}

void CudnnAttention::backward(const Tensor& dqkv, const Tensor& dout, const Tensor& qkv, const Tensor& out) {
  Tensors at{{kO, out.data}, {kStats, state_->stats.data}, {kDO, dout.data}};
  state_->put_qkv(at, qkv, kQ, kK, kV);
  state_->put_qkv(at, dqkv, kDQ, kDK, kDV);
  good(state_->back->execute(state_->handle, at, state_->workspace.data), "attention's backward");
}

}  // namespace dapo::bench

#else

namespace dapo::bench {

struct CudnnAttention::State {};
std::string CudnnAttention::missing() {
  return "built without the headers of cuDNN and its frontend (make bench-cudnn fetches the latter)";
}
CudnnAttention::CudnnAttention(Backend&, const EqualSequences&) {}
CudnnAttention::~CudnnAttention() = default;
void CudnnAttention::forward(const Tensor&, const Tensor&) {}
void CudnnAttention::backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&) {}

}  // namespace dapo::bench
#endif
