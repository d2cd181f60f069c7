#include "model/params.h"

#include <algorithm>

#include "core/sizes.h"

namespace dapo {
namespace {

class Builder {
 public:
  explicit Builder(ParamTable& table) : table_(table) {}

  int matrix(const std::string& name, int64_t columns, std::vector<ParamPart> parts) {
    return add(name, columns, true, {0, columns}, std::move(parts));
  }
  /// Columns `own` of tensors with `all` columns.
  int matrix(const std::string& name, const Range& own, int64_t all, std::vector<ParamPart> parts) {
    return add(name, own.count(), true, {own.begin, all}, std::move(parts));
  }
  int vector(const std::string& name, std::vector<ParamPart> parts) {
    return add(name, 1, false, {0, 1}, std::move(parts));
  }

 private:
  struct Columns {
    int64_t begin, of;
  };
  int add(const std::string& name, int64_t columns, bool matrix, const Columns& from, std::vector<ParamPart> parts) {
    int64_t rows = 0;
    for (ParamPart& part : parts) part.row_begin = rows, rows += part.rows;
    table_.all.push_back({name, rows, columns, matrix, table_.size, true, from.begin, from.of, std::move(parts)});
    table_.size += round_up(rows * columns, kParamAlign);
    return static_cast<int>(table_.all.size()) - 1;
  }
  ParamTable& table_;
};

}  // namespace

ParamTable parameter_table(const ModelConfig& c, const TensorRank& at) {
  ParamTable t;
  Builder b(t);
  const TensorShare share = tensor_share(c, at);
  const auto rows = [](const std::string& name, const Range& own, int64_t all) {
    return ParamPart{name, 0, own.count(), own.begin, all};
  };
  const auto whole = [&](const std::string& name, int64_t count) {
    ParamPart part = rows(name, {0, count}, count);
    part.copies = at.ranks, part.copy = at.rank;
    return part;
  };
  const auto qkv_parts = [&](const std::string& hf, const char* kind) {
    const int64_t d = c.head_dim, q = c.attention().q_width(), kv = c.attention().kv_width();
    std::vector<ParamPart> parts = {
        rows(hf + "self_attn.q_proj." + kind, {share.heads.begin * d, share.heads.end * d}, q)};
    for (const char* name : {"self_attn.k_proj.", "self_attn.v_proj."}) {
      if (c.kv_heads % at.ranks == 0) {
        parts.push_back(rows(hf + name + kind, {share.kv_heads.begin * d, share.kv_heads.end * d}, kv));
        continue;
      }
      for (int64_t k = share.kv_heads.begin; k < share.kv_heads.end; ++k) {
        const Range holders = kv_head_holders(c, at.ranks, k);
        parts.push_back(rows(hf + name + kind, {k * d, (k + 1) * d}, kv));
        parts.back().copies = static_cast<int>(holders.count());
        parts.back().copy = at.rank - static_cast<int>(holders.begin);
      }
    }
    return parts;
  };
  t.embedding = b.matrix("embedding.weight", c.hidden, {rows("model.embed_tokens.weight", share.vocab, c.vocab)});
  for (int l = 0; l < c.layers; ++l) {
    const std::string name = fmt::format("layers.{}.", l), hf = "model." + name;
    LayerParams p{};
    p.norm1 = b.vector(name + "norm1.weight", {whole(hf + "input_layernorm.weight", c.hidden)});
    p.qkv = b.matrix(name + "qkv.weight", c.hidden, qkv_parts(hf, "weight"));
    if (c.qkv_bias) p.qkv_bias = b.vector(name + "qkv.bias", qkv_parts(hf, "bias"));
    p.o = b.matrix(name + "o.weight", {share.heads.begin * c.head_dim, share.heads.end * c.head_dim},
                   c.attention().q_width(), {rows(hf + "self_attn.o_proj.weight", {0, c.hidden}, c.hidden)});
    p.norm2 = b.vector(name + "norm2.weight", {whole(hf + "post_attention_layernorm.weight", c.hidden)});
    p.gate_up = b.matrix(
        name + "gate_up.weight", c.hidden,
        {rows(hf + "mlp.gate_proj.weight", share.ffn, c.ffn), rows(hf + "mlp.up_proj.weight", share.ffn, c.ffn)});
    p.down =
        b.matrix(name + "down.weight", share.ffn, c.ffn, {rows(hf + "mlp.down_proj.weight", {0, c.hidden}, c.hidden)});
    t.layers.push_back(p);
  }
  t.norm = b.vector("norm.weight", {whole("model.norm.weight", c.hidden)});
  t.head = c.tied ? t.embedding : b.matrix("head.weight", c.hidden, {rows("lm_head.weight", share.vocab, c.vocab)});
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
  std::vector<WeightShape> shapes = {shape(l.qkv, l.has_bias(), false), shape(l.o, false, false),
                                     shape(l.gate_up, false, false), shape(l.down, false, false)};
  if (params.at(params.head).rows > 0) shapes.push_back(shape(params.head, false, true));
  return shapes;
}

}  // namespace dapo
