// One element of each op's output in fp64: tests/ops/reference.h on the operands that this element needs, since whole
// references take too long at the sizes that are timed. Cases name and order the operands (tests/ops/cases*.h).
#pragma once

#include "bench/parts/bench_cases.h"

namespace dapo::bench {

/// The case's own reference on a slice of its operands. axes: a letter for each dimension of each operand ("mi" for
/// x[m, i]). An output element needs the operands at its own place on the `sampled` axes of its output, and all of them
/// on the other axes.
ExpectedFn expected_of_slice(const ops::OpCase& c, const std::vector<std::string>& axes,
                             const std::vector<std::pair<int, std::string>>& sampled);
/// The value that is compared where the case decodes it (an elementwise op).
GotFn decoded_got(const ops::OpCase& c);

// Ops whose rows are chosen by an index.
ExpectedFn expected_gather(int64_t width);  ///< embedding and gather_rows
ExpectedFn expected_sum_rows(int64_t width);
ExpectedFn expected_embedding_backward(int64_t width);

/// Softmax attention of the query q_operand[q, +D] over `keys` keys; where(j): first element of key j and value j in
/// `operand`. column -1: lse.
Expected expected_attention_row(Sampled& s, int q_operand, int64_t q, int operand, int64_t keys, int head_dim,
                                int column, const std::function<std::pair<int64_t, int64_t>(int64_t)>& where);
ExpectedFn expected_attention(std::vector<Segment> segments, AttentionDims d);
ExpectedFn expected_attention_backward(std::vector<Segment> segments, AttentionDims d);

/// The rows of the head that are compared: each costs a pass over the head.
std::vector<int64_t> dear_rows(int64_t rows);
ExpectedFn expected_lm_logprob(int64_t width, int64_t vocab);
ExpectedFn expected_lm_sample(int64_t width, int64_t vocab);
ExpectedFn expected_lm_dapo(int64_t width, int64_t vocab, int64_t rows, DapoLoss params);
/// Old log-probs are set near the present ones, so that every kind of clip occurs.
void scatter_old_log_probs(Backend& b, const std::vector<Tensor>& t);

}  // namespace dapo::bench
