// The CUDA backend: the same ops as cpu/, each in the file of the same name. Kernels are written for sm_80 and up; in
// CI they run in the simulator (sim/). One stream. An error of the driver names the call that failed.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/backend.h"
#include "cuda/cuda_device.h"
#include "cuda/launch.h"

/// A runtime call that must succeed; the error message quotes it.
#define CUDA_CHECK(call) ::dapo::cuda_check((call), #call)

namespace dapo {

namespace cuda {

/// Partial results of attention are merged at fixed places: the end of the prefix, then every kKvSplit tokens. Each
/// split is computed independently (so that decode can run splits in parallel), and they are merged in order; training
/// does the same arithmetic.
inline constexpr int kKvSplit = 512;

class AttentionChoice;
class Products;
struct SideStream;

/// What a communicator does while its thread waits for the device: another rank may never come (nccl_comm.cu).
class DeviceWatch {
 public:
  virtual void begin_wait() = 0;
  virtual void end_wait() = 0;
  virtual void check() = 0;  ///< Error if what the device waits for will not come

 protected:
  ~DeviceWatch() = default;
};

template <class T>
class CudaBackend final : public Backend {
 public:
  /// ranks: that share this GPU.
  explicit CudaBackend(int ranks);
  ~CudaBackend() override;
  Device device() const override { return Device::cuda; }
  DType dtype() const override { return dtype_of<T>::value; }
  std::string describe() const override;
  size_t memory_total() const override;
  size_t memory_available() const override;
  void* allocate(size_t bytes, bool dense) override;
  void release(void* p, size_t bytes) override;
  void* allocate_host(size_t bytes) override;
  void release_host(void* p, size_t bytes) override;
  void copy_in(const Tensor& to, const void* from) override;
  void copy_out(void* to, const Tensor& from) override;
  void copy(const Tensor& to, const Tensor& from) override;
  void zero(const Tensor& t) override;
  uint64_t record() override;
  bool done(uint64_t mark) override;
  void wait(uint64_t mark) override;
  void synchronize() override;
  uint64_t beside(std::function<void()> work) override;
  void join(uint64_t mark) override;
  BesideSeconds beside_seconds() override;
  void replayable(uint64_t key, const std::function<void()>& body) override;
  size_t workspace_bytes(const WorkspaceNeeds& needs) const override;

  void embedding(const Tensor& x, const Tensor& table, const Tensor& ids, int32_t first_id) override;
  void embedding_backward(const Tensor& dtable, const Tensor& dx, const Tensor& unique, const Tensor& offsets,
                          const Tensor& rows) override;
  void gather_rows(const Tensor& y, const Tensor& x, const Tensor& index) override;
  void sum_rows(const Tensor& dx, const Tensor& dy, const Tensor& offsets, const Tensor& rows) override;
  void rmsnorm(const Tensor& y, const Tensor& sum, const Tensor& rstd, const Tensor& x, const Tensor& delta,
               const Tensor& w, float eps) override;
  void add_parts(const Tensor& sum, const Tensor& parts) override;
  void rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy, const Tensor& x, const Tensor& w,
                        const Tensor& rstd) override;
  void prepare_products(std::span<const WeightShape> weights, int64_t rows) override;
  void prepare_attention(const AttentionDims& dims, int64_t rows) override;
  std::string products_text() const override;
  void matmul(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& bias) override;
  void matmul_backward_input(const Tensor& dx, const Tensor& dy, const Tensor& w) override;
  void matmul_backward_weight(const Tensor& dw, const Tensor& db, const Tensor& dy, const Tensor& x) override;
  void rope(const Tensor& qkv, const Tensor& table, const Tensor& positions, const AttentionDims& dims,
            bool inverse) override;
  void attention(const Tensor& out, const Tensor& lse, const Tensor& qkv, const Segments& segments,
                 const AttentionDims& dims) override;
  void attention_backward(const Tensor& dqkv, const Tensor& dout, const Tensor& qkv, const Tensor& out,
                          const Tensor& lse, const Segments& segments, const AttentionDims& dims) override;
  void rope_kv_write(const Tensor& cache, const Tensor& qkv, const Tensor& table, const PagedSequences& seqs,
                     const AttentionDims& dims) override;
  void paged_attention(const Tensor& out, const Tensor& qkv, const Tensor& cache, const PagedSequences& seqs,
                       const AttentionDims& dims) override;
  void swiglu(const Tensor& a, const Tensor& gu) override;
  void swiglu_backward(const Tensor& dgu, const Tensor& a, const Tensor& da, const Tensor& gu) override;
  void lm_logprob(const Tensor& log_prob, const Tensor& entropy, const Tensor& x, const Tensor& head,
                  const Tensor& targets, float temperature) override;
  void lm_dapo(const Tensor& dx, const Tensor& dhead, const Tensor& log_prob, const Tensor& entropy, const Tensor& loss,
               const Tensor& clip, const Tensor& x, const Tensor& head, const Tensor& targets,
               const Tensor& old_log_prob, const Tensor& advantage, const Tensor& weight, const Tensor& log_ratio,
               const Tensor& ref_log_prob, float temperature, const DapoLoss& params) override;
  void lm_sample(const Tensor& tokens, const Tensor& log_prob, const Tensor& x, const Tensor& head, const Tensor& keys,
                 const Tensor& positions, const Sampling& sampling) override;
  void sum_of_squares(const Tensor& out, const Tensor& x) override;
  void adamw(const Tensor& w, const Tensor& remainder, const Tensor& m, const Tensor& v, const Tensor& grad,
             const Tensor& norm2, const AdamW& params) override;
  void cast(const Tensor& to, const Tensor& from) override;
  void increment(const Tensor& t) override;

  /// n counters on the device that are zero between kernels: a kernel that counts its blocks sets them to zero again.
  unsigned* zeroed_counters(int64_t n);

  // For nccl_comm.cu. Waits ask `w` from here on; its end drops recorded steps, which may hold its collectives.
  void watch(DeviceWatch* w) { watches_.push_back(w); }
  void unwatch(DeviceWatch* w);

  // For probe.h.
  cudaStream_t stream() const { return stream_; }
  const cudaDeviceProp& properties() const { return properties_; }
  Products& products() { return *products_; }
  AttentionChoice& attention_choice() { return *attention_choice_; }

 private:
  /// The public constructor delegates to it, so that the destructor runs if that one fails half-way.
  CudaBackend(const cudaDeviceProp& properties, int ranks);
  void copy_on_host(void* to, const void* from, size_t bytes);
  struct State;  // events of record(), recorded graphs by key
  void settle(uint64_t mark);
  void wait_for(cudaEvent_t event);
  class Waiting;
  /// Makes the backend's GPU that of the calling thread.
  void use_device() const;
  /// Asks until done() is no longer cudaErrorNotReady.
  template <class Done>
  void wait_until(const char* call, Done&& done);
  cudaStream_t stream_ = nullptr;  ///< while beside() queues its work, that of the work
  cudaDeviceProp properties_{};
  int device_ = 0, ranks_ = 1;
  size_t allocated_ = 0;  // bytes
  std::vector<DeviceWatch*> watches_;
  std::unique_ptr<Products> products_;
  std::unique_ptr<State> state_;
  std::unique_ptr<AttentionChoice> attention_choice_;
  std::unique_ptr<SideStream> side_;  ///< from the first beside() on
};

}  // namespace cuda
}  // namespace dapo
