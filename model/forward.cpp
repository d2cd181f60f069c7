#include "model/forward.h"

#include <cmath>

namespace dapo {

std::vector<float> rope_table(const ModelConfig& config, int64_t length) {
  const int half = config.head_dim / 2;
  std::vector<float> inverse, table;
  for (int i = 0; i < half; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    const double power = std::pow(double{static_cast<float>(config.rope_theta)}, double{exponent});
    inverse.push_back(1.0f / static_cast<float>(power));
  }
  table.reserve(static_cast<size_t>(length * config.head_dim));
  for (int64_t t = 0; t < length; ++t) {
    const float position = static_cast<float>(t);
    for (const float f : inverse) table.push_back(static_cast<float>(std::cos(double{position * f})));
    for (const float f : inverse) table.push_back(static_cast<float>(std::sin(double{position * f})));
  }
  return table;
}

Layers::Layers(const Weights& weights, const Tensor& rope)
    : weights_(weights), backend_(weights.backend()), local_(weights.local()), rope_(rope) {}

void Layers::output_projection(const LayerBuffers& b, const Tensor& x, int w) const {
  if (b.dealt()) {
    backend_.matmul(all_rows(b.partial, x.dim(0)), x, weight(w), {});
    return ranks().all_to_all(b.delta, b.partial);
  }
  const Tensor own = own_part(b.delta, ranks().rank());
  backend_.matmul(own, x, weight(w), {});
  if (ranks().size() > 1) ranks().all_gather(b.delta, own);
}

void Layers::norm(const LayerBuffers& b, const Tensor& sum, const Tensor& rstd, const Tensor& x, const Tensor& delta,
                  int w) const {
  if (!b.dealt()) return backend_.rmsnorm(b.h, sum, rstd, x, delta, weight(w), local_.rms_eps);
  const Tensor own = own_part(b.shared_h, ranks().rank());
  backend_.rmsnorm(own, sum, rstd, x, delta, weight(w), local_.rms_eps);
  ranks().all_gather(b.shared_h, own);
}

void Layers::embed(const LayerBuffers& b, const Tensor& ids, const Tensor& embedded) const {
  const VocabularySplit& split = backend_.vocabulary_split();
  const int64_t first_id = ranks().size() == 1 ? 0 : split.of(split.own()).begin;
  const Tensor rows = b.dealt() ? embedded.rows(0, ids.dim(0)) : b.x_in;
  backend_.embedding(rows, weight(weights_.params().embedding), ids, static_cast<int32_t>(first_id));
  // The sum is exact: one rank has a row, the others zeros.
  if (b.dealt())
    ranks().reduce_scatter(b.x_in, embedded.rows(0, ranks().size() * b.x_in.dim(0)));
  else if (ranks().size() > 1)
    ranks().all_reduce_sum(b.x_in);
}

void Layers::attention_half(int l, const LayerBuffers& b, const Tensor& x, const Tensor& delta,
                            const AttentionInputs& in) const {
  const LayerParams& p = weights_.params().layer(l);
  const AttentionDims dims = local_.attention();
  norm(b, delta ? b.x_in : Tensor(), b.rstd1, x, delta, p.norm1);
  backend_.matmul(b.qkv, b.h, weight(p.qkv), p.has_bias() ? weight(p.qkv_bias) : Tensor());
  if (in.segments) {
    backend_.rope(b.qkv, rope_, in.positions, dims, false);
    backend_.attention(b.att, b.lse, b.qkv, *in.segments, dims);
  } else {
    const int64_t pages = in.cache.dim(0) / local_.layers;
    const Tensor cache = in.cache.rows(l * pages, pages);
    backend_.rope_kv_write(cache, b.qkv, rope_, *in.sequences, dims);
    backend_.paged_attention(b.att, b.qkv, cache, *in.sequences, dims);
  }
  output_projection(b, b.att, p.o);
  norm(b, b.x_mid, b.rstd2, b.x_in, b.delta, p.norm2);
  backend_.matmul(b.gate_up, b.h, weight(p.gate_up), {});
}

void Layers::mlp_half(int l, const LayerBuffers& b) const {
  backend_.swiglu(b.act, b.gate_up);
  output_projection(b, b.act, weights_.params().layer(l).down);
}

void Layers::final_norm(const HeadBuffers& head, const LayerBuffers& last, const Tensor& head_rows) const {
  const int index = weights_.params().norm;
  const Tensor &x = last.x_mid, &delta = last.delta;
  if (last.dealt()) {
    norm(last, head.x, head.rstd, x, delta, index);
    return backend_.gather_rows(head.h, last.h, head_rows);
  }
  const Tensor w = weight(index);
  if (!head_rows) return backend_.rmsnorm(head.h, x, head.rstd, x, delta, w, local_.rms_eps);
  backend_.gather_rows(head.x, x, head_rows);
  for (int p = 0; p < ranks().size(); ++p) backend_.gather_rows(own_part(head.delta, p), own_part(delta, p), head_rows);
  backend_.rmsnorm(head.h, head.x, head.rstd, head.x, head.delta, w, local_.rms_eps);
}

}  // namespace dapo
