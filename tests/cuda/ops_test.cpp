// Every op of the CUDA backend, its kernels run by the simulator, from the table that all backends share.
#include "cuda/cuda_device.h"
#include "sim/cuda_runtime.h"
#include "sim/sim.h"
#include "tests/ops/properties_test.h"

namespace dapo::ops {

Backend& test_backend(DType t) {
  // Two SMs, so that products of these sizes are cut into large tiles too (choose_tile).
  static const bool small = [] {
    cudaDeviceProp p = sim::device_properties();
    p.multiProcessorCount = 2;
    sim::set_device_properties(p);
    return true;
  }();
  static const auto f32 = make_cuda_backend(DType::f32), half = make_cuda_backend(DType::bf16);
  if (small) sim::reset_device();
  return t == DType::f32 ? *f32 : *half;
}

std::vector<DType> tested_types() {
  return {DType::f32, DType::bf16};
}

bool slow_device() {
  return true;
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

}  // namespace
}  // namespace dapo::ops
