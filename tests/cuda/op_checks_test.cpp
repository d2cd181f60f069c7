// A wrong argument of any op is refused with the same words by both backends, and the words name it.
#include "cpu/cpu_backend.h"
#include "tests/ops/wrong_arguments.h"

namespace dapo::ops {
namespace {

TEST(OpChecks, BothBackendsRefuseEachWrongArgumentWithTheSameMessage) {
  for (const DType t : tested_types()) {
    if (t == DType::bf16 && !cpu_has_bf16()) continue;
    const auto cpu = make_cpu_backend(t);
    const std::vector<WrongCall> calls = wrong_calls(test_backend(t)), on_cpu = wrong_calls(*cpu);
    ASSERT_EQ(calls.size(), on_cpu.size());
    for (size_t i = 0; i < calls.size(); ++i)
      EXPECT_EQ(calls[i].message, on_cpu[i].message) << calls[i].op << ", " << calls[i].argument;
  }
}

}  // namespace
}  // namespace dapo::ops
