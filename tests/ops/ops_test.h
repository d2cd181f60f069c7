// The tests of every case, on the backend that the including program defines with test_backend(). The program
// instantiates OpTest with its cases, as tests/cpu/ops_test.cpp does.
#pragma once

#include "tests/ops/cases.h"
#include "tests/ops/cases_attention.h"
#include "tests/ops/cases_head.h"
#include "tests/ops/device_tensor.h"
#include "tests/ops/run_case.h"

namespace dapo::ops {

/// Fails if an element is NaN or differs by more than tolerance * (|want| + rms(want) + terms); prints the NMSE and the
/// worst element.
inline void expect_close(const std::string& what, const Values& got, const Values& want, double tolerance,
                         const Values& terms = {}) {
  if (std::isinf(tolerance)) return;
  double squares = 0, error = 0, worst = -1;
  size_t at = 0;
  for (const double w : want) squares += w * w;
  const double rms = std::sqrt(squares / static_cast<double>(want.size()));
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(got[i]) && !std::isnan(want[i])) {
      ADD_FAILURE() << what << ": NaN at element " << i << " of " << want.size() << ", expected " << want[i];
      return;
    }
    const double e = std::abs(got[i] - want[i]),
                 relative = e / (std::abs(want[i]) + rms + (terms.empty() ? 1e-300 : terms[i]));
    error += e * e;
    if (relative > worst) worst = relative, at = i;
  }
  EXPECT_LE(worst, tolerance) << what << ": NMSE " << error / (squares + 1e-300) << ", worst element " << at << " of "
                              << want.size() << ": expected " << want[at] << ", got " << got[at];
}

class OpTest : public ::testing::TestWithParam<OpCase> {};

TEST_P(OpTest, EqualsReference) {
  const OpCase& c = GetParam();
  std::vector<Values> want = inputs_of(c);
  const std::vector<Values> got = decoded(c, run_case(test_backend(c.type), c, want));
  const Values terms = c.terms ? c.terms(want) : Values();
  c.reference(want);
  for (size_t i = 0; i < c.operands.size(); ++i) {
    const Operand& o = c.operands[i];
    if (o.role == Role::in) continue;
    expect_close(c.name() + ": " + o.name, got[i], want[i], o.tolerance(c.type), i == 0 ? terms : Values());
  }
}

TEST_P(OpTest, RepeatsItsBits) {
  const OpCase& c = GetParam();
  const std::vector<Values> in = inputs_of(c);
  const auto first = run_case(test_backend(c.type), c, in), second = run_case(test_backend(c.type), c, in);
  for (size_t i = 0; i < first.size(); ++i)
    EXPECT_TRUE(first[i] == second[i]) << c.name() << ": " << c.operands[i].name;
}

class OpTestGradient : public ::testing::TestWithParam<OpCase> {};

/// The cases that have a gradient in f32.
inline std::vector<OpCase> with_gradients(const std::vector<OpCase>& cases) {
  std::vector<OpCase> out;
  for (const OpCase& c : cases)
    if (!c.gradients.empty() && c.type == DType::f32) out.push_back(c);
  return out;
}

/// Central differences of the fp64 forward in random directions against the op's gradient in f32.
TEST_P(OpTestGradient, EqualsFiniteDifferences) {
  const OpCase& c = GetParam();
  std::vector<Values> in = inputs_of(c);
  const std::vector<Values> got = decoded(c, run_case(test_backend(c.type), c, in));
  std::mt19937 random(11);
  std::normal_distribution<double> normal;
  for (const auto& [x, g] : c.gradients) {
    const auto ix = static_cast<size_t>(x), ig = static_cast<size_t>(g);
    const bool adds = c.operands[ig].role == Role::inout;
    for (int repeat = 0; repeat < 2; ++repeat) {
      const Values at = in[ix];
      Values direction(at.size());
      double along = 0, norm = 0;
      for (size_t i = 0; i < at.size(); ++i) {
        direction[i] = normal(random);
        const double gradient = got[ig][i] - (adds ? in[ig][i] : 0);
        along += gradient * direction[i], norm += gradient * gradient;
      }
      const auto loss_at = [&](double h) {
        for (size_t i = 0; i < at.size(); ++i) in[ix][i] = at[i] + h * direction[i];
        return c.loss(in);
      };
      constexpr double h = 1e-5;
      const double expected = (loss_at(h) - loss_at(-h)) / (2 * h);
      in[ix] = at;
      // The error of an f32 gradient is about 1e-6 of its norm; a wrong term is of the order of the norm.
      EXPECT_NEAR(along, expected, 1e-4 * std::sqrt(norm) + 1e-6) << c.name() << ": d" << c.operands[ix].name;
    }
  }
}

inline std::string case_name(const ::testing::TestParamInfo<OpCase>& info) {
  std::string s = std::to_string(info.index) + "_" + info.param.name();
  for (char& ch : s)
    if (std::isalnum(static_cast<unsigned char>(ch)) == 0) ch = '_';
  return s;
}

}  // namespace dapo::ops
