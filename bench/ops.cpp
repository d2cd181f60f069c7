// Every op of a backend from the table of cases that its tests use, at shapes of the toy and of Qwen2.5-0.5B: time, and
// GB/s or GFLOP/s beside the share of what this machine reaches in a plain copy and in a plain product (measured
// first).
//   bench_ops [--device cpu|cuda] [--benchmark_filter=REGEX] ...
#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdio>
#include <cstring>

#include "cpu/cpu_backend.h"
#include "tests/ops/cases.h"
#include "tests/ops/cases_attention.h"
#include "tests/ops/cases_head.h"

namespace dapo::ops {
namespace {

/// The one place that names devices.
std::unique_ptr<Backend> make_backend(const std::string& device, DType t) {
  if (device == "cpu") return make_cpu_backend(t);
  fail_input("--device {}: this build has cpu", device);
}

constexpr AttentionDims kToyHeads{4, 2, 32}, kHeads{14, 2, 64};

std::vector<OpCase> bench_cases(DType T) {
  std::vector<OpCase> all;
  const auto add = [&all](const char* model, OpCase c) {
    c.shape = std::string(model) + "/" + c.shape;
    all.push_back(std::move(c));
  };
  struct Model {
    const char* name;
    int64_t N, C, F, V, B;
    AttentionDims heads;
    std::vector<Segment> pack, decode;
  };
  const Model models[] = {
      {"toy", 2048, 128, 384, 128, 64, kToyHeads, groups_of(4, 32, 15, 32), groups_of(8, 32, 8, 1)},
      {"0.5B", 2048, 896, 4864, 151936, 32, kHeads, groups_of(2, 256, 4, 192), groups_of(4, 256, 8, 1)}};
  for (const Model& m : models) {
    add(m.name, embedding_case(T, m.N, m.V, m.C, 0)), add(m.name, embedding_backward_case(T, m.N, m.V, m.C));
    add(m.name, gather_rows_case(T, DType::f32, m.N, m.N, m.C)), add(m.name, sum_rows_case(T, m.N, m.N, m.C));
    for (const int64_t n : {m.B, m.N}) {
      add(m.name, rmsnorm_case(T, n, m.C, true)), add(m.name, swiglu_case(T, n, m.F));
      add(m.name, rope_case(T, n, m.heads, false));
    }
    add(m.name, rmsnorm_backward_case(T, m.N, m.C)), add(m.name, swiglu_backward_case(T, m.N, m.F, true));
    struct Weight {
      int64_t o, i;
    };
    for (const auto& [o, i] : {Weight{m.heads.qkv_width(), m.C}, {m.C, m.C}, {2 * m.F, m.C}, {m.C, m.F}}) {
      for (const int64_t n : {int64_t{1}, m.B, m.N}) add(m.name, matmul_case(T, n, o, i, false));
      add(m.name, matmul_backward_input_case(T, m.N, o, i));
      add(m.name, matmul_backward_weight_case(T, m.N, o, i, false));
    }
    add(m.name, attention_case(T, m.pack, m.heads)), add(m.name, attention_backward_case(T, m.pack, m.heads));
    add(m.name, paged_attention_case(T, m.decode, m.heads, 64));
    const int64_t rows = m.V > 1000 ? 512 : m.N;
    add(m.name, lm_logprob_case(T, rows, m.V, m.C, 1.0f, true));
    add(m.name, lm_dapo_case(T, rows, m.V, m.C, 1.0f, false));
    add(m.name, lm_sample_case(T, m.B, m.V, m.C, {1.0f, 0, 1.0f, 0.0f, 1}));
    add(m.name, lm_sample_case(T, m.B, m.V, m.C, {1.0f, 50, 0.95f, 0.0f, 1}));
    add(m.name, adamw_case(T, m.C * m.F * 4, 1.0, 10, 1.0f));
  }
  if (T == DType::f32) {
    add("0.5B", sum_of_squares_case(16 << 20)), add("0.5B", cast_case(DType::bf16, T, 16 << 20));
    add("toy", increment_case(256));
  }
  return all;
}

/// A case's tensors on the device, and its workspace; numbers are a repeated run of random ones, never zeros.
class Setup {
 public:
  Setup(Backend& b, const OpCase& c) : backend_(b), bytes_(b.workspace_bytes(c.needs)) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> some(4099);
    for (float& x : some) x = normal(random);
    for (const Operand& o : c.operands) {
      Tensor t;
      t.dtype = o.dtype, t.rank = static_cast<int>(o.shape.size());
      std::copy(o.shape.begin(), o.shape.end(), t.shape.begin());
      t.data = b.allocate(t.bytes());
      std::vector<char> host(t.bytes());
      const auto count = static_cast<size_t>(o.numel());
      for (size_t i = 0; i < count; ++i) {
        const double x = o.preset.empty() ? some[i % some.size()] * o.scale + o.offset : o.preset[i];
        put(host.data(), o.dtype, i, std::strcmp(o.name, "v") == 0 ? x * x : x);  // a second moment is not negative
      }
      b.copy_in(t, host.data());
      b.synchronize();
      tensors.push_back(t);
    }
    memory_ = b.allocate(bytes_);
    arena_ = std::make_unique<Arena>("workspace", memory_, bytes_);
    b.set_workspace(arena_.get());
  }
  ~Setup() {
    for (const Tensor& t : tensors) backend_.release(t.data, t.bytes());
    backend_.release(memory_, bytes_);
    backend_.set_workspace(nullptr);
  }
  Setup(const Setup&) = delete;
  Setup& operator=(const Setup&) = delete;

