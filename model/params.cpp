#include "model/params.h"

#include <algorithm>

#include "core/sizes.h"

namespace dapo {
namespace {

class Builder {
 public:
  explicit Builder(ParamTable& table) : table_(table) {}

  int matrix(const std::string& name, int64_t rows, int64_t columns, Split split, std::vector<ParamPart> parts) {
    return add({name, rows, columns, true, 0, true, split, std::move(parts)});
  }
  int vector(const std::string& name, int64_t rows, Split split, std::vector<ParamPart> parts) {
    return add({name, rows, 1, false, 0, true, split, std::move(parts)});
  }

 private:
  int add(Param p) {
    p.offset = table_.size;
    table_.size += round_up(p.numel(), kParamAlign);
    table_.all.push_back(std::move(p));
    return static_cast<int>(table_.all.size()) - 1;
  }
  ParamTable& table_;
};

}  // namespace

ParamTable parameter_table(const ModelConfig& c) {
  ParamTable t;
  Builder b(t);
  const AttentionDims a = c.attention();
  const int64_t q = a.q_width(), kv = a.kv_width();
  const auto qkv_parts = [&](const std::string& hf, const char* kind) -> std::vector<ParamPart> {
    return {{hf + "self_attn.q_proj." + kind, 0, q},
            {hf + "self_attn.k_proj." + kind, q, kv},
            {hf + "self_attn.v_proj." + kind, q + kv, kv}};
  };
  t.embedding =
      b.matrix("embedding.weight", c.vocab, c.hidden, Split::rows, {{"model.embed_tokens.weight", 0, c.vocab}});
  for (int l = 0; l < c.layers; ++l) {
    const std::string name = fmt::format("layers.{}.", l), hf = "model." + name;
    LayerParams p{};
    p.norm1 = b.vector(name + "norm1.weight", c.hidden, Split::none, {{hf + "input_layernorm.weight", 0, c.hidden}});
    p.qkv = b.matrix(name + "qkv.weight", a.qkv_width(), c.hidden, Split::rows, qkv_parts(hf, "weight"));
    if (c.qkv_bias) p.qkv_bias = b.vector(name + "qkv.bias", a.qkv_width(), Split::rows, qkv_parts(hf, "bias"));
    p.o = b.matrix(name + "o.weight", c.hidden, q, Split::columns, {{hf + "self_attn.o_proj.weight", 0, c.hidden}});
    p.norm2 =
        b.vector(name + "norm2.weight", c.hidden, Split::none, {{hf + "post_attention_layernorm.weight", 0, c.hidden}});
    p.gate_up = b.matrix(name + "gate_up.weight", 2 * int64_t{c.ffn}, c.hidden, Split::rows,
                         {{hf + "mlp.gate_proj.weight", 0, c.ffn}, {hf + "mlp.up_proj.weight", c.ffn, c.ffn}});
    p.down =
        b.matrix(name + "down.weight", c.hidden, c.ffn, Split::columns, {{hf + "mlp.down_proj.weight", 0, c.hidden}});
    t.layers.push_back(p);
  }
  t.norm = b.vector("norm.weight", c.hidden, Split::none, {{"model.norm.weight", 0, c.hidden}});
  t.head =
      c.tied ? t.embedding : b.matrix("head.weight", c.vocab, c.hidden, Split::rows, {{"lm_head.weight", 0, c.vocab}});
  return t;
}

Range rows_within(const Param& p, const ParamPart& part, int64_t begin, int64_t end) {
  const int64_t first = p.offset + part.row_begin * p.columns;
  const auto row_at = [&](int64_t element) {
    const int64_t at = std::clamp(element - first, int64_t{0}, part.rows * p.columns);
    CHECK_EQ(at % p.columns, 0, "{}: a cut inside a row", part.name);
    return at / p.columns;
  };
  return {row_at(begin), row_at(end)};
}

std::vector<WeightShape> weight_shapes(const ParamTable& params) {
  const auto shape = [&](int i, bool bias, bool logits) {
    const Param& p = params.at(i);
    return WeightShape{p.rows, p.columns, bias, logits};
  };
  const LayerParams& l = params.layers.front();
  return {shape(l.qkv, l.has_bias(), false), shape(l.o, false, false), shape(l.gate_up, false, false),
          shape(l.down, false, false), shape(params.head, false, true)};
}

}  // namespace dapo
