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

Tensor own_part(const Tensor& parts, int rank) {
  return parts.rank == 3 ? parts.rows(rank, 1).view({parts.dim(1), parts.dim(2)}) : parts;
}

void exchange_parts(Comm& ranks, const Tensor& parts) {
  if (ranks.size() > 1) ranks.all_gather(parts, own_part(parts, ranks.rank()));
}

void Layers::output_projection(const Tensor& delta, const Tensor& x, int w) const {
  Comm& ranks = weights_.tensor_parallel();
  backend_.matmul(own_part(delta, ranks.rank()), x, weight(w), {});
  exchange_parts(ranks, delta);
}

void Layers::embed(const LayerBuffers& b, const Tensor& ids) const {
  Comm& ranks = weights_.tensor_parallel();
  const int64_t first_id = ranks.size() == 1 ? 0 : tensor_share(weights_.config(), weights_.tensor_rank()).vocab.begin;
  backend_.embedding(b.x_in, weight(weights_.params().embedding), ids, static_cast<int32_t>(first_id));
  if (ranks.size() > 1) ranks.all_reduce_sum(b.x_in);  // exact: one rank has a row, the others zeros
}

void Layers::attention_half(int l, const LayerBuffers& b, const Tensor& x, const Tensor& delta,
                            const AttentionInputs& in) const {
  const LayerParams& p = weights_.params().layer(l);
  const AttentionDims dims = local_.attention();
  backend_.rmsnorm(b.h, delta ? b.x_in : Tensor(), b.rstd1, x, delta, weight(p.norm1), local_.rms_eps);
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
  output_projection(b.delta, b.att, p.o);
  backend_.rmsnorm(b.h, b.x_mid, b.rstd2, b.x_in, b.delta, weight(p.norm2), local_.rms_eps);
  backend_.matmul(b.gate_up, b.h, weight(p.gate_up), {});
}

void Layers::mlp_half(int l, const LayerBuffers& b) const {
  backend_.swiglu(b.act, b.gate_up);
  output_projection(b.delta, b.act, weights_.params().layer(l).down);
}

void Layers::final_norm(const HeadBuffers& head, const Tensor& x, const Tensor& delta, const Tensor& head_rows) const {
  const Tensor norm = weight(weights_.params().norm);
  if (!head_rows) return backend_.rmsnorm(head.h, x, head.rstd, x, delta, norm, local_.rms_eps);
  backend_.gather_rows(head.x, x, head_rows);
  for (int p = 0; p < weights_.tensor_rank().ranks; ++p)
    backend_.gather_rows(own_part(head.delta, p), own_part(delta, p), head_rows);
  backend_.rmsnorm(head.h, head.x, head.rstd, head.x, head.delta, norm, local_.rms_eps);
}

}  // namespace dapo
