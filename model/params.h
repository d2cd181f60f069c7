// The one parameter table: names, shapes, offsets, how each parameter is split between ranks. Load, save, init,
// optimizer and gradient checks walk it.
#pragma once

#include <string>
#include <vector>

#include "core/backend.h"
#include "model/config.h"

namespace dapo {

/// How tensor parallelism cuts a parameter (Megatron): whole on every rank, by output rows, or by input columns.
enum class Split : uint8_t { none, rows, columns };

/// One tensor of the Hugging Face folder: rows [row_begin, row_begin + rows) of its parameter.
struct ParamPart {
  std::string name;         ///< "model.layers.0.self_attn.q_proj.weight"
  int64_t row_begin, rows;  ///< a vector counts as rows of one element
};

/// q, k, v (and gate, up) lie one after another, so that each group is one matrix and one product.
struct Param {
  std::string name;       ///< "layers.0.qkv.weight"
  int64_t rows, columns;  ///< columns is 1 and rank 1 for vectors
  bool matrix;
  int64_t offset;  ///< elements from the start of the flat buffer, a multiple of 64
  bool decayed;    ///< weight decay applies (to all, as torch.optim.AdamW does by default)
  Split split;
  std::vector<ParamPart> parts;
  int64_t numel() const { return rows * columns; }
};

struct LayerParams {
  int norm1, qkv, qkv_bias /* -1: none */, o, norm2, gate_up, down;  ///< indices into ParamTable::all
};

struct ParamTable {
  std::vector<Param> all;
  std::vector<LayerParams> layers;
  int embedding, norm, head;  ///< head == embedding where tied
  int64_t size;               ///< elements of the flat buffer, padding included

  /// View of parameter i inside a flat buffer (weights, gradients or moments).
  Tensor view(const Tensor& flat, int i) const {
    const Param& p = all[static_cast<size_t>(i)];
    Tensor t = flat.rows(p.offset, p.numel());
    return p.matrix ? t.view({p.rows, p.columns}) : t;
  }
};

ParamTable parameter_table(const ModelConfig& config);
/// The shapes of the matrices that rows are multiplied with: one layer's, and the head.
std::vector<WeightShape> weight_shapes(const ParamTable& params);

}  // namespace dapo
