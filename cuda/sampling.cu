// lm_sample: a block draws the token of one row (core/softmax.h). The tiles' largest logits show which tiles can hold
// columns that a filter keeps, so that only those are read again; thresholds are found by histograms over the bits of
// the logits, without a sort. Counts and masses are integers, so no result depends on the order of a sum.
#include <algorithm>
#include <utility>

#include "core/op_checks.h"
#include "cuda/cuda_backend.h"
#include "cuda/head_chunks.h"
#include "cuda/launch.h"
#include "cuda/ptx.cuh"
#include "cuda/shape.h"
#include "cuda/softmax.cuh"
#include "cuda/thread.cuh"

namespace dapo::cuda {
namespace {

constexpr int kBins = 2048, kThreads = kSoftmaxThreads;
constexpr int kBinsEach = kBins / kThreads;

/// Integers in the same order as the floats.
__device__ __forceinline__ uint32_t key_of(float x) {
  const uint32_t u = float_bits(x + 0.0f);  // -0 is 0
  return u >> 31 != 0 ? ~u : u | 0x80000000u;
}
__device__ __forceinline__ float of_key(uint32_t k) {
  return bits_float(k >> 31 != 0 ? k & 0x7fffffffu : ~k);
}

struct Row {
  const float* logits;
  SoftmaxTile* tiles;
  int vocab, count;
  RowSoftmax softmax;

