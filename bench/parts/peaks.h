// How long something takes on a device, and the best rates of the device, which shares refer to.
#pragma once

#include <functional>
#include <string>

#include "bench/parts/bench_cases.h"

namespace dapo::bench {

/// Times body(), which issues `runs` runs of an op on different operands: on a GPU by events around replays of one
/// recorded graph, so that the host's launches are not timed; else by the host's clock.
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

/// Number of sets of operands: so many that a run finds nothing of the previous one in cache, within a limit on bytes.
int operand_sets(Backend& backend, const ops::OpCase& c);

struct Peaks {
  double copy = 0;             ///< bytes/s of device memory, by the best method (memory_how)
  double product[2] = {0, 0};  ///< flop/s of a large product in f32 and bf16: the best of the kinds below
  double own_product = 0, cublaslt_product = 0;  ///< bf16 (f32 on an f32 backend); 0: no library
  std::string memory_how, product_how;           ///< what was measured, for people
  std::string cublaslt_missing;                  ///< why
  double of(DType t) const { return product[t == DType::bf16]; }
};
/// Measures the memory's rate, if not known yet, and the product's rate in the backend's type; `peers`: by cuBLASLt
/// too. Afterwards the backend's choice of products is as before.
void measure_peaks(Backend& backend, Peaks& peaks, bool peers);
/// One line for people: the device and its rates.
std::string peaks_text(Backend& backend, const Peaks& peaks);

/// Makes all products of a GPU cuBLASLt's, or all our own kernels', until its destruction. Error if the library cannot
/// be used. No effect on a CPU.
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
/// Makes attention run by wgmma, or by mma.sync, until its destruction; the device must be Hopper.
class AttentionBy {
 public:
  AttentionBy(Backend& backend, bool wgmma);
  ~AttentionBy();
  AttentionBy(const AttentionBy&) = delete;
  AttentionBy& operator=(const AttentionBy&) = delete;

 private:
  Backend& backend_;
  int before_;
};
/// Whether it has both.
bool two_attentions(Backend& backend, int head_dim);
bool simulated(Backend& backend);

}  // namespace dapo::bench
