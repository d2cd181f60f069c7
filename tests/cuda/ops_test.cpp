// Every op of the CUDA backend, from the table that all backends share.
#include "cuda/cuda_device.h"
#include "cuda/probe.h"
#include "tests/cuda/test_device.h"
#include "tests/ops/properties_test.h"

namespace dapo::ops {

Backend& test_backend(DType t) {
  static const auto made = [] {
    pretend_two_sms(true);
    auto both = std::pair(make_cuda_backend(DType::f32), make_cuda_backend(DType::bf16));
    pretend_two_sms(false);
    return both;
  }();
  return t == DType::f32 ? *made.first : *made.second;
}

std::vector<DType> tested_types() {
  return {DType::f32, DType::bf16};
}

bool slow_device() {
  return cuda_simulated();
}

namespace {

std::vector<OpCase> types(std::vector<OpCase> (*cases)(DType)) {
  std::vector<OpCase> all;
  for (const DType t : tested_types())
    for (OpCase& c : cases(t)) all.push_back(std::move(c));
  return all;
}

INSTANTIATE_TEST_SUITE_P(Plain, OpTest, ::testing::ValuesIn(types(plain_cases)), case_name);
INSTANTIATE_TEST_SUITE_P(Attention, OpTest, ::testing::ValuesIn(types(attention_cases)), case_name);
INSTANTIATE_TEST_SUITE_P(Head, OpTest, ::testing::ValuesIn(types(head_cases)), case_name);
INSTANTIATE_TEST_SUITE_P(Plain, OpTestGradient, ::testing::ValuesIn(with_gradients(types(plain_cases))), case_name);
INSTANTIATE_TEST_SUITE_P(Attention, OpTestGradient, ::testing::ValuesIn(with_gradients(types(attention_cases))),
                         case_name);
INSTANTIATE_TEST_SUITE_P(Head, OpTestGradient, ::testing::ValuesIn(with_gradients(types(head_cases))), case_name);

// ---- attention by wgmma

/// Of the table, the calls that the kernel takes; then groups of 1, 2 and 7 query heads, lengths around a tile of keys
/// and around a block of rows, prefixes and own tokens of several splits.
std::vector<OpCase> wgmma_attention_cases() {
  const DType t = DType::bf16;
  std::vector<OpCase> all;
  for (OpCase& c : attention_cases(t))
    if (c.needs.attention.head_dim >= 64) all.push_back(std::move(c));
  const auto add = [&](const std::vector<Segment>& s, AttentionDims d, int page) {
    all.push_back(attention_case(t, s, d));
    all.push_back(paged_attention_case(t, s, d, page));
  };
  const auto around_tiles = segments_of({{1, -1}, {63, -1}, {64, 1}, {65, 1}, {128, -1}, {129, 4}, {127, 4}, {193, 0}});
  for (const int d : {64, 128}) {
    add(around_tiles, {1, 1, d}, 64);
    all.push_back(attention_backward_case(t, around_tiles, {2, 1, d}));
    add(segments_of({{65, -1}, {64, 0}, {1, 0}}), {6, 3, d}, 128);
    add(segments_of({{55, -1}, {10, 0}, {65, 0}, {1, -1}}), {21, 3, d}, 64);
    add(segments_of({{513, -1}, {520, 0}}), {1, 1, d}, 64);
    add(segments_of({{1000, -1}, {40, 0}}), {1, 1, d}, 128);
  }
  return all;
}

class WgmmaAttention : public ::testing::TestWithParam<OpCase> {
 protected:
  ~WgmmaAttention() override { set_cuda_attention(backend_, CudaAttention::automatic); }
  std::vector<std::vector<std::byte>> run_by(CudaAttention kernel, const std::vector<Values>& inputs) {
    set_cuda_attention(backend_, kernel);
    return run_case(backend_, GetParam(), inputs);
  }
  Backend& backend_ = test_backend(DType::bf16);
};

TEST_P(WgmmaAttention, HasTheBitsOfMmaSync) {
  if (!cuda_has_wgmma_attention(backend_, 64)) GTEST_SKIP() << "skipped: not sm_90";
  const OpCase& c = GetParam();
  std::vector<Values> want = inputs_of(c);
  const auto mma = run_by(CudaAttention::mma, want), wgmma = run_by(CudaAttention::wgmma, want);
  const std::vector<Values> got = decoded(c, wgmma);
  const Values terms = c.terms(want);
  c.reference(want);
  for (size_t i = 0; i < c.operands.size(); ++i) {
    const Operand& o = c.operands[i];
    if (o.role == Role::in) continue;
    EXPECT_TRUE(wgmma[i] == mma[i]) << c.name() << ": " << o.name;
    expect_close(c.name() + ": " + o.name, got[i], want[i], o.tolerance(c.type), i == 0 ? terms : Values());
  }
}
INSTANTIATE_TEST_SUITE_P(BothPasses, WgmmaAttention, ::testing::ValuesIn(wgmma_attention_cases()), case_name);

}  // namespace
}  // namespace dapo::ops
