// lm_sample: a block draws the token of one row. Weights e^(z - max) are in [0, 1], so that their bits are ordered as
// they are: thresholds of top-k and top-p are found by histograms over the bits, no sort. Masses are integers (units of
// 2^-40): sums do not depend on their order, and the draw never leaves the filtered set.
#include "cuda/cuda_backend.h"
#include "cuda/head_chunks.h"
#include "cuda/launch.h"
#include "cuda/shape.h"
#include "cuda/softmax.cuh"

namespace dapo::cuda {
namespace {

using Mass = unsigned long long;

constexpr int kBins = 1024;
constexpr int kThreads = kSoftmaxThreads;

/// What is kept of a row: weights of at least `floor` bits, and of those that equal it only up to index `last_tie`.
struct Kept {
  uint32_t floor;
  int last_tie;
};

struct Row {
  const float* logits;
  int vocab;
  RowSoftmax softmax;
  __device__ float weight(int i) const { return expf(shifted(softmax, logits[i])); }
};

__device__ __forceinline__ Mass mass_of(float weight) {
  return static_cast<Mass>(rintf(weight * 0x1p24f)) << 16;
}
__device__ __forceinline__ bool keeps(const Kept& k, uint32_t bits, int i) {
  return bits > k.floor || (bits == k.floor && i <= k.last_tie);
}

/// Sum over the block, in every thread; integers, so in any order.
__device__ __forceinline__ Mass block_mass(Mass x, Mass* scratch) {
  return block_sum(x, scratch);
}

/// The largest threshold whose weights at or above it measure (count, or mass) at least `target`; `above` receives what
/// those above it measure. Three levels of 10 bits each over the weight's 30 bits, from the top.
template <bool kCount>
__device__ __forceinline__ uint32_t select_threshold(const Row& row, const Kept& kept, Mass target, Mass* above,
                                                     Mass* bins) {
  __shared__ uint32_t shared_prefix;
  __shared__ Mass shared_above;
  uint32_t prefix = 0;
  Mass higher = 0;
  for (int shift = 20; shift >= 0; shift -= 10) {
    for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kThreads) bins[i] = 0;
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < row.vocab; i += kThreads) {
      const float w = row.weight(i);
      const uint32_t bits = float_bits(w);
      if (!keeps(kept, bits, i) || (shift < 20 && bits >> (shift + 10) != prefix)) continue;
      atomicAdd(&bins[(bits >> shift) & (kBins - 1)], kCount ? Mass{1} : mass_of(w));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int bin = kBins - 1;
      while (bin > 0 && higher + bins[bin] < target) higher += bins[bin--];
      shared_prefix = prefix << 10 | static_cast<uint32_t>(bin);
      shared_above = higher;
    }
    __syncthreads();
    prefix = shared_prefix;
    higher = shared_above;
  }
  *above = higher;
  return prefix;
}

/// Finds, over contiguous runs of columns a thread, the first index at which the running total of measure(i) exceeds
/// `target`
/// (-1: never), the same in every thread.
template <class F>
__device__ __forceinline__ int first_beyond(int vocab, Mass target, Mass* runs, const F& measure) {
  __shared__ int shared_run;
  __shared__ Mass shared_before;
  __shared__ int shared_found;
  const int length = (vocab + kThreads - 1) / kThreads;
  const int begin = static_cast<int>(threadIdx.x) * length, end = begin + length < vocab ? begin + length : vocab;
  Mass own = 0;
  for (int i = begin; i < end; ++i) own += measure(i);
  runs[threadIdx.x] = own;
  __syncthreads();
  if (threadIdx.x == 0) {
    int run = 0;
    Mass before = 0;
    while (run < kThreads && before + runs[run] <= target) before += runs[run++];
    shared_run = run;
    shared_before = before;
    shared_found = -1;
  }
  __syncthreads();
  if (static_cast<int>(threadIdx.x) == shared_run) {
    Mass total = shared_before;
    int i = begin;
    while (total + measure(i) <= target) total += measure(i++);
    shared_found = i;
  }
  __syncthreads();
  const int found = shared_found;
  __syncthreads();
  return found;
}

