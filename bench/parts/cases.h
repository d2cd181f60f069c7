// The cases of tests/ops/ at the sizes that are timed, each with what one of its outputs' elements must be in fp64,
// computed from the operands as the device holds them: whole references take too long at these sizes.
#pragma once

#include <optional>

#include "bench/parts/operands.h"

namespace dapo::bench {

struct Want {
  double value = 0;
  double terms = 0;  ///< sum of |terms|, where factors are rounded inside of the sum
};

using WantFn = std::function<Want(Sampled&, int operand, int64_t element)>;
using GotFn = std::function<double(Sampled&, int operand, int64_t element)>;

/// Attention over sequences of one length, as libraries know it.
struct EqualSequences {
  int batch, length;
  AttentionDims dims;
  bool backward;
};

struct BenchCase {
  ops::OpCase op;
  WantFn want{};  ///< what the output's element must be; none: not checked
  /// Fills inputs that follow from others, on each set.
  std::function<void(Backend&, const std::vector<Tensor>&)> prepare{};
  GotFn got{};                                ///< the value to compare, where it is not the element itself
  bool dear_row = false;                      ///< a row costs a pass over the head: elements are sampled from few rows
  bool product = false;                       ///< is a matrix product: cuBLASLt has it as well
  std::optional<EqualSequences> sequences{};  ///< cuDNN has it as well
  std::string name() const { return op.name(); }
};

/// Shapes of a model and the sizes of the calls that are timed.
struct BenchShape {
  std::string name;
  int64_t hidden, ffn, vocab;
  AttentionDims heads;
  int64_t tokens;                ///< rows of a training pack
  int64_t head_rows;             ///< rows of the head's passes
  std::vector<int64_t> batches;  ///< of decode
  std::vector<int> contexts;     ///< of decode attention, tokens
  std::vector<int> lengths;      ///< of sequences in `tokens` rows of attention
  int64_t flat;                  ///< elements of AdamW, casts, sums
};
/// toy | 0.5b | 1.5b | 7b | 32b; `quick` takes fewer sizes. Error (exit 2) names what there is.
BenchShape bench_shape(const std::string& name, Device device, bool quick);

/// The weights of its products, for Backend::prepare_products.
std::vector<WeightShape> bench_weights(const BenchShape& shape);
std::vector<BenchCase> bench_cases(const BenchShape& shape, DType t);
/// A product y[m, n] = x[m, k] w[n, k]^T by itself.
BenchCase product_case(DType t, int64_t m, int64_t n, int64_t k);

struct Verdict {
  int64_t sampled = 0, wrong = 0;
  std::string worst;  ///< the first wrong element
};
/// Runs the case once on the first set and compares sampled elements of its outputs, by the tolerance of the op's
/// tests.
Verdict check_case(Backend& backend, const BenchCase& c, Operands& operands);

}  // namespace dapo::bench
