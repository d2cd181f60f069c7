// The head: logits by chunks of rows, the policy loss and its gradients while they are there, draws.
#include <omp.h>

#include <algorithm>

#include "cpu/cpu_backend.h"
#include "cpu/matmul.h"
#include "cpu/sampling.h"
#include "cpu/workspace.h"

namespace dapo::cpu {
namespace {

/// Rows whose logits are held at once: 64 MiB of them, but no fewer than 256 rows, below which the products (and the
/// traffic of dhead, added to once a chunk) slow down.
int64_t chunk_rows(int64_t rows, int64_t vocab) {
  constexpr int64_t kBytes = int64_t{64} << 20, kFewest = 256;
  return std::min(rows, std::max(kFewest, kBytes / (vocab * int64_t{sizeof(float)})));
}

template <class T>
Product logits_product(int64_t rows, int64_t vocab, int64_t hidden) {
  constexpr DType t = dtype_of<T>::value;
  return {.m = rows,
          .n = vocab,
          .k = hidden,
          .a_type = t,
          .b_type = t,
          .c_type = DType::f32,
          .b_transposed = true,
          .lda = hidden,
          .ldb = hidden,
          .ldc = vocab};
}

/// Scratch of row_softmax() for each thread.
SoftmaxTile* take_tiles(Arena& workspace, int64_t vocab) {
  const int64_t bytes = softmax_tiles(vocab) * int64_t{sizeof(SoftmaxTile)};
  return static_cast<SoftmaxTile*>(workspace.take("tiles", DType::u8, {omp_get_max_threads(), bytes}).data);
}
SoftmaxTile* own_tiles(SoftmaxTile* tiles, int64_t vocab) {
  return tiles + omp_get_thread_num() * softmax_tiles(vocab);
}

/// Calls body(first row, rows, logits, tiles) for each chunk.
template <class T, class F>
void for_chunks(Arena& workspace, const Tensor& x, const Tensor& head, const F& body) {
  const int64_t rows = x.dim(0), hidden = x.dim(1), vocab = head.dim(0);
  const int64_t chunk = chunk_rows(rows, vocab);
  const ArenaScope scope(workspace);
  float* logits = workspace.take("logits", DType::f32, {chunk, vocab}).as<float>();
  SoftmaxTile* tiles = take_tiles(workspace, vocab);
  for (int64_t first = 0; first < rows; first += chunk) {
    const int64_t n = std::min(chunk, rows - first);
    product(logits_product<T>(n, vocab, hidden), logits, x.as<T>() + first * hidden, head.data);
    body(first, n, logits, tiles);
  }
}

void check_targets(const Tensor& targets, int64_t rows, int64_t vocab) {
  expect("targets", targets, DType::i32, {rows});
  const int32_t* t = targets.as<int32_t>();
  for (int64_t r = 0; r < rows; ++r)
    CHECK(t[r] >= 0 && t[r] < vocab, "target {} of row {}, vocabulary {}", t[r], r, vocab);
}

/// d logits = scale * (onehot(target) - p), narrowed to T within the row's own memory (reads run ahead of writes).
template <class T>
void write_dlogits(float* row, int64_t vocab, const RowSoftmax& s, int64_t target, float scale) {
  T* to = reinterpret_cast<T*>(row);
  if (scale == 0.0f) {  // whatever the logits are: a row of weight 0 may hold anything
    std::fill_n(to, vocab, T{});
    return;
  }
  const float p_scale = -scale * std::exp(-s.log_sum), p_target = std::exp(row_log_prob(s, row, target));
  const int64_t whole = vocab / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) store(to + i, vexp(shifted(s, load(row + i))) * p_scale);
  if (whole < vocab)
    store_part(to + whole, vexp(shifted(s, load_part(row + whole, vocab - whole))) * p_scale, vocab - whole);
  const float d = scale * (1.0f - p_target);
  store_part(to + target, splat(d), 1);
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
  const int64_t rows = x.dim(0), vocab = head.dim(0);
  expect("lm_logprob: x", x, dtype(), {rows, head.dim(1)});
  expect("lm_logprob: head", head, dtype(), {vocab, head.dim(1)});
  expect("lm_logprob: log_prob", log_prob, DType::f32, {rows});
  if (entropy) expect("lm_logprob: entropy", entropy, DType::f32, {rows});
  CHECK(temperature > 0.0f, "temperature {}", temperature);
  check_targets(targets, rows, vocab);
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
                            const Tensor& weight, float temperature, const DapoLoss& params) {
  const int64_t rows = x.dim(0), vocab = head.dim(0), hidden = head.dim(1);
  expect("lm_dapo: x", x, dtype(), {rows, hidden});
  expect("lm_dapo: head", head, dtype(), {vocab, hidden});
  expect("lm_dapo: dx", dx, dtype(), {rows, hidden});
  expect("lm_dapo: dhead", dhead, DType::f32, {vocab, hidden});
  for (const Tensor* t : {&log_prob, &entropy, &loss, &advantage, &weight})
    expect("lm_dapo: log_prob, entropy, loss, advantage, weight", *t, DType::f32, {rows});
  if (old_log_prob) expect("lm_dapo: old_log_prob", old_log_prob, DType::f32, {rows});
  expect("lm_dapo: clip", clip, DType::u8, {rows});
  CHECK(temperature > 0.0f, "temperature {}", temperature);
  check_targets(targets, rows, vocab);
  const int64_t ld = vocab * static_cast<int64_t>(dtype_size(DType::f32) /
                                                  dtype_size(dtype()));  // of d logits, which lie in the logits' rows
  for_chunks<T>(workspace(), x, head, [&](int64_t first, int64_t n, float* logits, SoftmaxTile* tiles) {
#pragma omp parallel for if (n * vocab > 1 << 13)
    for (int64_t i = 0; i < n; ++i) {
      const int64_t r = first + i, target = targets.as<int32_t>()[r];
      float* row = logits + i * vocab;
      const RowSoftmax s = row_softmax(own_tiles(tiles, vocab), row, vocab, temperature);
      const float lp = row_log_prob(s, row, target), a = advantage.as<float>()[r];
      const TokenLoss l = old_log_prob ? token_loss(lp, old_log_prob.as<float>()[r], a, params) : on_policy_loss(lp, a);
      log_prob.as<float>()[r] = lp;
      entropy.as<float>()[r] = s.entropy;
      loss.as<float>()[r] = l.loss;
      clip.as<uint8_t>()[r] = l.clip;
      const float w = weight.as<float>()[r];
      write_dlogits<T>(row, vocab, s, target, w == 0.0f ? 0.0f : w * l.dlogp * s.inverse_temperature);
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

template <class T>
void CpuBackend<T>::lm_sample(const Tensor& tokens, const Tensor& log_prob, const Tensor& x, const Tensor& head,
                              const Tensor& keys, const Tensor& positions, const Sampling& sampling) {
  const int64_t rows = x.dim(0), vocab = head.dim(0);
  expect("lm_sample: x", x, dtype(), {rows, head.dim(1)});
  expect("lm_sample: head", head, dtype(), {vocab, head.dim(1)});
  expect("lm_sample: tokens", tokens, DType::i32, {rows});
  expect("lm_sample: log_prob", log_prob, DType::f32, {rows});
  expect("lm_sample: keys", keys, DType::i32, {rows, 3});
  expect("lm_sample: positions", positions, DType::i32, {rows});
  CHECK(sampling.temperature >= 0.0f, "temperature {}", sampling.temperature);
  const ArenaScope scope(workspace());
  int32_t* columns = workspace().take("columns", DType::i32, {omp_get_max_threads(), vocab}).template as<int32_t>();
  for_chunks<T>(workspace(), x, head, [&](int64_t first, int64_t n, const float* logits, SoftmaxTile* tiles) {
#pragma omp parallel for schedule(dynamic) if (n * vocab > 1 << 13)
    for (int64_t i = 0; i < n; ++i) {
      const int64_t r = first + i;
      const int32_t* key = keys.as<int32_t>() + r * 3;
      const uint64_t fraction = draw_fraction(sampling.seed, {key[0], key[1], key[2]}, positions.as<int32_t>()[r]);
      const Drawn drawn = sample_row(logits + i * vocab, own_tiles(tiles, vocab),
                                     columns + omp_get_thread_num() * vocab, vocab, sampling, fraction);
      tokens.as<int32_t>()[r] = drawn.token;
      log_prob.as<float>()[r] = drawn.log_prob;
    }
  });
}

template class CpuBackend<float>;
template class CpuBackend<bf16>;

}  // namespace dapo::cpu
