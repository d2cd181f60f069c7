// How long something takes on a device, and what the device reaches at best: against these a share is stated.
#pragma once

#include <functional>
#include <string>

#include "bench/parts/cases.h"

namespace dapo::bench {

/// Seconds of body(), which issues `runs` runs of an op on different operands: on the GPU's clock by events round
/// replays of one recorded graph, so that the host's launches are not timed; on the CPU's clock otherwise. Replays so
/// often that a sample takes about `least` seconds; the result is a run's, the median of `samples`.
class OpClock {
 public:
  OpClock(Backend& backend, int runs, std::function<void()> body, double least);
  ~OpClock();
  double sample();

 private:
  struct Device;
  void issue(int times);
  double timed(int times);
  Backend& backend_;
  int runs_, times_ = 1;
  uint64_t key_;
  std::function<void()> body_;
  std::unique_ptr<Device> device_;
};
double median_seconds(Backend& backend, int runs, std::function<void()> body, double least, int samples);

/// Sets of operands so that a run finds nothing of the run before in cache, and the case's bytes stay reasonable.
int operand_sets(Backend& backend, const ops::OpCase& c);

struct Peaks {
  double copy = 0;             ///< bytes/s of a large copy on the device, read and written
  double product[2] = {0, 0};  ///< flop/s of a large product in f32 and bf16: the best of the kinds below
  double own_product = 0, cublaslt_product = 0;  ///< bf16 (f32 where the backend is); the library's 0: not there
  std::string cublaslt_missing;                  ///< why
  double of(DType t) const { return product[t == DType::bf16]; }
};
void measure_peaks(Backend& backend, Peaks& peaks, bool small, bool peers);

/// Adds to each value that a Peaks holds a line for people.
std::string peaks_text(Backend& backend, const Peaks& peaks);

// Whether products by cuBLASLt can be had; switches between them and ours. No-ops without CUDA.
bool has_library_products(Backend& backend, std::string* why);
void use_library_products(Backend& backend, bool on);
bool simulated(Backend& backend);

}  // namespace dapo::bench
