// How long something takes on a device, and what the device reaches at best: against these a share is stated.
#pragma once

#include <functional>
#include <string>

#include "bench/parts/cases.h"

namespace dapo::bench {

/// Times body(), which issues `runs` runs of an op on different operands: on the GPU's clock by events round replays of
/// one recorded graph, so that the host's launches are not timed; on the CPU's clock otherwise.
class OpClock {
 public:
  /// Repeats body() so often that a sample takes about `least` seconds.
  OpClock(Backend& backend, int runs, std::function<void()> body, double least);
  ~OpClock();
  double sample();  ///< seconds of one run

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
double median(std::vector<double> values);
/// The median of an OpClock's samples.
double median_seconds(Backend& backend, int runs, std::function<void()> body, double least, int samples);

/// Sets of operands so that a run finds nothing of the run before in cache, and the case's bytes stay reasonable.
int operand_sets(Backend& backend, const ops::OpCase& c);

struct Peaks {
  double copy = 0;             ///< bytes/s of device memory: the best of the ways in memory_how
  double product[2] = {0, 0};  ///< flop/s of a large product in f32 and bf16: the best of the kinds below
  double own_product = 0, cublaslt_product = 0;  ///< bf16 (f32 where the backend is); the library's 0: not there
  std::string memory_how, product_how;           ///< what was measured, for people
  std::string cublaslt_missing;                  ///< why
  double of(DType t) const { return product[t == DType::bf16]; }
};
/// Memory's rate where it is not yet known, and the product's rate in the backend's type. `peers`: by cuBLASLt too.
/// What the backend's products run by is as before afterwards.
void measure_peaks(Backend& backend, Peaks& peaks, bool peers);
/// One line for people: the device and what it reached.
std::string peaks_text(Backend& backend, const Peaks& peaks);

/// While one lives, products on a GPU are all cuBLASLt's, or all of the own kernels; then as before. Error where the
/// library cannot be used. Nothing on a CPU.
class ProductsBy {
 public:
  enum Kind { own, library };
  ProductsBy(Backend& backend, Kind kind);
  ~ProductsBy();
  ProductsBy(const ProductsBy&) = delete;
  ProductsBy& operator=(const ProductsBy&) = delete;

 private:
  Backend& backend_;
  int before_ = 0;
};
bool simulated(Backend& backend);

}  // namespace dapo::bench
