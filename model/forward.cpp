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
    : weights_(weights), backend_(weights.backend()), config_(weights.config()), rope_(rope) {}

void Layers::embed(const LayerBuffers& b, const Tensor& ids) const {
  backend_.embedding(b.x_in, weight(weights_.params().embedding), ids, 0);
}

void Layers::attention_half(int l, const LayerBuffers& b, const Tensor& x, const Tensor& delta,
                            const AttentionInputs& in) const {
  const LayerParams& p = weights_.params().layer(l);
  const AttentionDims dims = config_.attention();
  backend_.rmsnorm(b.h, delta ? b.x_in : Tensor(), b.rstd1, x, delta, weight(p.norm1), config_.rms_eps);
  backend_.matmul(b.qkv, b.h, weight(p.qkv), p.has_bias() ? weight(p.qkv_bias) : Tensor());
  if (in.segments) {
    backend_.rope(b.qkv, rope_, in.positions, dims, false);
    backend_.attention(b.att, b.lse, b.qkv, *in.segments, dims);
  } else {
    const int64_t pages = in.cache.dim(0) / config_.layers;
    const Tensor cache = in.cache.rows(l * pages, pages);
    backend_.rope_kv_write(cache, b.qkv, rope_, *in.sequences, dims);
    backend_.paged_attention(b.att, b.qkv, cache, *in.sequences, dims);
  }
  backend_.matmul(b.delta, b.att, weight(p.o), {});
  weights_.tensor_parallel().all_reduce_sum(b.delta);
  backend_.rmsnorm(b.h, b.x_mid, b.rstd2, b.x_in, b.delta, weight(p.norm2), config_.rms_eps);
  backend_.matmul(b.gate_up, b.h, weight(p.gate_up), {});
}

void Layers::mlp_half(int l, const LayerBuffers& b) const {
  backend_.swiglu(b.act, b.gate_up);
  backend_.matmul(b.delta, b.act, weight(weights_.params().layer(l).down), {});
  weights_.tensor_parallel().all_reduce_sum(b.delta);
}

void Layers::final_norm(const HeadBuffers& head, const Tensor& x, const Tensor& delta, const Tensor& head_rows) const {
  const Tensor norm = weight(weights_.params().norm);
  if (!head_rows) return backend_.rmsnorm(head.h, x, head.rstd, x, delta, norm, config_.rms_eps);
  backend_.gather_rows(head.x, x, head_rows);
  backend_.gather_rows(head.delta, delta, head_rows);
  backend_.rmsnorm(head.h, head.x, head.rstd, head.x, head.delta, norm, config_.rms_eps);
}

}  // namespace dapo
