// lm_logprob and lm_dapo: logits by chunks of rows, and the policy loss with its gradients from each chunk.
#include <omp.h>

#include <algorithm>

#include "core/op_checks.h"
#include "cpu/cpu_backend.h"
#include "cpu/head_chunks.h"
#include "cpu/sampling.h"
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
/// (reads stay ahead of writes). The second term is the gradient of -bonus * entropy. lp_target: the target's log-prob;
/// the target itself is not among these columns if another rank has it.
template <class T>
void write_dlogits(float* row, int64_t vocab, const RowSoftmax& s, int64_t target, float lp_target, float scale,
                   float bonus) {
  const bool here = target >= 0 && target < vocab;
  T* to = reinterpret_cast<T*>(row);
  if (scale == 0.0f && bonus == 0.0f) {  // a row of weight 0 may hold any logits, NaN too
    std::fill_n(to, vocab, T{});
    return;
  }
  const float p_target = std::exp(lp_target);
  if (bonus != 0.0f) {
    each_part(vocab, [&](int64_t c, auto n) {
      const f32x16 log_p = shifted(s, load_part(row + c, n)) - s.log_sum;
      store_part(to + c, vexp(log_p) * fma(log_p + s.entropy, bonus, splat(-scale)), n);
    });
    if (here)
      store_part(to + target, splat(fmaf(p_target, (lp_target + s.entropy) * bonus, scale * (1.0f - p_target))), 1);
    return;
  }
  const float p_scale = -scale * std::exp(-s.log_sum);
  const int64_t whole = vocab / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) store(to + i, vexp(shifted(s, load(row + i))) * p_scale);
  if (whole < vocab)
    store_part(to + whole, vexp(shifted(s, load_part(row + whole, vocab - whole))) * p_scale, vocab - whole);
  if (here) store_part(to + target, splat(scale * (1.0f - p_target)), 1);
}

/// Element r of an operand; null if it is not given.
const float* at(const Tensor& t, int64_t r) {
  return t ? t.as<float>() + r : nullptr;
}

/// Of rows whose columns are split over ranks: this rank's sums, merged with those of the others.
class SplitRows {
 public:
  SplitRows(Arena& workspace, const VocabularySplit& split, int64_t rows) : split_(split) {
    if (this->split()) lay(workspace, chunk_rows(rows, split.most()), split.most());
  }
  /// Measures what the other takes for chunks of `rows` rows, where no rank has more than `most` columns.
  SplitRows(Arena& workspace, int64_t rows, int64_t most) { lay(workspace, rows, most); }
  bool split() const { return split_.ranks != nullptr; }
  /// All of a chunk's n rows; targets count from the start of the vocabulary. Nothing to do without a split.
  void merge(const float* logits, int64_t row_stride, int64_t n, const int32_t* targets, float temperature) const {
    if (!split()) return;
    const Range own = split_.of(split_.own());
    const Tensor top = top_.rows(0, n), target = target_.rows(0, n), total = total_.rows(0, n),
                 weighted = weighted_.rows(0, n);
#pragma omp parallel for if (n * row_stride > 1 << 13)
    for (int64_t i = 0; i < n; ++i) {
      const float* row = logits + i * row_stride;
      const bool here = targets[i] >= own.begin && targets[i] < own.end;
      top.as<float>()[i] = fill_tiles(tiles(i), row, own.count(), temperature);
      target.as<float>()[i] = here ? row[targets[i] - own.begin] : -HUGE_VALF;
    }
    split_.ranks->all_reduce_max(top);
    split_.ranks->all_reduce_max(target);
    for (int64_t i = 0; i < n; ++i) {
      const SoftmaxSums s = sum_tiles(tiles(i), own.count(), top.as<float>()[i], temperature);
      total.as<int64_t>()[i] = static_cast<int64_t>(s.total);
      weighted.as<double>()[i] = s.weighted;
    }
    split_.ranks->all_reduce_sum(total);
    split_.ranks->all_reduce_sum(weighted);
  }
  /// Row i of the chunk.
  RowSoftmax softmax(int64_t i, float temperature) const {
    const SoftmaxSums sums{static_cast<Mass>(total_.as<int64_t>()[i]), weighted_.as<double>()[i]};
    return softmax_of(sums, top_.as<float>()[i], temperature);
  }
  float target_logit(int64_t i) const {
    return target_.as<float>()[i];
  }

 private:
  SoftmaxTile* tiles(int64_t i) const {
    return static_cast<SoftmaxTile*>(tiles_.rows(i, 1).data);
  }

  void lay(Arena& workspace, int64_t rows, int64_t most) {
    top_ = workspace.take("tops", DType::f32, {rows}), target_ = workspace.take("target logits", DType::f32, {rows});
    total_ = workspace.take("totals", DType::i64, {rows}), weighted_ = workspace.take("sums", DType::f64, {rows});
    tiles_ = workspace.take("row tiles", DType::u8, {rows, softmax_tiles(most) * int64_t{sizeof(SoftmaxTile)}});
  }

  const VocabularySplit split_;
  Tensor top_, target_, total_, weighted_, tiles_;
};

}  // namespace