/// Hugging Face's order: top-k, then top-p, then min-p. Ties at the k-th all stay; at top-p's edge the first by index.
__device__ __forceinline__ Kept filter(const Row& row, const Sampling& sampling, Mass* bins, Mass* scratch) {
  Kept kept{0, row.vocab};
  Mass above = 0;
  if (sampling.top_k > 0 && sampling.top_k < row.vocab)
    kept.floor = select_threshold<true>(row, kept, static_cast<Mass>(sampling.top_k), &above, bins);
  if (sampling.top_p < 1.0f) {
    Mass total = 0;
    for (int i = static_cast<int>(threadIdx.x); i < row.vocab; i += kThreads) {
      const float w = row.weight(i);
      if (keeps(kept, float_bits(w), i)) total += mass_of(w);
    }
    total = block_mass(total, scratch);
    Mass target = static_cast<Mass>(static_cast<double>(total) * static_cast<double>(sampling.top_p));
    if (target == 0) target = 1;  // at least one token
    const uint32_t edge = select_threshold<false>(row, kept, target, &above, bins);
    const Mass each = mass_of(bits_float(edge));
    const Mass ties = each == 0 ? 1 : (target - above + each - 1) / each;  // how many of the ties reach the target
    kept.floor = edge;
    const int last = first_beyond(row.vocab, ties - 1, bins,
                                  [&](int i) { return Mass{float_bits(row.weight(i)) == edge ? 1u : 0u}; });
    if (last >= 0) kept.last_tie = last;
  }
  if (sampling.min_p > 0.0f) {
    // The largest weight is 1 but for the rounding of its logit's product with 1 / temperature.
    const uint32_t least = float_bits(fminf(sampling.min_p, 1.0f - 0x1p-16f));
    if (least > kept.floor) kept = {least, row.vocab};
  }
  return kept;
}

__global__ void __launch_bounds__(kThreads, 2)
    sample_kernel(int32_t* tokens, float* log_prob, const float* logits, const int32_t* keys, const int32_t* positions,
                  Sampling sampling, int vocab) {
  __shared__ Mass bins[kBins];
  __shared__ Mass scratch[kWarp];
  static_assert(kBins >= kThreads, "bins also holds a value a thread");
  const int r = static_cast<int>(blockIdx.x);
  const bool greedy = sampling.temperature == 0.0f;
  Row row{logits + int64_t{r} * vocab, vocab, {}};
  row.softmax = row_softmax(row.logits, vocab, greedy ? 1.0f : 1.0f / sampling.temperature);
  int token = 0;
  if (!(fabsf(row.softmax.log_sum) < INFINITY)) {
    if (threadIdx.x == 0) {
      tokens[r] = 0;
      log_prob[r] = NAN;
    }
    return;
  }
  if (greedy) {
    token = first_beyond(vocab, 0, bins, [&](int i) { return Mass{row.logits[i] == row.softmax.max ? 1u : 0u}; });
  } else {
    const Kept kept = filter(row, sampling, bins, scratch);
    const auto measure = [&](int i) {
      const float w = row.weight(i);
      return keeps(kept, float_bits(w), i) ? mass_of(w) : Mass{0};
    };
    Mass total = 0;
    for (int i = static_cast<int>(threadIdx.x); i < vocab; i += kThreads) total += measure(i);
    total = block_mass(total, scratch);
    const float u = draw(sampling.seed, {keys[3 * r], keys[3 * r + 1], keys[3 * r + 2]}, positions[r]);
    const Mass k = static_cast<Mass>(u * 0x1p24f);  // u is k / 2^24 exactly: target = floor(u * total) < total
    const Mass target = (total >> 24) * k + (((total & 0xffffffu) * k) >> 24);
    token = first_beyond(vocab, target, bins, measure);
  }
  if (threadIdx.x == 0) {
    tokens[r] = token;
    log_prob[r] = row_log_prob(row.softmax, row.logits[token]);
  }
}

}  // namespace

template <class T>
void CudaBackend<T>::lm_sample(const Tensor& tokens, const Tensor& log_prob, const Tensor& x, const Tensor& head,
                               const Tensor& keys, const Tensor& positions, const Sampling& sampling) {
  const int64_t rows = x.dim(0);
  expect("lm_sample tokens", tokens, DType::i32, {rows});
  expect("lm_sample log_prob", log_prob, DType::f32, {rows});
  expect("lm_sample keys", keys, DType::i32, {rows, 3});
  expect("lm_sample positions", positions, DType::i32, {rows});
  CHECK(sampling.temperature >= 0.0f, "temperature {}", sampling.temperature);
  for_head_chunks(*products_, workspace(), x, head, [&](int64_t first, int64_t n, const Tensor& logits) {
    launch(sample_kernel, {grid_of(n), dim3(kThreads), 0, stream_}, tokens.as<int32_t>() + first,
           log_prob.as<float>() + first, logits.as<const float>(), keys.as<const int32_t>() + 3 * first,
           positions.as<const int32_t>() + first, sampling, narrow(head.dim(0)));
  });
}

template void CudaBackend<float>::lm_sample(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                            const Tensor&, const Sampling&);
template void CudaBackend<bf16>::lm_sample(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                           const Tensor&, const Sampling&);

}  // namespace dapo::cuda
