// lm_logprob and lm_dapo: logits by chunks of rows, and the policy loss with its gradients from each chunk.
#include <omp.h>

#include <algorithm>

#include "core/op_checks.h"
#include "cpu/cpu_backend.h"
#include "cpu/head_chunks.h"
#include "cpu/workspace.h"

namespace dapo::cpu {
namespace {

/// A target outside the vocabulary would be read from other memory.
void check_values(const Tensor& targets, int64_t vocab) {
  const int32_t* t = targets.as<int32_t>();
  for (int64_t r = 0; r < targets.dim(0); ++r)
    CHECK(t[r] >= 0 && t[r] < vocab, "target {} of row {}, vocabulary {}", t[r], r, vocab);
}

/// d logits = scale * (onehot(target) - p) + bonus * p * (log p + entropy), written as T over the logits of the row
/// (reads stay ahead of writes). The second term is the gradient of -bonus * entropy.
template <class T>
void write_dlogits(float* row, int64_t vocab, const RowSoftmax& s, int64_t target, float scale, float bonus) {
  T* to = reinterpret_cast<T*>(row);
  if (scale == 0.0f && bonus == 0.0f) {  // a row of weight 0 may hold any logits, NaN too
    std::fill_n(to, vocab, T{});
    return;
  }
  const float lp_target = row_log_prob(s, row, target), p_target = std::exp(lp_target);
  if (bonus != 0.0f) {
    each_part(vocab, [&](int64_t c, auto n) {
      const f32x16 log_p = shifted(s, load_part(row + c, n)) - s.log_sum;
      store_part(to + c, vexp(log_p) * fma(log_p + s.entropy, bonus, splat(-scale)), n);
    });
    store_part(to + target, splat(fmaf(p_target, (lp_target + s.entropy) * bonus, scale * (1.0f - p_target))), 1);
    return;
  }
  const float p_scale = -scale * std::exp(-s.log_sum);
  const int64_t whole = vocab / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) store(to + i, vexp(shifted(s, load(row + i))) * p_scale);
  if (whole < vocab)
    store_part(to + whole, vexp(shifted(s, load_part(row + whole, vocab - whole))) * p_scale, vocab - whole);
  const float d = scale * (1.0f - p_target);
  store_part(to + target, splat(d), 1);
}

/// Element r of an operand; null if it is not given.
const float* at(const Tensor& t, int64_t r) {
  return t ? t.as<float>() + r : nullptr;
}

}  // namespace

size_t head_workspace_bytes(const WorkspaceNeeds& needs, DType) {
  Arena arena("head");
  const int64_t rows = std::max(needs.max_head_rows, needs.max_batch);
  arena.take("logits", DType::f32, {chunk_rows(rows, needs.vocab), needs.vocab});
  take_tiles(arena, needs.vocab);
  if (needs.max_batch > 0) arena.take("columns", DType::i32, {omp_get_max_threads(), needs.vocab});
  return arena.peak();
}

template <class T>
void CpuBackend<T>::lm_logprob(const Tensor& log_prob, const Tensor& entropy, const Tensor& x, const Tensor& head,
                               const Tensor& targets, float temperature) {
  check_lm_logprob(dtype(), log_prob, entropy, x, head, targets, temperature);
  const int64_t vocab = head.dim(0);
  check_values(targets, vocab);
  for_chunks<T>(workspace(), x, head, [&](int64_t first, int64_t n, const float* logits, SoftmaxTile* tiles) {
#pragma omp parallel for if (n * vocab > 1 << 13)
    for (int64_t i = 0; i < n; ++i) {
      const int64_t r = first + i;
      const RowSoftmax s = row_softmax(own_tiles(tiles, vocab), logits + i * vocab, vocab, temperature);
      log_prob.as<float>()[r] = row_log_prob(s, logits + i * vocab, targets.as<int32_t>()[r]);
      if (entropy) entropy.as<float>()[r] = s.entropy;
    }
  });
}

template <class T>
void CpuBackend<T>::lm_dapo(const Tensor& dx, const Tensor& dhead, const Tensor& log_prob, const Tensor& entropy,
                            const Tensor& loss, const Tensor& clip, const Tensor& x, const Tensor& head,
                            const Tensor& targets, const Tensor& old_log_prob, const Tensor& advantage,
                            const Tensor& weight, const Tensor& log_ratio, const Tensor& ref_log_prob,
                            float temperature, const DapoLoss& params) {
  check_lm_dapo(dtype(), dx, dhead, log_prob, entropy, loss, clip, x, head, targets, old_log_prob, advantage, weight,
                log_ratio, ref_log_prob, temperature, params);
  const int64_t vocab = head.dim(0), hidden = head.dim(1);
  check_values(targets, vocab);
  const int64_t ld = vocab * int64_t{sizeof(float) / sizeof(T)};  // of d logits, which are written over the logits
  for_chunks<T>(workspace(), x, head, [&](int64_t first, int64_t n, float* logits, SoftmaxTile* tiles) {
#pragma omp parallel for if (n * vocab > 1 << 13)
    for (int64_t i = 0; i < n; ++i) {
      const int64_t r = first + i, target = targets.as<int32_t>()[r];
      float* row = logits + i * vocab;
      const RowSoftmax s = row_softmax(own_tiles(tiles, vocab), row, vocab, temperature);
      const float lp = row_log_prob(s, row, target), a = advantage.as<float>()[r];
      const TokenLoss l =
          objective_loss(lp, s.entropy, a, {at(old_log_prob, r), at(log_ratio, r), at(ref_log_prob, r)}, params);
      log_prob.as<float>()[r] = lp;
      entropy.as<float>()[r] = s.entropy;
      loss.as<float>()[r] = l.loss;
      clip.as<uint8_t>()[r] = l.clip;
      const float w = weight.as<float>()[r];
      write_dlogits<T>(row, vocab, s, target, w == 0.0f ? 0.0f : w * l.dlogp * s.inverse_temperature,
                       w * params.entropy_coef * s.inverse_temperature);
    }
    product({.m = n,
             .n = hidden,
             .k = vocab,
             .a_type = dtype(),
             .b_type = dtype(),
             .c_type = dtype(),
             .lda = ld,
             .ldb = hidden,
             .ldc = hidden},
            dx.as<T>() + first * hidden, logits, head.data);
    product({.m = vocab,
             .n = hidden,
             .k = n,
             .a_type = dtype(),
             .b_type = dtype(),
             .c_type = DType::f32,
             .a_transposed = true,
             .lda = ld,
             .ldb = hidden,
             .ldc = hidden,
             .accumulate = true},
            dhead.data, logits, x.as<T>() + first * hidden);
  });
}

template class CpuBackend<float>;
template class CpuBackend<bf16>;

}  // namespace dapo::cpu
