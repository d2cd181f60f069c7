#include "bench/parts/peaks.h"

#include <algorithm>
#include <utility>

#include "core/progress.h"

#ifdef DAPO_CUDA
#include "cuda/probe.h"
#endif

namespace dapo::bench {
namespace {

#ifndef DAPO_CUDA
/// A build without CUDA has no backend that would need one.
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
enum class CudaProducts { own, cublaslt };
CudaProducts cuda_products(Backend&) {
  return CudaProducts::own;
}
void set_cuda_products(Backend&, CudaProducts) {}
enum class CudaAttention { mma, wgmma };
CudaAttention cuda_attention(Backend&) {
  return CudaAttention::mma;
}
void set_cuda_attention(Backend&, CudaAttention) {}
bool cuda_has_wgmma_attention(Backend&, int) {
  return false;
}
struct CudaMemoryRates {
  double copy, read;
};
CudaMemoryRates cuda_memory_rates(Backend&, void*, const void*, size_t) {
  return {};
}
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
  if (device_ != nullptr) timed(times_);  // the device was idle during the check, its clocks low
}
OpClock::~OpClock() {
  try {
    backend_.synchronize();
  } catch (const Error&) {  // thrown before, where it occurred
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
  all.reserve(samples);
  for (int i = 0; i < samples; ++i) all.push_back(clock.sample());
  return median(std::move(all));
}

int operand_sets(Backend& backend, const ops::OpCase& c) {
  if (!on_gpu(backend)) return 1;
  if (simulated(backend)) return 2;
  // Twice the cache between two uses of an operand; 6 GB at most, 100 runs at most.
  const double apart = 2.0 * cuda_l2_bytes(backend), whole = Operands::bytes(c);
  const double wanted = std::ceil(apart / std::max(c.bytes, 1.0)) + 1, fits = std::floor(6e9 / std::max(whole, 1.0));
  return static_cast<int>(std::clamp(std::min(wanted, fits), 1.0, 100.0));
}

namespace {

/// Two buffers that leave memory for others; the best of a copy by the runtime and, on a GPU, by kernels.
void measure_memory(Backend& b, Peaks& peaks, double least) {
  const bool gpu = on_gpu(b);
  const size_t wanted = simulated(b) ? size_t{1} << 20 : gpu ? size_t{4} << 30 : size_t{256} << 20;
  const size_t bytes = std::min(wanted, b.memory_available() / 4 / 4096 * 4096);
  struct Buffer {
    Backend& b;
    size_t bytes;
    void* data;
    ~Buffer() { b.release(data, bytes); }
  };
  const Buffer from{b, bytes, b.allocate(bytes)}, to{b, bytes, b.allocate(bytes)};
  const auto tensor = [&](const Buffer& x) { return Tensor(x.data, DType::u8, {static_cast<int64_t>(bytes)}); };
  const double copy = 2.0 * bytes /
                      median_seconds(
                          b, 1, [&] { b.copy(tensor(to), tensor(from)); }, least, 5);
  peaks.copy = copy;
  peaks.memory_how = fmt::format("copy {:.0f}", copy * 1e-9);
  if (gpu) {
    const CudaMemoryRates kernels = cuda_memory_rates(b, to.data, from.data, bytes);
    peaks.copy = std::max({copy, kernels.copy, kernels.read});
    peaks.memory_how = fmt::format("memcpy {:.0f}, a kernel's copy {:.0f}, its sum {:.0f}", copy * 1e-9,
                                   kernels.copy * 1e-9, kernels.read * 1e-9);
  }
  peaks.memory_how += fmt::format("; {:.2f} GB each", bytes * 1e-9);
}

}  // namespace

void measure_peaks(Backend& b, Peaks& peaks, bool peers) {
  const bool gpu = on_gpu(b), small = simulated(b);
  const double least = gpu ? 0.02 : 0.05;
  if (peaks.copy == 0) measure_memory(b, peaks, least);
  struct Shape {
    int64_t m, n, k;
  };
  std::vector<Shape> shapes{small ? Shape{64, 64, 64} : gpu ? Shape{8192, 8192, 8192} : Shape{1024, 1024, 1024}};
  const auto rate = [&](const Shape& s) {
    const BenchCase c = product_case(b.dtype(), s.m, s.n, s.k);
    const Operands o(b, c.op, 1);
    return c.op.flops / median_seconds(
                            b, 1, [&] { c.op.run(b, o.set(0)); }, least, 5);
  };
  const auto text = [](const Shape& s, double r) {
    return fmt::format("{:.1f} GFLOP/s at {} x {} x {}", r * 1e-9, s.m, s.n, s.k);
  };
  {
    const ProductsBy own(b, ProductsBy::own);
    peaks.own_product = rate(shapes[0]);
    peaks.product_how = text(shapes[0], peaks.own_product);
  }
  if (gpu && peers) try {
      const ProductsBy library(b, ProductsBy::library);
      if (!small) shapes.insert(shapes.end(), {{4096, 37888, 3584}, {16384, 9728, 896}, {8192, 3584, 18944}});
      Shape best = shapes[0];
      for (const Shape& s : shapes) {
        const WeightShape weight{s.n, s.k, false, false};
        b.prepare_products({&weight, 1}, s.m);  // an algorithm for this m
        if (const double r = rate(s); r > peaks.cublaslt_product) peaks.cublaslt_product = r, best = s;
      }
      peaks.product_how += " by own kernels, " + text(best, peaks.cublaslt_product) +
                           fmt::format(" by cuBLASLt (best of {} shapes)", shapes.size());
    } catch (const Error& e) {
      peaks.cublaslt_missing = e.what();
      peaks.product_how += " by own kernels; no cuBLASLt: " + peaks.cublaslt_missing;
    }
  peaks.product[b.dtype() == DType::bf16] = std::max(peaks.own_product, peaks.cublaslt_product);
}

std::string peaks_text(Backend& b, const Peaks& p) {
  return fmt::format("{}; memory {:.1f} GB/s (best of {}); product {}", b.describe(), p.copy * 1e-9, p.memory_how,
                     p.product_how);
}

ProductsBy::ProductsBy(Backend& backend, Kind kind) : backend_(backend) {
  if (!on_gpu(backend)) return;
  before_ = static_cast<int>(cuda_products(backend));
  set_cuda_products(backend, kind == library ? CudaProducts::cublaslt : CudaProducts::own);
}
ProductsBy::~ProductsBy() {
  if (on_gpu(backend_)) set_cuda_products(backend_, static_cast<CudaProducts>(before_));
}
AttentionBy::AttentionBy(Backend& backend, bool wgmma)
    : backend_(backend), before_(static_cast<int>(cuda_attention(backend))) {
  set_cuda_attention(backend, wgmma ? CudaAttention::wgmma : CudaAttention::mma);
}
AttentionBy::~AttentionBy() {
  set_cuda_attention(backend_, static_cast<CudaAttention>(before_));
}
bool two_attentions(Backend& b, int head_dim) {
  return on_gpu(b) && cuda_has_wgmma_attention(b, head_dim);
}
bool simulated(Backend& b) {
  return on_gpu(b) && cuda_simulated();
}

}  // namespace dapo::bench
