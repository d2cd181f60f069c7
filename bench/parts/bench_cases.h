// The cases of tests/ops/ at the sizes that are timed, each with the fp64 value of single elements of its outputs,
// computed from the operands that are on the device.
#pragma once

#include <optional>

#include "bench/parts/operands.h"

namespace dapo::bench {

struct Expected {
  double value = 0;
  double terms = 0;  ///< sum of |terms|, if factors are rounded inside the sum
};

using ExpectedFn = std::function<Expected(Sampled&, int operand, int64_t element)>;
using GotFn = std::function<double(Sampled&, int operand, int64_t element)>;

/// Attention over sequences of one length, as in libraries.
struct EqualSequences {
  int batch, length;
  AttentionDims dims;
  bool backward;
};

struct BenchCase {
  ops::OpCase op;
  ExpectedFn expected{};  ///< value of an output's element (bench/parts/expected.h)
  /// Fills inputs that depend on others, on each set.
  std::function<void(Backend&, const std::vector<Tensor>&)> prepare{};
  GotFn got{};            ///< the value to compare, if it is not the element itself
  bool dear_row = false;  ///< a row costs a pass over the head: elements are sampled from dear_rows()
  bool product = false;   ///< a matrix product, which cuBLASLt has too
  std::optional<EqualSequences> sequences{};  ///< cuDNN has it too
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
/// toy | 0.5b | 1.5b | 7b | 32b; `quick` has fewer sizes. Error (exit 2) lists them.
BenchShape bench_shape(const std::string& name, Device device, bool quick);

/// The weights of the shape's products, for Backend::prepare_products.
std::vector<WeightShape> bench_weights(const BenchShape& shape);
std::vector<BenchCase> bench_cases(const BenchShape& shape, DType t);
/// The product y[m, n] = x[m, k] w[n, k]^T.
BenchCase product_case(DType t, int64_t m, int64_t n, int64_t k);

struct Verdict {
  int64_t sampled = 0, wrong = 0;
  std::string worst;  ///< the first wrong element
};
/// Runs the case once on the first set and compares sampled elements of its outputs, with the tolerance of the op's
/// tests.
Verdict check_case(Backend& backend, const BenchCase& c, Operands& operands);

}  // namespace dapo::bench
