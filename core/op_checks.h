// What each op of core/backend.h expects of its arguments. Both backends call check_<op>() first, so that a wrong type
// or shape gives the same message on every device, before anything runs. T is Backend::dtype(). Values in device memory
// (ids, lengths, pages) are not looked at.
#pragma once

#include "core/backend.h"

namespace dapo {

void check_embedding(DType T, const Tensor& x, const Tensor& table, const Tensor& ids);
void check_embedding_backward(DType T, const Tensor& dtable, const Tensor& dx, const Tensor& unique,
                              const Tensor& offsets, const Tensor& rows);
void check_gather_rows(DType T, const Tensor& y, const Tensor& x, const Tensor& index);
void check_sum_rows(DType T, const Tensor& dx, const Tensor& dy, const Tensor& offsets, const Tensor& rows);

void check_rmsnorm(DType T, const Tensor& y, const Tensor& sum, const Tensor& rstd, const Tensor& x,
                   const Tensor& delta, const Tensor& w);
void check_add_parts(const Tensor& sum, const Tensor& parts);
void check_rmsnorm_backward(DType T, const Tensor& dx, const Tensor& dw, const Tensor& dy, const Tensor& x,
                            const Tensor& w, const Tensor& rstd);

void check_matmul(DType T, const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& bias);
void check_matmul_backward_input(DType T, const Tensor& dx, const Tensor& dy, const Tensor& w);
void check_matmul_backward_weight(DType T, const Tensor& dw, const Tensor& db, const Tensor& dy, const Tensor& x);

void check_rope(DType T, const Tensor& qkv, const Tensor& table, const Tensor& positions, const AttentionDims& dims);
void check_attention(DType T, const Tensor& out, const Tensor& lse, const Tensor& qkv, const Segments& segments,
                     const AttentionDims& dims);
void check_attention_backward(DType T, const Tensor& dqkv, const Tensor& dout, const Tensor& qkv, const Tensor& out,
                              const Tensor& lse, const Segments& segments, const AttentionDims& dims);
void check_rope_kv_write(DType T, const Tensor& cache, const Tensor& qkv, const Tensor& table,
                         const PagedSequences& seqs, const AttentionDims& dims);
void check_paged_attention(DType T, const Tensor& out, const Tensor& qkv, const Tensor& cache,
                           const PagedSequences& seqs, const AttentionDims& dims);

void check_swiglu(DType T, const Tensor& a, const Tensor& gu);
void check_swiglu_backward(DType T, const Tensor& dgu, const Tensor& a, const Tensor& da, const Tensor& gu);

void check_lm_logprob(DType T, const Tensor& log_prob, const Tensor& entropy, const Tensor& x, const Tensor& head,
                      const Tensor& targets, float temperature, const VocabularySplit& split);
void check_lm_dapo(DType T, const Tensor& dx, const Tensor& dhead, const Tensor& log_prob, const Tensor& entropy,
                   const Tensor& loss, const Tensor& clip, const Tensor& x, const Tensor& head, const Tensor& targets,
                   const Tensor& old_log_prob, const Tensor& advantage, const Tensor& weight, const Tensor& log_ratio,
                   const Tensor& ref_log_prob, float temperature, const DapoLoss& params, const VocabularySplit& split);
void check_lm_sample(DType T, const Tensor& tokens, const Tensor& log_prob, const Tensor& x, const Tensor& head,
                     const Tensor& keys, const Tensor& positions, const Sampling& sampling,
                     const VocabularySplit& split);

void check_sum_of_squares(const Tensor& out, const Tensor& x);
void check_adamw(DType T, const Tensor& w, const Tensor& remainder, const Tensor& m, const Tensor& v,
                 const Tensor& grad, const Tensor& norm2, const AdamW& params);
void check_cast(const Tensor& to, const Tensor& from);
void check_increment(const Tensor& t);

}  // namespace dapo
