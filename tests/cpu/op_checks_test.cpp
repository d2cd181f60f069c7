// A wrong argument of any op is refused, and the message names op and argument (core/op_checks.h). That the CUDA
// backend says the same: tests/cuda/op_checks_test.cpp.
#include "tests/ops/wrong_arguments.h"

namespace dapo::ops {
namespace {

TEST(OpChecks, EachWrongArgumentIsRefusedByName) {
  for (const DType t : tested_types()) {
    const std::vector<WrongCall> calls = wrong_calls(test_backend(t));
    EXPECT_GT(calls.size(), 300u);
    for (const WrongCall& c : calls) {
      const bool op = c.message.find(c.op + ": ") != std::string::npos ||
                      (c.op == "paged_attention" && c.message.find("rope_kv_write: ") != std::string::npos);
      EXPECT_TRUE(op) << c.op << ", " << c.argument << ", wrong " << c.what << ": \"" << c.message << '"';
      if (!c.named) continue;
      const size_t at = c.message.find(": expected ");  // before it "argument", or "argument.member" of a struct
      EXPECT_TRUE(at != std::string::npos && c.message.rfind(c.argument, at) != std::string::npos)
          << c.op << ", " << c.argument << ", wrong " << c.what << ": \"" << c.message << '"';
    }
  }
}

/// Arguments that are not tensors.
TEST(OpChecks, ScalarsAreRefusedByName) {
  Backend& b = test_backend(DType::f32);
  const auto expect_refused = [](const std::string& part, auto call) {
    try {
      call();
      ADD_FAILURE() << "accepted: " << part;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
  };
  const Device1 qkv(b, DType::f32, {1, 64}), table(b, DType::f32, {1, 16}), positions(b, DType::i32, {1});
  expect_refused("rope: dims: 3 heads, 2 kv_heads", [&] { b.rope(qkv, table, positions, {3, 2, 16}, false); });
  expect_refused("rope: dims: head_dim 5 is odd", [&] { b.rope(qkv, table, positions, {1, 1, 5}, false); });
  const Device1 x(b, DType::f32, {1, 8}), head(b, DType::f32, {4, 8}), one(b, DType::f32, {1}), id(b, DType::i32, {1});
  expect_refused("lm_logprob: temperature 0", [&] { b.lm_logprob(one, {}, x, head, id, 0.0f); });
  const Device1 keys(b, DType::i32, {1, 3});
  expect_refused("lm_sample: temperature -1", [&] { b.lm_sample(id, one, x, head, keys, id, {.temperature = -1.0f}); });
  const Device1 cache(b, DType::f32, {1, 2, 1, 32, 16}), begin(b, DType::i32, {2}), pages(b, DType::i32, {1, 1});
  expect_refused("rope_kv_write: seqs.page_size 32: expected a multiple of 64", [&] {
    b.rope_kv_write(cache, qkv, {}, {begin, id, id, pages, 32, 1, 1}, {2, 1, 16});
  });
  const Device1 norm2(b, DType::f64, {1});
  expect_refused("adamw: params.step", [&] { b.adamw(one, {}, one, one, one, norm2, {}); });
}

}  // namespace
}  // namespace dapo::ops
