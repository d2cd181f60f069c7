// Every op of the CPU backend, from the table that all backends share.
#include "cpu/cpu_backend.h"
#include "tests/ops/properties_test.h"

namespace dapo::ops {

Backend& test_backend(DType t) {
  static const auto f32 = make_cpu_backend(DType::f32);
  static const auto half = cpu_has_bf16() ? make_cpu_backend(DType::bf16) : nullptr;
  return t == DType::f32 ? *f32 : *half;
}

std::vector<DType> tested_types() {
  return cpu_has_bf16() ? std::vector{DType::f32, DType::bf16} : std::vector{DType::f32};
}

bool slow_device() {
  return false;
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
