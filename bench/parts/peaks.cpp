#include "bench/parts/peaks.h"

#include <algorithm>
#include <utility>

#include "host/phases.h"

#ifdef DAPO_CUDA
#include "cuda/probe.h"
#endif

namespace dapo::bench {
namespace {

#ifndef DAPO_CUDA
/// A build without CUDA makes no backend that would need one.
class CudaClock {
 public:
  explicit CudaClock(Backend&) {}
  void start() {}
  void stop() {}
  double seconds() { return 0; }
};
size_t cuda_l2_bytes(Backend&) {
  return 0;
}
bool cuda_simulated() {
  return false;
}
void cuda_library_products(Backend&, bool) {}
#endif

bool on_gpu(Backend& b) {
  return b.device() == Device::cuda;
}

}  // namespace

struct OpClock::Device {
  CudaClock clock;
  explicit Device(Backend& b) : clock(b) {}
};

OpClock::OpClock(Backend& backend, int runs, std::function<void()> body, double least)
    : backend_(backend), runs_(runs), body_(std::move(body)) {
  static uint64_t keys = uint64_t{0x62656e63} << 32;
  key_ = ++keys;
  if (on_gpu(backend)) device_ = std::make_unique<Device>(backend);
  issue(2);  // warms up, and records
  if (simulated(backend)) return;
  const double once = timed(1);
  times_ = static_cast<int>(std::clamp(least / std::max(once, 1e-9), 1.0, 10000.0));
  if (device_ != nullptr) timed(times_);  // the check before left the device idle, its clocks low
}
OpClock::~OpClock() {
  try {
    backend_.synchronize();
  } catch (const Error&) {  // was thrown before, where it was met
  }
}

void OpClock::issue(int times) {
  for (int i = 0; i < times; ++i)
    if (device_ != nullptr)
      backend_.replayable(key_, body_);
    else
      body_();
}

double OpClock::timed(int times) {
  backend_.synchronize();
  if (device_ == nullptr) {
    const Stopwatch watch;
    issue(times);
    backend_.synchronize();
    return watch.seconds();
  }
  device_->clock.start();
  issue(times);
  device_->clock.stop();
  return device_->clock.seconds();
}

double OpClock::sample() {
  return timed(times_) / times_ / runs_;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double median_seconds(Backend& backend, int runs, std::function<void()> body, double least, int samples) {
  OpClock clock(backend, runs, std::move(body), least);
  std::vector<double> all;
  for (int i = 0; i < samples; ++i) all.push_back(clock.sample());
  return median(std::move(all));
}

int operand_sets(Backend& backend, const ops::OpCase& c) {
  if (!on_gpu(backend)) return 1;
  if (simulated(backend)) return 2;
  // Twice the cache between two uses of an operand; 6 GB at most, 100 runs at most.
  const double apart = 2.0 * static_cast<double>(cuda_l2_bytes(backend)),
               whole = static_cast<double>(Operands::bytes(c));
  const double wanted = std::ceil(apart / std::max(c.bytes, 1.0)) + 1, fits = std::floor(6e9 / std::max(whole, 1.0));
  return static_cast<int>(std::clamp(std::min(wanted, fits), 1.0, 100.0));
}

void measure_peaks(Backend& b, Peaks& peaks, bool peers) {
  const bool gpu = on_gpu(b), small = simulated(b);
  const double least = gpu ? 0.02 : 0.05;
  if (peaks.copy == 0) {
    const int64_t bytes = small ? 1 << 20 : gpu ? int64_t{1} << 30 : int64_t{256} << 20;
    ops::OpCase c{"copy", "", b.dtype()};
    c.out("to", DType::bf16, {bytes / 2}, 0, 0), c.in("from", DType::bf16, {bytes / 2});
    const Operands o(b, c, 1);
    peaks.copy = 2.0 * static_cast<double>(bytes) /
                 median_seconds(
                     b, 1, [&] { b.copy(o.set(0)[0], o.set(0)[1]); }, least, 5);
  }
  const int64_t size = small ? 64 : gpu ? 8192 : 1024;
  const BenchCase c = product_case(b.dtype(), size, size, size);
  const Operands o(b, c.op, 1);
  const auto rate = [&] {
    return c.op.flops / median_seconds(
                            b, 1, [&] { c.op.run(b, o.set(0)); }, least, 5);
  };
  peaks.own_product = rate();
  if (gpu && peers) try {
      const LibraryProducts library(b);
      peaks.cublaslt_product = rate();
    } catch (const Error& e) {
      peaks.cublaslt_missing = e.what();
    }
  peaks.product[b.dtype() == DType::bf16] = std::max(peaks.own_product, peaks.cublaslt_product);
}

std::string peaks_text(Backend& b, const Peaks& p) {
  std::string text = fmt::format("{}; copy {:.1f} GB/s", b.describe(), p.copy * 1e-9);
  text += fmt::format("; product {:.1f} GFLOP/s", p.own_product * 1e-9);
  if (!on_gpu(b)) return text;
  if (p.cublaslt_product > 0)
    return text + fmt::format(" by ours, {:.1f} by cuBLASLt (one algorithm for every m)", p.cublaslt_product * 1e-9);
  return text + " by ours" + (p.cublaslt_missing.empty() ? "" : "; no cuBLASLt beside it: " + p.cublaslt_missing);
}

LibraryProducts::LibraryProducts(Backend& cuda) : backend_(cuda) {
  cuda_library_products(backend_, true);
}
LibraryProducts::~LibraryProducts() {
  cuda_library_products(backend_, false);
}
bool simulated(Backend& b) {
  return on_gpu(b) && cuda_simulated();
}

}  // namespace dapo::bench
