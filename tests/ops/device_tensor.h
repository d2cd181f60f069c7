// The backend under test, tensors on it, and a statistic for tests of draws.
#pragma once

#include "tests/ops/run_case.h"

namespace dapo::ops {

/// The backend under test; defined by the program.
Backend& test_backend(DType t);
std::vector<DType> tested_types();
/// Whether the tests of properties use fewer shapes of the same kinds (the simulator).
bool slow_device();

/// A device tensor that owns its memory.
class Device1 {
 public:
  Device1(Backend& b, DType t, std::vector<int64_t> shape, const Values& contents = {}) : memory_(b, t, shape) {
    const size_t count = memory_.tensor.numel();
    memory_.fill(encode(t, contents.empty() ? Values(count, 0.0) : contents).data());
  }
  operator const Tensor&() const { return memory_.tensor; }
  const Tensor& tensor() const { return memory_.tensor; }
  std::vector<std::byte> bytes() const { return memory_.read("tensor"); }
  Values values() const {
    return decode(memory_.tensor.dtype, bytes().data(), static_cast<size_t>(memory_.tensor.numel()));
  }

 private:
  Guarded memory_;
};

inline Values random_values(int64_t n, DType t, double scale = 1, unsigned seed = 5) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Values v(n);
  for (double& x : v) x = round_to(t, normal(random) * scale);
  return v;
}

/// Chi-square of counts against probabilities, as a standard normal deviate (Wilson-Hilferty); rare tokens pooled.
inline double chi_square_deviate(const Values& counts, const Values& prob) {
  double draws = 0, statistic = 0, rest_count = 0, rest_prob = 0;
  for (const double c : counts) draws += c;
  int cells = 0;
  const auto cell = [&](double count, double p) {
    statistic += (count - draws * p) * (count - draws * p) / (draws * p);
    ++cells;
  };
  for (size_t i = 0; i < counts.size(); ++i)
    if (draws * prob[i] >= 8)
      cell(counts[i], prob[i]);
    else
      rest_count += counts[i], rest_prob += prob[i];
  if (draws * rest_prob >= 8) cell(rest_count, rest_prob);
  const double k = cells - 1;
  if (k < 1) return 0;
  return (std::cbrt(statistic / k) - (1 - 2 / (9 * k))) / std::sqrt(2 / (9 * k));
}

}  // namespace dapo::ops
