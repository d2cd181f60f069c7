// lm_sample, and the draw of one row.
#include "cpu/sampling.h"

#include <algorithm>

#include "core/op_checks.h"
#include "cpu/cpu_backend.h"
#include "cpu/head_chunks.h"

namespace dapo::cpu {
namespace {

/// The columns with logits of at least `floor`.
int64_t gather(int32_t* columns, const float* logits, int64_t vocab, const SoftmaxTile* tiles, float floor) {
  int64_t n = 0;
  for (int64_t t = 0; t < softmax_tiles(vocab); ++t) {
    if (tiles[t].max < floor) continue;
    const int64_t end = std::min((t + 1) * kSoftmaxTile, vocab);
    for (int64_t i = t * kSoftmaxTile; i < end; ++i) {
      columns[n] = i;  // n <= i; a branch would often be mispredicted
      n += logits[i] >= floor;
    }
  }
  return n;
}

/// The k-th largest logit.
float top_k_floor(const float* logits, int64_t vocab, const SoftmaxTile* tiles, int32_t* columns, int64_t k) {
  const int64_t count = softmax_tiles(vocab);
  float floor = -HUGE_VALF;
  if (k <= count) {  // the k-th largest of the tiles' maxima is no larger
    for (int64_t t = 0; t < count; ++t) columns[t] = t;
    std::nth_element(columns, columns + k - 1, columns + count,
                     [&](int32_t a, int32_t b) { return tiles[a].max > tiles[b].max; });
    floor = tiles[columns[k - 1]].max;
  }
  const int64_t n = gather(columns, logits, vocab, tiles, floor);
  std::nth_element(columns, columns + k - 1, columns + n, [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  return logits[columns[k - 1]];
}

/// Moves the floor up to top-p's edge if the columns with logits of at least `from` reach its mass: halves the range
/// that contains the edge, then sorts the rest.
bool raise_to_edge(KeptColumns& keeps, const float* logits, int64_t vocab, const RowSoftmax& s,
                   const SoftmaxTile* tiles, int32_t* columns, float from, Mass target) {
  constexpr int64_t kSorted = 64;
  const auto before = [&](int32_t a, int32_t b) { return logits[a] > logits[b] || (logits[a] == logits[b] && a < b); };
  const auto mass = [&](const int32_t* begin, const int32_t* end) {
    Mass sum = 0;
    for (; begin < end; ++begin)
      sum += softmax_mass(softmax_weight(softmax_power(logits[*begin], s.scale, s.exponent)));
    return sum;
  };
  int32_t *begin = columns, *end = columns + gather(columns, logits, vocab, tiles, from);
  Mass running = 0;
  while (end - begin > kSorted) {
    int32_t* middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, before);
    const Mass half = mass(begin, middle);
    if (running + half >= target)
      end = middle;
    else
      running += half, begin = middle;
  }
  std::sort(begin, end, before);
  for (; begin < end; ++begin) {
    running += mass(begin, begin + 1);
    if (running < target) continue;
    keeps.floor = logits[*begin];
    keeps.last_tie = *begin;
    return true;
  }
  return false;
}

/// Sets the tiles' masses to those of the kept columns, and returns the row's total.
Mass keep_masses(const float* logits, int64_t vocab, const RowSoftmax& s, SoftmaxTile* tiles,
                 const KeptColumns& keeps) {
  Mass total = 0;
  for (int64_t t = 0; t < softmax_tiles(vocab); ++t) {
    const int64_t end = std::min((t + 1) * kSoftmaxTile, vocab);
    Mass mass = 0;
    for (int64_t i = t * kSoftmaxTile; i < end && keeps.reach(tiles[t].max); ++i)
      mass += column_mass(logits, i, s, tiles, keeps);
    tiles[t].mass = mass;
    total += mass >> softmax_shift(s.exponent, softmax_exponent(tiles[t].max, s.scale));
  }
  return total;
}

}  // namespace

Mass column_mass(const float* logits, int64_t column, const RowSoftmax& s, const SoftmaxTile* tiles,
                 const KeptColumns& keeps) {
  if (!keeps(logits[column], column)) return 0;
  const float exponent = softmax_exponent(tiles[column / kSoftmaxTile].max, s.scale);
  return softmax_mass(softmax_weight(softmax_power(logits[column], s.scale, exponent)));
}

Filtered filter_row(const float* logits, int64_t vocab, const RowSoftmax& s, SoftmaxTile* tiles, int32_t* columns,
                    const Sampling& sampling) {
  KeptColumns keeps{-HUGE_VALF, s.top, s.inverse_temperature, -HUGE_VALF, vocab};
  Mass total = s.total;
  const bool top_k = sampling.top_k > 0 && sampling.top_k < vocab, top_p = sampling.top_p < 1.0f;
  if (top_k) keeps.floor = top_k_floor(logits, vocab, tiles, columns, sampling.top_k);
  if (top_p) {
    if (top_k) total = keep_masses(logits, vocab, s, tiles, keeps);
    const Mass target = top_p_target(total, sampling.top_p);
    const float floor = keeps.floor;  // rounding may leave everything above it
    for (int i = 0; i < kTopPStarts; ++i) {
      const float from = top_p_start(i, total, target, vocab, s.scale, s.exponent, floor);
      if (raise_to_edge(keeps, logits, vocab, s, tiles, columns, from, target)) break;
    }
  }
  keeps.least = softmax_least(sampling.min_p);
  if (top_k || top_p || sampling.min_p > 0.0f) total = keep_masses(logits, vocab, s, tiles, keeps);
  return {keeps, total};
}

int64_t draw_column(const float* logits, int64_t vocab, const RowSoftmax& s, const SoftmaxTile* tiles,
                    const KeptColumns& keeps, Mass target) {
  for (int64_t t = 0; t < softmax_tiles(vocab); ++t) {
    const int shift = softmax_shift(s.exponent, softmax_exponent(tiles[t].max, s.scale));
    const Mass mass = tiles[t].mass >> shift;
    if (mass <= target) {
      target -= mass;
      continue;
    }
    const int64_t end = std::min((t + 1) * kSoftmaxTile, vocab);
    Mass running = 0;
    for (int64_t i = t * kSoftmaxTile; i < end; ++i) {
      running += column_mass(logits, i, s, tiles, keeps);
      if (running >> shift > target) return i;
    }
  }
  CHECK(false, "a row without weight");
  return 0;
}

Drawn sample_row(const float* logits, SoftmaxTile* tiles, int32_t* columns, int64_t vocab, const Sampling& sampling,
                 uint64_t fraction) {
  const bool greedy = sampling.temperature == 0.0f;
  const RowSoftmax s = row_softmax(tiles, logits, vocab, greedy ? 1.0f : sampling.temperature);
  if (!(std::abs(s.log_sum) < HUGE_VALF)) return {0, __builtin_nanf("")};
  int64_t token = 0;
  if (greedy) {
    while (logits[token] != s.top) ++token;
  } else {
    const Filtered f = filter_row(logits, vocab, s, tiles, columns, sampling);
    token = draw_column(logits, vocab, s, tiles, f.keeps, draw_target(f.total, fraction));
  }
  return {static_cast<int32_t>(token), row_log_prob(s, logits[token])};
}

SamplingScratch::SamplingScratch(Arena& workspace, int64_t rows, int64_t most, int ranks, int64_t vocab) {
  const int64_t threads = omp_get_max_threads();
  columns = workspace.take("columns", DType::i32, {threads, vocab});
  if (ranks == 1) return;
  row = workspace.take("whole rows of logits", DType::f32, {threads, vocab});
  tiles =
      workspace.take("tiles of whole rows", DType::u8, {threads, softmax_tiles(vocab) * int64_t{sizeof(SoftmaxTile)}});
  exchanged = workspace.take("exchanged logits", DType::f32, {round_up(rows, ranks), most});
  tokens = workspace.take("draws", DType::i32, {round_up(rows, ranks)});
  log_prob = workspace.take("draws", DType::f32, {round_up(rows, ranks)});
}

template <class T>
void CpuBackend<T>::lm_sample(const Tensor& tokens, const Tensor& log_prob, const Tensor& x, const Tensor& head,
                              const Tensor& keys, const Tensor& positions, const Sampling& sampling) {
  const VocabularySplit& split = vocabulary_split();
  check_lm_sample(dtype(), tokens, log_prob, x, head, keys, positions, sampling, split);
  const int64_t own_columns = head.dim(0), stride = row_stride(split, own_columns);
  const int64_t vocab = split.ranks == nullptr ? own_columns : split.size;
  const ArenaScope scope(workspace());
  const SamplingScratch scratch(workspace(), chunk_rows(x.dim(0), stride), stride, split.parts(), vocab);
  const auto draw = [&](int64_t r, const float* row, SoftmaxTile* tiles) {
    const int32_t* key = keys.as<int32_t>() + r * 3;
    const uint64_t fraction = draw_fraction(sampling.seed, {key[0], key[1], key[2]}, positions.as<int32_t>()[r]);
    int32_t* columns = scratch.columns.as<int32_t>() + omp_get_thread_num() * vocab;
    return sample_row(row, tiles, columns, vocab, sampling, fraction);
  };
  const auto draw_own = [&](int64_t first, int64_t n, const float* logits, SoftmaxTile* tiles) {
#pragma omp parallel for schedule(dynamic) if (n * vocab > 1 << 13)
    for (int64_t i = 0; i < n; ++i) {
      const Drawn drawn = draw(first + i, logits + i * vocab, own_tiles(tiles, vocab));
      tokens.as<int32_t>()[first + i] = drawn.token;
      log_prob.as<float>()[first + i] = drawn.log_prob;
    }
  };
  // Each rank draws for a part of the rows, after an exchange that gives it their logits whole.
  const auto draw_shared = [&](int64_t first, int64_t n, float* logits, SoftmaxTile*) {
    const int64_t ranks = split.parts(), each = ceil_div(n, ranks), begin = split.own() * each;
    const Tensor out = scratch.exchanged.rows(0, ranks * each).view({ranks, each, stride});
    split.ranks->all_to_all(out, Tensor(logits, DType::f32, {ranks, each, stride}));
    const Tensor drawn = scratch.tokens.rows(0, ranks * each).view({ranks, each});
    const Tensor drawn_log_prob = scratch.log_prob.rows(0, ranks * each).view({ranks, each});
#pragma omp parallel for schedule(dynamic) if (each * vocab > 1 << 13)
    for (int64_t j = 0; j < each; ++j) {
      Drawn d{};
      if (begin + j < n) {
        float* row = scratch.row.rows(omp_get_thread_num(), 1).as<float>();
        for (int p = 0; p < ranks; ++p) {
          const Range columns = split.of(p);
          std::copy_n(out.as<float>() + (p * each + j) * stride, columns.count(), row + columns.begin);
        }
        d = draw(first + begin + j, row, static_cast<SoftmaxTile*>(scratch.tiles.rows(omp_get_thread_num(), 1).data));
      }
      drawn.as<int32_t>()[begin + j] = d.token;
      drawn_log_prob.as<float>()[begin + j] = d.log_prob;
    }
    split.ranks->all_gather(drawn, drawn.rows(split.own(), 1).view({each}));
    split.ranks->all_gather(drawn_log_prob, drawn_log_prob.rows(split.own(), 1).view({each}));
    copy(tokens.rows(first, n), scratch.tokens.rows(0, n));
    copy(log_prob.rows(first, n), scratch.log_prob.rows(0, n));
  };
  if (split.ranks == nullptr)
    for_chunks<T>(workspace(), x, head, stride, 1, draw_own);
  else
    for_chunks<T>(workspace(), x, head, stride, split.parts(), draw_shared);
}

template class CpuBackend<float>;
template class CpuBackend<bf16>;

}  // namespace dapo::cpu
