// Every op called with one argument at a time of a wrong type, rank or shape, or missing: what core/op_checks.h says.
#pragma once

#include <algorithm>

#include "tests/ops/cases.h"
#include "tests/ops/cases_attention.h"
#include "tests/ops/cases_head.h"
#include "tests/ops/device_tensor.h"

namespace dapo::ops {

struct WrongCall {
  std::string op, argument, what;
  bool named;           ///< whether the message must name the argument (a wrong size may show in another one)
  std::string message;  ///< of the Error; "" if the op took the argument
};

/// A small case of each op, with all of its optional arguments.
inline std::vector<OpCase> one_case_of_each_op(DType T) {
  const AttentionDims d{2, 1, 16};
  const std::vector<Segment> s = segments_of({{3, -1}, {2, 0}});
  return {embedding_case(T, 5, 6, 8, 0),
          embedding_backward_case(T, 5, 6, 8),
          gather_rows_case(T, T, 5, 6, 8),
          sum_rows_case(T, 5, 6, 8),
          rmsnorm_case(T, 5, 8, true),
          add_parts_case(T, T, 2, 5, 8),
          rmsnorm_backward_case(T, 5, 8),
          matmul_case(T, 5, 6, 8, true),
          matmul_backward_input_case(T, 5, 6, 8),
          matmul_backward_weight_case(T, 5, 6, 8, true),
          rope_case(T, 5, d, false),
          attention_case(T, s, d),
          attention_backward_case(T, s, d),
          paged_attention_case(T, s, d, kKvTile),
          swiglu_case(T, 5, 8),
          swiglu_backward_case(T, 5, 8, true),
          lm_logprob_case(T, 5, 6, 8, 1.0f, true),
          lm_dapo_case(T, 5, 6, 8, 1.0f, LossCase{"", kCaseLoss, true, true, true}),
          lm_sample_case(T, 5, 6, 8, {}),
          sum_of_squares_case(5),
          adamw_case(T, 5, 1.0, 1, 1.0f),
          cast_case(DType::bf16, T, 5),
          increment_case(5)};
}

/// "op argument", or "op argument dimension", of what a check lets pass.
inline bool may_be(std::initializer_list<const char*> list, const std::string& what) {
  return std::find(list.begin(), list.end(), what) != list.end();
}
inline bool unused(const std::string& argument) {  // only the case's gradient or its reference reads it
  return may_be({"matmul_backward_input x", "matmul_backward_weight w", "matmul_backward_weight b",
                 "paged_attention lse", "paged_attention segments", "lm_dapo base"},
                argument);
}
inline bool of_any_size(const std::string& dimension) {
  return may_be({"embedding table 0", "embedding_backward dtable 0", "embedding_backward dx 0",
                 "embedding_backward rows 0", "gather_rows x 0", "sum_rows dy 0", "sum_rows rows 0", "rope table 0",
                 "lm_logprob head 0", "lm_sample head 0", "paged_attention cache 0", "paged_attention pages 1",
                 "add_parts parts 0", "sum_of_squares x 0", "increment t 0"},
                dimension);
}
inline bool of_any_rank(const std::string& argument) {
  return may_be({"sum_of_squares x", "increment t", "cast to", "cast from"}, argument);
}
inline bool optional(const std::string& argument) {
  return may_be({"rmsnorm rstd", "rmsnorm delta", "matmul bias", "matmul_backward_weight db", "swiglu_backward a",
                 "lm_logprob entropy", "lm_dapo old_log_prob", "lm_dapo log_ratio", "lm_dapo ref_log_prob"},
                argument);
}

inline std::vector<WrongCall> wrong_calls(Backend& b) {
  constexpr int64_t kBytes = 1 << 16;  // of each operand: more than any of these cases takes, with a size too many
  std::vector<WrongCall> calls;
  for (const OpCase& c : one_case_of_each_op(b.dtype())) {
    const std::string op = c.op.starts_with("cast") ? "cast" : c.op.substr(0, c.op.find('+'));
    std::vector<std::unique_ptr<Device1>> memory;
    std::vector<Tensor> right;
    for (const Operand& o : c.operands) {
      memory.push_back(std::make_unique<Device1>(b, DType::u8, std::vector<int64_t>{kBytes}));
      Tensor t;
      t.data = memory.back()->tensor().data, t.dtype = o.dtype, t.rank = int(o.shape.size());
      std::copy(o.shape.begin(), o.shape.end(), t.shape.begin());
      right.push_back(t);
    }
    const ScopedWorkspace workspace(b, c.needs);
    for (size_t i = 0; i < right.size(); ++i) {
      const std::string argument = op + ' ' + c.operands[i].name;
      if (unused(argument)) continue;
      const auto call = [&](const std::string& what, bool named, auto change) {
        std::vector<Tensor> t = right;
        change(t[i]);
        WrongCall wrong{op, c.operands[i].name, what, named, ""};
        try {
          c.run(b, t);
          b.synchronize();
        } catch (const Error& e) {
          wrong.message = e.what();
        }
        calls.push_back(wrong);
      };
      call("type", true, [](Tensor& t) { t.dtype = t.dtype == DType::u8 ? DType::i32 : DType::u8; });
      if (!of_any_rank(argument)) call("rank", true, [](Tensor& t) { t.shape[t.rank++] = 1; });
      for (int d = 0; d < right[i].rank; ++d)
        if (!of_any_size(argument + ' ' + std::to_string(d)))
          call("size of dimension " + std::to_string(d), false, [d](Tensor& t) { ++t.shape[d]; });
      if (!optional(argument)) call("missing", true, [](Tensor& t) { t.data = nullptr; });
    }
  }
  return calls;
}

}  // namespace dapo::ops
