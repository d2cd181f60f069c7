#include "bench/parts/random_model.h"

#include <cmath>
#include <cstring>
#include <numbers>

#include "bench/parts/operands.h"
#include "core/philox.h"
#include "host/app/backends.h"

namespace dapo::bench {
namespace {

constexpr int64_t kDrawn = 4194301;  // a prime, so that rows differ

/// `count` elements of T.
std::vector<char> encoded(DType t, int64_t count, const std::function<float(int64_t)>& value) {
  std::vector<char> host(count * dtype_size(t));
  for (int64_t i = 0; i < count; ++i) {
    const float v = value(i);
    const bf16 half = to_bf16(v);
    char* to = host.data() + i * dtype_size(t);
    std::memcpy(to, t == DType::f32 ? static_cast<const void*>(&v) : &half, dtype_size(t));
  }
  return host;
}

void fill(Backend& b, const Weights& weights) {
  const DType t = b.dtype();
  const Tensor w = weights.flat();
  const int64_t drawn = std::min(kDrawn, w.numel());
  const std::vector<char> normal = encoded(t, drawn, [](int64_t i) {
    const Philox4 x = philox(1, {{static_cast<uint32_t>(i), 0, 0, 0}});
    const double radius = std::sqrt(-2 * std::log((static_cast<double>(x.x[0]) + 1) * 0x1p-32));
    return 0.02f * static_cast<float>(radius * std::cos(2 * std::numbers::pi * static_cast<double>(x.x[1]) * 0x1p-32));
  });
  b.copy_in(w.rows(0, drawn), normal.data());
  repeat_first(b, w, normal.size());
  const std::vector<char> ones = encoded(t, weights.config().hidden, [](int64_t) { return 1.0f; });
  for (const Param& p : weights.params().all) {
    if (p.matrix) continue;
    const Tensor to = w.rows(p.offset, p.numel());
    if (p.name.find("norm") != std::string::npos)
      b.copy_in(to, ones.data());
    else
      b.zero(to);  // biases
  }
  b.synchronize();
}

}  // namespace

ModelConfig shape_config(const std::string& name) {
  if (name != "toy") return qwen25_config("qwen2.5-" + name);
  ModelConfig c;
  c.hidden = 64, c.ffn = 128, c.layers = 2, c.heads = 2, c.kv_heads = 1, c.head_dim = 32, c.vocab = 264;
  c.rope_theta = 1e4, c.max_position = 1024, c.eos = {256};
  return c;
}

RandomModel::RandomModel(Backend& backend, const ModelConfig& config)
    : comm(make_single_comm(backend)), weights(backend, *comm, config) {
  fill(backend, weights);
}

}  // namespace dapo::bench
