// One element of each op's output in fp64, from the operands of its case (tests/ops/cases*.h name and order them).
#pragma once

#include "bench/parts/cases.h"

namespace dapo::bench {

/// The rows that are sampled of an operand of so many, where a row costs a pass over the head.
std::vector<int64_t> dear_rows(int64_t rows);

WantFn embedding_backward_want(int64_t width);
WantFn gather_rows_want(int64_t width);  ///< an embedding's as well
WantFn sum_rows_want(int64_t width);
WantFn rmsnorm_want(int64_t width);
WantFn rmsnorm_backward_want(int64_t width);
WantFn swiglu_want(int64_t ffn);
WantFn swiglu_backward_want(int64_t ffn);
WantFn rope_want(AttentionDims d);
WantFn matmul_want(int64_t o, int64_t i, bool bias);
WantFn matmul_backward_input_want(int64_t o, int64_t i);
WantFn matmul_backward_weight_want(int64_t m, int64_t o, int64_t i);
/// Ops whose element i of every output depends on element i of every operand (or its only one): the case's own
/// reference on one element.
WantFn elementwise_want(const ops::OpCase& c);
GotFn decoded_got(const ops::OpCase& c);
WantFn sum_of_squares_want();

// ---- wants_attention.cpp
WantFn attention_want(std::vector<Segment> segments, AttentionDims d);
WantFn attention_backward_want(std::vector<Segment> segments, AttentionDims d);
/// Softmax attention of one query over keys; where(j) gives the first element of key j and of value j in `operand`.
Want attend(Sampled& s, int q_operand, int64_t q, int operand, int64_t keys, int head_dim, int column,
            const std::function<std::pair<int64_t, int64_t>(int64_t)>& where);

// ---- wants_head.cpp
WantFn lm_logprob_want(int64_t width, int64_t vocab);
WantFn lm_dapo_want(int64_t width, int64_t vocab, int64_t rows);
WantFn lm_sample_want(int64_t width, int64_t vocab);
/// Old log-probs lie round the present ones, so that every kind of clip occurs.
void scatter_old_log_probs(Backend& b, const std::vector<Tensor>& t);

}  // namespace dapo::bench
