// The CPU backend. Matrix products are oneDNN's, the rest are vector loops; threads are OpenMP's (oneDNN uses the same
// pool). Each family of ops is in the file of its name, as in cuda/; plain loops of the same: tests/ops/reference.h.
#pragma once

#include <memory>
#include <vector>

#include "core/backend.h"
#include "core/side_thread.h"

namespace dapo {

/// dtype f32, or bf16. Threads: OMP_NUM_THREADS, else all cores.
std::unique_ptr<Backend> make_cpu_backend(DType dtype);
/// Whether this CPU multiplies bf16 natively (AVX512-BF16 or AMX); decides `--dtype auto`.
bool cpu_has_bf16();
/// Bytes that this process may still take of the host's memory: of the machine, and of its control groups.
size_t host_memory_available();
/// The instruction sets that the program was compiled for, AVX2 and FMA at least, and whether this CPU has them.
struct CpuFeature {
  const char* name;
  bool have;
};
std::vector<CpuFeature> needed_cpu_features();
/// Error (exit 2) naming those that are missing.
void check_cpu(const std::vector<CpuFeature>& needed = needed_cpu_features());

namespace cpu {

template <class T>
class CpuBackend final : public Backend {
 public:
  CpuBackend();
  ~CpuBackend() override;
  Device device() const override { return Device::cpu; }
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
  void* host_view(const Tensor& t) override { return t.data; }
  uint64_t record() override { return 0; }
  bool done(uint64_t) override { return true; }
  void wait(uint64_t) override {}
  void synchronize() override {}
  uint64_t beside(std::function<void()> work) override;
  void join(uint64_t mark) override;
  BesideSeconds beside_seconds() override { return {side_.seconds(), waited_}; }
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

 private:
  double waited_ = 0;  // seconds in join()
  SideThread side_;
};

}  // namespace cpu
}  // namespace dapo
