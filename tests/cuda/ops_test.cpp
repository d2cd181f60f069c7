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

}  // namespace
}  // namespace dapo::ops