  __device__ float exponent(int tile) const { return softmax_exponent(tiles[tile].max, softmax.scale); }
  /// In the unit of the row, which top-p uses.
  __device__ Mass mass(float logit) const {
    return softmax_mass(softmax_weight(softmax_power(logit, softmax.scale, softmax.exponent)));
  }
};

/// Calls body(tile, logits of four columns, the first of them) by whole warps for every tile whose largest logit
/// takes(), and other(tile) by one lane for the rest. Loads of four tiles are in flight at once.
template <class P, class F, class G>
__device__ __forceinline__ void for_tiles(const Row& row, const P& takes, const F& body, const G& other) {
  constexpr int kAtOnce = 4;
  const int lane = thread_x() % kWarp;
  for (int begin = thread_x() - lane; begin < row.count; begin += kThreads) {
    const int own = begin + lane;
    const bool here = own < row.count && takes(row.tiles[own].max);
    if (!here && own < row.count) other(own);
    for (unsigned left = __ballot_sync(kFullMask, here); left != 0;) {
      float x[kAtOnce][4];
      int tile[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        tile[j] = left != 0 ? begin + __ffs(static_cast<int>(left)) - 1 : -1;
        left &= left - 1;
        const int c = tile[j] < 0 ? row.vocab : tile[j] * kSoftmaxTile + lane * 4;
        if (row.vocab % 4 == 0)
          load_logits<4>(x[j], row.logits, c, row.vocab);
        else
          load_logits<1>(x[j], row.logits, c, row.vocab);
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j)
        if (tile[j] >= 0) body(tile[j], x[j], tile[j] * kSoftmaxTile + lane * 4);
    }
  }
}

/// The largest key in [low, high] with measures at or above it of at least `target` together; `above` receives what
/// those above it measure, `at` those that equal it. visit(low, add) calls add(key, measure) for all keys >= low.
/// False: all of them measure less. At most three rounds, 11 bits of the range each.
template <class Visit>
__device__ __forceinline__ bool select(uint32_t low, uint32_t high, Mass target, Mass* bins, uint32_t* key, Mass* above,
                                       Mass* at, const Visit& visit) {
  __shared__ Mass scratch[kWarp];
  __shared__ Mass shared_above, shared_at;
  __shared__ int shared_bin;
  Mass higher = 0;
  for (;;) {
    const uint32_t range = high - low;
    const int shift = range < kBins ? 0 : 21 - __clz(static_cast<int>(range));
    for (int i = thread_x(); i < kBins; i += kThreads) bins[i] = 0;
    if (threadIdx.x == 0) shared_bin = -1;
    __syncthreads();
    visit(low, [&](uint32_t k, Mass measure) {
      if (k >= low && k <= high) atomicAdd(&bins[(k - low) >> shift], measure);
    });
    __syncthreads();
    // A thread has kBinsEach bins, the first thread the highest.
    const int highest = kBins - 1 - thread_x() * kBinsEach;
    Mass own = 0;
    for (int i = 0; i < kBinsEach; ++i) own += bins[highest - i];
    Mass before = higher + block_scan(own, scratch);
    if (before < target && before + own >= target) {
      int bin = highest;
      while (before + bins[bin] < target) before += bins[bin--];
      shared_bin = bin;
      shared_above = before;
      shared_at = bins[bin];
    }
    __syncthreads();
    if (shared_bin < 0) {
      __syncthreads();
      return false;
    }
    higher = shared_above;
    low += static_cast<uint32_t>(shared_bin) << shift;
    if (shift == 0) break;
    const uint32_t last = low + ((1u << shift) - 1);
    high = last < high ? last : high;
    __syncthreads();
  }
  *key = low;
  *above = higher;
  *at = shared_at;
  __syncthreads();
  return true;
}

/// The k-th largest logit; all that tie with it stay.
__device__ __forceinline__ void keep_top_k(const Row& row, int k, KeptColumns* kept, Mass* bins) {
  const uint32_t high = key_of(row.softmax.top);
  uint32_t low = key_of(-INFINITY);
  Mass above, at;
  // The k-th largest of the tiles' maxima is no larger.
  if (k <= row.count)
    select(low, high, static_cast<Mass>(k), bins, &low, &above, &at, [&](uint32_t from, const auto& add) {
      for (int t = thread_x(); t < row.count; t += kThreads)
        if (const uint32_t key = key_of(row.tiles[t].max); key >= from) add(key, Mass{1});
    });
  const auto visit = [&](uint32_t from, const auto& add) {
    for_tiles(
        row, [&](float max) { return max >= of_key(from); },
        [&](int, const float(&x)[4], int c) {
          for (int e = 0; e < 4; ++e)
            if (c + e < row.vocab && key_of(x[e]) >= from) add(key_of(x[e]), Mass{1});
        },
        [](int) {});
  };
  if (select(low, high, static_cast<Mass>(k), bins, &low, &above, &at, visit)) kept->floor = of_key(low);
}

/// The fewest tokens, the largest first, that reach top_p of what is kept; of those that tie at the edge the first.
__device__ __forceinline__ void keep_top_p(const Row& row, Mass total, float top_p, KeptColumns* kept, Mass* bins) {
  const Mass target = top_p_target(total, top_p);
  const uint32_t high = key_of(row.softmax.top);
  const auto visit = [&](uint32_t from, const auto& add) {
    for_tiles(
        row, [&](float max) { return max >= of_key(from); },
        [&](int, const float(&x)[4], int c) {
          for (int e = 0; e < 4; ++e)
            if (c + e < row.vocab && key_of(x[e]) >= from) add(key_of(x[e]), row.mass(x[e]));
        },
        [](int) {});
  };
  uint32_t edge = 0;
  Mass above, at;
  bool found = false;
  for (int i = 0; i < kTopPStarts && !found; ++i) {
    const float from = top_p_start(i, total, target, row.vocab, row.softmax.scale, row.softmax.exponent, kept->floor);
    if (from <= row.softmax.top) found = select(key_of(from), high, target, bins, &edge, &above, &at, visit);
  }
  if (!found) return;  // rounding: all of them together are less
  kept->floor = of_key(edge);
  const Mass each = row.mass(kept->floor), ties = (target - above + each - 1) / each;
  if (ties * each == at) return;  // all of them
  // The column of the last tie that is kept: the smallest columns have the largest keys.
  uint32_t last = 0;
  select(~static_cast<uint32_t>(row.vocab), ~0u, ties, bins, &last, &above, &at, [&](uint32_t from, const auto& add) {
    for_tiles(
        row, [&](float max) { return max >= kept->floor; },
        [&](int, const float(&x)[4], int c) {
          for (int e = 0; e < 4; ++e)
            if (c + e < row.vocab && x[e] == kept->floor && ~static_cast<uint32_t>(c + e) >= from)
              add(~static_cast<uint32_t>(c + e), Mass{1});
        },
        [](int) {});
  });
  kept->last_tie = static_cast<int64_t>(~last);
}

/// Sets the tiles' masses to those of the kept columns, and returns the row's total.
__device__ __forceinline__ Mass keep_masses(const Row& row, const KeptColumns& kept) {
  __shared__ Mass scratch[kWarp];
  for_tiles(
      row, [&](float max) { return kept.reach(max); },
      [&](int tile, const float(&x)[4], int c) {
        const float exponent = row.exponent(tile);
        Mass mass = 0;
        for (int e = 0; e < 4; ++e)
          if (c + e < row.vocab && kept(x[e], c + e))
            mass += softmax_mass(softmax_weight(softmax_power(x[e], row.softmax.scale, exponent)));
        mass = warp_sum(mass);
        if (threadIdx.x % kWarp == 0) row.tiles[tile].mass = mass;
      },
      [&](int tile) { row.tiles[tile].mass = 0; });
  __syncthreads();
  Mass total = 0;
  for (int t = thread_x(); t < row.count; t += kThreads)
    total += row.tiles[t].mass >> softmax_shift(row.softmax.exponent, row.exponent(t));
  return block_sum(total, scratch);
}

/// The first column at which the running total of the kept masses exceeds target.
__device__ __forceinline__ int draw_column(const Row& row, const KeptColumns& kept, Mass target) {
  __shared__ Mass scratch[kWarp];
  __shared__ Mass shared_rest;
  __shared__ int shared_tile, shared_column;
  const int each = ceil_div(row.count, kThreads), begin = thread_x() * each;
  const int end = begin + each < row.count ? begin + each : row.count;
  const auto mass_of = [&](int t) { return row.tiles[t].mass >> softmax_shift(row.softmax.exponent, row.exponent(t)); };
  Mass own = 0;
  for (int t = begin; t < end; ++t) own += mass_of(t);
  Mass before = block_scan(own, scratch);
  if (before <= target && before + own > target) {
    int t = begin;
    while (before + mass_of(t) <= target) before += mass_of(t++);
    shared_tile = t;
    shared_rest = target - before;
  }
  __syncthreads();
  if (threadIdx.x < kWarp) {
    const int tile = shared_tile, lane = thread_x(), c = tile * kSoftmaxTile + lane * 4;
    const float exponent = row.exponent(tile);
    const int shift = softmax_shift(row.softmax.exponent, exponent);
    float x[4];
    load_logits<1>(x, row.logits, c, row.vocab);
    Mass mass[4], sum = 0;
    for (int e = 0; e < 4; ++e) {
      const bool here = c + e < row.vocab && kept(x[e], c + e);
      mass[e] = here ? softmax_mass(softmax_weight(softmax_power(x[e], row.softmax.scale, exponent))) : 0;
      sum += mass[e];
    }
    Mass running = warp_scan(sum);
    const unsigned beyond = __ballot_sync(kFullMask, (running + sum) >> shift > shared_rest);
    if (lane == __ffs(static_cast<int>(beyond)) - 1) {
      int e = 0;
      while (((running += mass[e]) >> shift) <= shared_rest) ++e;
      shared_column = c + e;
    }
  }
  __syncthreads();
  return shared_column;
}

/// The first column of the largest logit.
__device__ __forceinline__ int top_column(const Row& row) {
  __shared__ int shared_column;
  if (threadIdx.x == 0) shared_column = row.vocab;
  __syncthreads();
  for_tiles(
      row, [&](float max) { return max == row.softmax.top; },
      [&](int, const float(&x)[4], int c) {
        for (int e = 0; e < 4; ++e)
          if (x[e] == row.softmax.top) atomicMin(&shared_column, c + e);
      },
      [](int) {});
  __syncthreads();
  return shared_column;
}

__global__ void __launch_bounds__(kThreads, 2)
    sample_kernel(int32_t* tokens, float* log_prob, const float* logits, SoftmaxTile* tiles, const int32_t* keys,
                  const int32_t* positions, Sampling sampling, float inverse_temperature, float scale, float least,
                  int vocab, int count) {
  __shared__ Mass bins[kBins];
  begin_overlapped();
  const int r = block_x();
  Row row{logits + int64_t{r} * vocab, tiles + int64_t{r} * count, vocab, count, {}};
  row.softmax = row_softmax(row.tiles, count, inverse_temperature, scale);
  if (!(fabsf(row.softmax.log_sum) < INFINITY)) {
    if (threadIdx.x == 0) {
      tokens[r] = 0;
      log_prob[r] = NAN;
    }
    return;
  }
  int token = 0;
  if (sampling.temperature == 0.0f) {
    token = top_column(row);
  } else {
    KeptColumns kept{-INFINITY, row.softmax.top, inverse_temperature, least, vocab};
    Mass total = row.softmax.total;
    const bool top_k = sampling.top_k > 0 && sampling.top_k < vocab, top_p = sampling.top_p < 1.0f;
    if (top_k) keep_top_k(row, sampling.top_k, &kept, bins);
    if (top_p) {
      if (top_k) total = keep_masses(row, {kept.floor, kept.max, 1.0f, -INFINITY, vocab});
      keep_top_p(row, total, sampling.top_p, &kept, bins);
    }
    if (top_k || top_p || sampling.min_p > 0.0f) total = keep_masses(row, kept);
    const uint64_t fraction =
        draw_fraction(sampling.seed, {keys[3 * r], keys[3 * r + 1], keys[3 * r + 2]}, positions[r]);
    token = draw_column(row, kept, draw_target(total, fraction));
  }
  if (threadIdx.x == 0) {
    tokens[r] = token;
    log_prob[r] = row_log_prob(row.softmax, row.logits[token]);
  }
}

}  // namespace

SplitDraws::SplitDraws(Arena& workspace, int64_t rows, int64_t most, int ranks, int64_t vocab) {
  const int64_t each = ceil_div(rows, ranks);
  exchanged = workspace.take("exchanged logits", DType::f32, {ranks, each, most});
  logits = workspace.take("whole rows of logits", DType::f32, {each, vocab});
  tiles = workspace.take("tiles of whole rows", DType::u8, {each, softmax_tiles(vocab), sizeof(SoftmaxTile)});
  tokens = workspace.take("draws", DType::i32, {ranks * each});
  log_prob = workspace.take("draws", DType::f32, {ranks * each});
}

template <class T>
void CudaBackend<T>::lm_sample(const Tensor& tokens, const Tensor& log_prob, const Tensor& x, const Tensor& head,
                               const Tensor& keys, const Tensor& positions, const Sampling& sampling) {
  const VocabularySplit& split = vocabulary_split();
  check_lm_sample(dtype(), tokens, log_prob, x, head, keys, positions, sampling, split);
  const float inverse = sampling.temperature == 0.0f ? 1.0f : 1.0f / sampling.temperature;
  const float scale = softmax_scale(inverse);
  /// Draws for rows [first, first + n).
  const auto draw = [&](int32_t* to, float* log_prob_to, int64_t first, int64_t n, const Tensor& logits,
                        SoftmaxTile* tiles) {
    const int vocab = narrow(logits.dim(1));
    launch_overlapped(sample_kernel, {grid_of(n), dim3(kThreads), 0, stream_}, to, log_prob_to,
                      logits.as<const float>(), tiles, keys.as<const int32_t>() + 3 * first,
                      positions.as<const int32_t>() + first, sampling, inverse, scale, softmax_least(sampling.min_p),
                      vocab, narrow(softmax_tiles(vocab)));
  };
  if (split.ranks == nullptr)
    return for_head_chunks(*products_, workspace(), stream_, kScoredLogits, scale, split, x, head,
                           [&](int64_t first, int64_t n, const Tensor& logits, SoftmaxTile* tiles) {
                             draw(tokens.as<int32_t>() + first, log_prob.as<float>() + first, first, n, logits, tiles);
                           });
  if (x.dim(0) == 0) return;
  // Each rank draws for a part of the rows, after an exchange that gives it their logits whole.
  const int64_t ranks = split.parts(), most = split.most();
  const int64_t chunk = head_chunk_rows(x.dim(0), most, kScoredLogits);
  const ArenaScope scope(workspace());
  const Tensor room = workspace().take("logits", DType::f32, {round_up(chunk, ranks), most});
  const SplitDraws scratch(workspace(), chunk, most, split.parts(), split.size);
  for (int64_t first = 0; first < x.dim(0); first += chunk) {
    const int64_t n = std::min(chunk, x.dim(0) - first), each = ceil_div(n, ranks);
    head_logits(*products_, room, x.rows(first, n), head, most);
    const Tensor exchanged(scratch.exchanged.data, DType::f32, {ranks, each, most});
    split.ranks->all_to_all(exchanged, Tensor(room.data, DType::f32, {ranks, each, most}));
    const Tensor drawn = scratch.tokens.rows(0, ranks * each), drawn_log_prob = scratch.log_prob.rows(0, ranks * each);
    const int64_t begin = split.own() * each, own = std::clamp<int64_t>(n - begin, 0, each);
    if (own > 0) {
      const Tensor logits = scratch.logits.rows(0, own);
      for (int p = 0; p < split.parts(); ++p) {
        const Range columns = split.of(p);
        if (columns.count() > 0)
          CUDA_CHECK(cudaMemcpy2DAsync(logits.as<float>() + columns.begin, split.size * sizeof(float),
                                       exchanged.rows(p, 1).data, most * sizeof(float), columns.count() * sizeof(float),
                                       own, cudaMemcpyDeviceToDevice, stream_));
      }
      auto* const tiles = static_cast<SoftmaxTile*>(scratch.tiles.data);
      softmax_tiles_of(tiles, logits.as<const float>(), own, split.size, scale, stream_);
      draw(drawn.as<int32_t>() + begin, drawn_log_prob.as<float>() + begin, first + begin, own, logits, tiles);
    }
    for (const auto& [all, to] : {std::pair(&drawn, &tokens), std::pair(&drawn_log_prob, &log_prob)}) {
      split.ranks->all_gather(all->view({ranks, each}), all->rows(begin, each));
      copy(to->rows(first, n), all->rows(0, n));
    }
  }
}

template void CudaBackend<float>::lm_sample(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                            const Tensor&, const Sampling&);
template void CudaBackend<bf16>::lm_sample(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                           const Tensor&, const Sampling&);

}  // namespace dapo::cuda
