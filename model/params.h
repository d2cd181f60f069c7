// The parameter table: names, shapes, offsets, and what of each parameter a rank has. Loading, saving, random
// starts, the optimizer and gradient checks all walk it.
#pragma once

#include <string>
#include <vector>

#include "core/backend.h"
#include "model/tensor_split.h"

namespace dapo {

/// Rows of one tensor of the Hugging Face folder, all of them unless ranks share it: rows [row_begin, row_begin + rows)
/// of its parameter.
struct ParamPart {
  std::string name;         ///< "model.layers.0.self_attn.q_proj.weight"
  int64_t row_begin, rows;  ///< a vector has rows of one element
  int64_t tensor_row;       ///< the first of them in the tensor
  int64_t tensor_rows;      ///< of the tensor
  int copies = 1;           ///< tensor-parallel ranks that hold these rows; their values are the same
  int copy = 0;             ///< which of these ranks this is
};

/// One parameter. q, k, v (and gate, up) are adjacent parts of one parameter: one matrix, one product.
struct Param {
  std::string name;        ///< "layers.0.qkv.weight"
  int64_t rows, columns;   ///< columns = 1 for vectors
  bool matrix;             ///< false: a vector, a tensor of rank 1
  int64_t offset;          ///< elements from the start of the flat buffer, a multiple of 64
  bool decayed;            ///< weight decay applies; true for all, as torch.optim.AdamW does by default
  int64_t column_begin;    ///< the first of its columns in the tensors of the folder
  int64_t tensor_columns;  ///< of those tensors
  std::vector<ParamPart> parts;
  int64_t numel() const { return rows * columns; }
  /// Shape of `part.rows` rows as this rank has them, and of the tensor in the folder.
  std::vector<int64_t> shape_of(const ParamPart& part) const { return shape(part.rows, columns); }
  std::vector<int64_t> tensor_shape(const ParamPart& part) const { return shape(part.tensor_rows, tensor_columns); }

 private:
  std::vector<int64_t> shape(int64_t r, int64_t c) const {
    return matrix ? std::vector<int64_t>{r, c} : std::vector<int64_t>{r};
  }
};

/// Elements: every parameter starts on a cache line, in both dtypes.
inline constexpr int64_t kParamAlign = 64;

/// Indices into ParamTable::all.
struct LayerParams {
  static constexpr int kAbsent = -1;
  int norm1, qkv, qkv_bias = kAbsent, o, norm2, gate_up, down;
  bool has_bias() const { return qkv_bias != kAbsent; }
};

struct ParamTable {
  std::vector<Param> all;
  std::vector<LayerParams> layers;
  int embedding, norm, head;  ///< indices into `all`; head == embedding if the two are tied
  int64_t size = 0;           ///< elements of a flat buffer, padding between parameters included

  const Param& at(int i) const { return all[static_cast<size_t>(i)]; }
  const LayerParams& layer(int l) const { return layers[static_cast<size_t>(l)]; }
  /// Parameter i of a flat buffer (weights, gradients or moments): [rows, columns], or [rows] for a vector.
  Tensor view(const Tensor& flat, int i) const {
    const Param& p = at(i);
    Tensor t = flat.rows(p.offset, p.numel());
    return p.matrix ? t.view({p.rows, p.columns}) : t;
  }
};

/// The rows of a part of `p` that lie in elements [begin, end) of a flat buffer, which begin and end at rows.
Range rows_within(const Param& p, const ParamPart& part, int64_t begin, int64_t end);

/// The parameters as one rank of a tensor-parallel group has them.
ParamTable parameter_table(const ModelConfig& config, const TensorRank& at = {});
/// Shapes of the weights in matrix products: those of one layer, and the head.
std::vector<WeightShape> weight_shapes(const ParamTable& params);

}  // namespace dapo