  std::vector<Tensor> tensors;

 private:
  static void put(char* host, DType t, size_t i, double x) {
    const auto write = [&](auto v) { std::memcpy(host + i * sizeof v, &v, sizeof v); };
    switch (t) {
      case DType::f32:
        return write(static_cast<float>(x));
      case DType::bf16:
        return write(to_bf16(static_cast<float>(x)));
      case DType::f64:
        return write(x);
      case DType::i32:
        return write(static_cast<int32_t>(x));
      case DType::i16:
        return write(static_cast<int16_t>(x));
      case DType::u8:
        return write(static_cast<uint8_t>(x));
    }
  }
  Backend& backend_;
  size_t bytes_;
  void* memory_;
  std::unique_ptr<Arena> arena_;
};

struct Peaks {
  double copy = 0, product[2] = {0, 0};  ///< bytes/s; flop/s in f32 and bf16
};

/// Best of several runs, seconds.
template <class Body>
double best_seconds(Backend& b, Body body) {
  double best = 1e9;
  for (int i = 0; i < 12; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    b.synchronize();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

double product_peak(Backend& b) {
  const OpCase c = matmul_case(b.dtype(), 1024, 1024, 1024, false);
  const Setup s(b, c);
  return c.flops / best_seconds(b, [&] { c.run(b, s.tensors); });
}
double copy_peak(Backend& b) {
  const int64_t bytes = int64_t{256} << 20;
  const Tensor from(b.allocate(bytes), DType::u8, {bytes}), to(b.allocate(bytes), DType::u8, {bytes});
  b.zero(from);
  const double rate = 2.0 * static_cast<double>(bytes) / best_seconds(b, [&] { b.copy(to, from); });
  b.release(from.data, from.bytes()), b.release(to.data, to.bytes());
  return rate;
}

void run_benchmark(benchmark::State& state, Backend& b, const OpCase& c, const Peaks& peaks) {
  const Setup s(b, c);
  c.run(b, s.tensors);
  b.synchronize();
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) {
    c.run(b, s.tensors);
    b.synchronize();
  }
  const double all = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double seconds = all / static_cast<double>(state.iterations());
  state.counters["GB/s"] = c.bytes / seconds * 1e-9;
  state.counters["%copy"] = 100 * c.bytes / seconds / peaks.copy;
  if (c.flops > 0) {
    state.counters["GFLOP/s"] = c.flops / seconds * 1e-9;
    state.counters["%product"] = 100 * c.flops / seconds / peaks.product[c.type == DType::bf16];
  }
}

int run(int argc, char** argv) {
  std::string device = "cpu";
  std::vector<char*> rest{argv[0]};
  for (int i = 1; i < argc; ++i)
    if (std::strcmp(argv[i], "--device") == 0 && i + 1 < argc)
      device = argv[++i];
    else
      rest.push_back(argv[i]);
  int count = static_cast<int>(rest.size());
  benchmark::Initialize(&count, rest.data());
  if (benchmark::ReportUnrecognizedArguments(count, rest.data())) return kExitUsage;

  Peaks peaks;
  std::vector<std::unique_ptr<Backend>> backends;
  std::vector<OpCase> cases;
  for (const DType t : {DType::f32, DType::bf16}) {
    if (t == DType::bf16 && device == "cpu" && !cpu_has_bf16()) continue;
    backends.push_back(make_backend(device, t));
    Backend& b = *backends.back();
    if (t == DType::f32) peaks.copy = copy_peak(b);
    peaks.product[t == DType::bf16] = product_peak(b);
    std::printf("%s: copy %.1f GB/s, product %.0f GFLOP/s\n", b.describe().c_str(), peaks.copy * 1e-9,
                peaks.product[t == DType::bf16] * 1e-9);
    for (OpCase& c : bench_cases(t)) cases.push_back(std::move(c));
  }
  for (const OpCase& c : cases) {
    Backend& b = *backends[backends.size() > 1 && c.type == DType::bf16 ? 1 : 0];
    benchmark::RegisterBenchmark(c.name().c_str(), [&](benchmark::State& s) { run_benchmark(s, b, c, peaks); })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  }
  benchmark::RunSpecifiedBenchmarks();
  return kExitOk;
}

}  // namespace
}  // namespace dapo::ops

int main(int argc, char** argv) {
  try {
    return dapo::ops::run(argc, argv);
  } catch (const dapo::Error& e) {
    std::fprintf(stderr, "bench_ops: %s\n", e.what());
    return e.code();
  }
}