size_t head_workspace_bytes(const WorkspaceNeeds& needs, DType dtype) {
  Arena arena("head");
  const int64_t chunk = chunk_rows(std::max(needs.max_head_rows, needs.max_batch), needs.vocab);
  arena.take("logits", DType::f32, {round_up(chunk, needs.tensor_ranks), needs.vocab});
  take_tiles(arena, needs.vocab);
  if (needs.tensor_ranks > 1) {
    const ArenaScope scope(arena);
    SplitRows(arena, chunk, needs.vocab);
    arena.take("parts of dx", dtype, {needs.tensor_ranks, chunk, needs.hidden});
  }
  if (needs.max_batch > 0)
    SamplingScratch(arena, chunk, needs.vocab, needs.tensor_ranks,
                    needs.tensor_ranks > 1 ? needs.vocab_size : needs.vocab);
  return arena.peak();
}

template <class T>
void CpuBackend<T>::lm_logprob(const Tensor& log_prob, const Tensor& entropy, const Tensor& x, const Tensor& head,
                               const Tensor& targets, float temperature) {
  const VocabularySplit& split = vocabulary_split();
  check_lm_logprob(dtype(), log_prob, entropy, x, head, targets, temperature, split);
  const int64_t vocab = head.dim(0), stride = row_stride(split, vocab);
  check_values(targets, split.ranks == nullptr ? vocab : split.size);
  const ArenaScope scope(workspace());
  const SplitRows rows(workspace(), split, x.dim(0));
  for_chunks<T>(workspace(), x, head, stride, 1,
                [&](int64_t first, int64_t n, const float* logits, SoftmaxTile* tiles) {
                  rows.merge(logits, stride, n, targets.as<int32_t>() + first, temperature);
#pragma omp parallel for if (n * vocab > 1 << 13)
                  for (int64_t i = 0; i < n; ++i) {
                    const int64_t r = first + i;
                    const float* row = logits + i * stride;
                    const RowSoftmax s = rows.split() ? rows.softmax(i, temperature)
                                                      : row_softmax(own_tiles(tiles, stride), row, vocab, temperature);
                    log_prob.as<float>()[r] =
                        row_log_prob(s, rows.split() ? rows.target_logit(i) : row[targets.as<int32_t>()[r]]);
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
  const VocabularySplit& split = vocabulary_split();
  check_lm_dapo(dtype(), dx, dhead, log_prob, entropy, loss, clip, x, head, targets, old_log_prob, advantage, weight,
                log_ratio, ref_log_prob, temperature, params, split);
  const int64_t vocab = head.dim(0), hidden = head.dim(1), stride = row_stride(split, vocab);
  check_values(targets, split.ranks == nullptr ? vocab : split.size);
  const int64_t first_column = split.ranks == nullptr ? 0 : split.of(split.own()).begin;
  // Of d logits, which are written over the logits.
  const int64_t ld = stride * static_cast<int64_t>(dtype_size(DType::f32) / dtype_size(dtype()));
  const ArenaScope scope(workspace());
  const SplitRows rows(workspace(), split, x.dim(0));
  const auto chunk = [&](int64_t first, int64_t n, float* logits, SoftmaxTile* tiles) {
    rows.merge(logits, stride, n, targets.as<int32_t>() + first, temperature);
#pragma omp parallel for if (n * vocab > 1 << 13)
    for (int64_t i = 0; i < n; ++i) {
      const int64_t r = first + i, target = targets.as<int32_t>()[r];
      float* row = logits + i * stride;
      const RowSoftmax s =
          rows.split() ? rows.softmax(i, temperature) : row_softmax(own_tiles(tiles, stride), row, vocab, temperature);
      const float lp = row_log_prob(s, rows.split() ? rows.target_logit(i) : row[target]);
      const float a = advantage.as<float>()[r], w = weight.as<float>()[r];
      const TokenLoss l =
          objective_loss(lp, s.entropy, a, {at(old_log_prob, r), at(log_ratio, r), at(ref_log_prob, r)}, params);
      log_prob.as<float>()[r] = lp;
      entropy.as<float>()[r] = s.entropy;
      loss.as<float>()[r] = l.loss;
      clip.as<uint8_t>()[r] = l.clip;
      write_dlogits<T>(row, vocab, s, target - first_column, lp, w == 0.0f ? 0.0f : w * l.dlogp * s.inverse_temperature,
                       w * params.entropy_coef * s.inverse_temperature);
    }
    const Tensor to = dx.rows(first, n);
    const ArenaScope inner(workspace());
    const Tensor parts =
        rows.split() ? workspace().take("parts of dx", dtype(), {split.parts(), n, hidden}) : to.view({1, n, hidden});
    const Tensor own_part = parts.rows(split.own(), 1);
    if (vocab > 0) {
      product({.m = n,
               .n = hidden,
               .k = vocab,
               .a_type = dtype(),
               .b_type = dtype(),
               .c_type = dtype(),
               .lda = ld,
               .ldb = hidden,
               .ldc = hidden},
              own_part.data, logits, head.data);
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
    } else {
      zero(own_part);
    }
    if (!rows.split()) return;
    split.ranks->all_gather(parts, own_part);
    add_parts(to, parts);
  };
  for_chunks<T>(workspace(), x, head, stride, 1, chunk);
}

template class CpuBackend<float>;
template class CpuBackend<bf16>;

}  // namespace dapo::cpu
