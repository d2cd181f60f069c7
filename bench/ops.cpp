// Every op of a backend at the shapes of a toy and of Qwen2.5-0.5B, 1.5B, 7B and 32B, from the table of cases that its
// tests use: milliseconds, GB/s and TFLOP/s, their share of the rates of a plain copy and a large product on this
// machine (measured first), the number of sampled elements that differ from fp64, and the time of the libraries that do
// the same work: cuBLASLt's products (against our own kernels), cuDNN's fused attention. On Hopper each
// pass of attention also runs by our kernels of either kind (attention_mma, attention_wgmma, attention_backward_...).
//
//   bench_ops [--device cpu|cuda] [--shape toy,0.5b,1.5b,7b,32b] [--quick] [--no-peers] [--markdown FILE]
//             [--benchmark_filter=REGEX] [--benchmark_out=FILE.json] [--benchmark_...]
//
// On a GPU: device time, from events around replays of a graph of up to 100 runs on different operands, so many that
// twice the L2 cache lies between two uses of one; operands are normal random numbers, outputs start as NaN. A case's
// time is the median of its samples. Exit 4 if an element is wrong; 70 if a case failed.
#include <benchmark/benchmark.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <optional>

#include "bench/parts/cudnn_attention.h"
#include "bench/parts/peaks.h"
#include "bench/parts/write_file.h"
#include "cpu/cpu_backend.h"
#include "host/app/backends.h"
#include "host/app/report_error.h"

namespace dapo::bench {
namespace {

struct Options {
  std::string device = "cpu", markdown;
  std::vector<std::string> shapes;
  bool quick = false, no_peers = false;
  std::vector<std::string> rest;  ///< Google Benchmark's
};

struct Result {
  std::string shape, op, dims;
  double seconds = 0, bytes = 0, flops = 0, peer = 0;
  const char* peer_name = "";
  DType type;
  Verdict verdict;
};

struct Run {
  Options options;
  Peaks peaks;
  std::string head;  ///< what was measured first, for people
  bool cublaslt = false, cudnn = false;
  std::vector<Result> results;
  std::vector<std::string> failures, notes;  ///< ours; the libraries'
  int samples() const { return options.quick ? 3 : 7; }
  double least() const { return options.quick ? 4e-3 : 10e-3; }
};

/// Seconds of the library that does the same work; 0: none does, or none is used. `body` runs the op on each set.
double peer_seconds(Run& run, Backend& b, const BenchCase& c, const Operands& operands,
                    const std::function<void()>& body, Result& r) {
  try {
    if (c.product && run.cublaslt) {
      r.peer_name = "cuBLASLt";
      const ProductsBy library(b, ProductsBy::library);
      return median_seconds(b, operands.sets(), body, run.least(), run.samples());
    }
    if (c.sequences && run.cudnn) {
      r.peer_name = "cuDNN";
      CudnnAttention library(b, *c.sequences);
      const auto theirs = [&] {
        for (int i = 0; i < operands.sets(); ++i) {
          const std::vector<Tensor>& t = operands.set(i);
          if (c.sequences->backward)
            library.backward(t[0], t[1], t[2], t[3]);
          else
            library.forward(t[0], t[2]);
        }
      };
      if (c.sequences->backward) library.forward(operands.set(0)[3], operands.set(0)[2]);
      return median_seconds(b, operands.sets(), theirs, run.least(), run.samples());
    }
  } catch (const Error& e) {
    run.notes.push_back(fmt::format("{} by {}: {}", c.name(), r.peer_name, e.what()));
  }
  return 0;
}

/// Rewritten after each case, so that the measurements survive any end of the program.
void write_markdown(const Run& run) {
  if (run.options.markdown.empty()) return;
  const Options& o = run.options;
  std::string out = fmt::format(
      "# Ops\n\n{}\n`bench_ops --device {}{}{}{}`\n\n"
      "Bytes and FLOPs are the algorithm's (every operand once); shares are of the copy and of the product above. "
      "limit: the least time that bytes and FLOPs allow, over the time. "
      "wrong: elements that differ from fp64 by more than the tolerance of the op's tests, of those compared. "
      "The last columns: the library's time, and ours over it.\n",
      run.head, o.device, o.quick ? " --quick" : "", o.shapes.empty() ? "" : " --shape ", fmt::join(o.shapes, ","));
  std::string shape;
  for (const Result& r : run.results) {
    if (r.shape != shape) {
      shape = r.shape;
      out += fmt::format(
          "\n## {}\n\n"
          "| op | shape | ms | GB/s | of copy | TFLOP/s | of product | of limit | wrong | library ms | ours / its |\n"
          "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
          shape);
    }
    const double floor = std::max(r.bytes / run.peaks.copy, r.flops / run.peaks.of(r.type));
    out += fmt::format("| {} | {} | {:.4f} | {:.0f} | {:.0f} % |", r.op, r.dims, r.seconds * 1e3,
                       r.bytes / r.seconds * 1e-9, 100 * r.bytes / r.seconds / run.peaks.copy);
    if (r.flops > 0)
      out += fmt::format(" {:.2f} | {:.1f} % |", r.flops / r.seconds * 1e-12,
                         100 * r.flops / r.seconds / run.peaks.of(r.type));
    else
      out += " | |";
    out += fmt::format(" {:.0f} % | {} / {} |", 100 * floor / r.seconds, r.verdict.wrong, r.verdict.sampled);
    if (r.peer > 0)
      out += fmt::format(" {} {:.4f} | {:.2f} |\n", r.peer_name, r.peer * 1e3, r.seconds / r.peer);
    else
      out += " | |\n";
  }
  const auto list = [&out](const char* title, const std::vector<std::string>& lines) {
    if (!lines.empty()) out += fmt::format("\n## {}\n\n- {}\n", title, fmt::join(lines, "\n- "));
  };
  list("Failed", run.failures);
  list("Libraries that failed", run.notes);
  write_file(o.markdown, out);
}

void measure(benchmark::State& state, Run& run, Backend& b, const BenchCase& c, const std::string& shape) {
  Result r;
  r.shape = shape, r.op = c.op.op, r.dims = c.op.shape.substr(shape.size() + 1), r.type = c.op.type;
  r.bytes = c.op.bytes, r.flops = c.op.flops;
  try {
    Operands operands(b, c.op, operand_sets(b, c.op));
    for (int i = 0; i < operands.sets() && c.prepare; ++i) c.prepare(b, operands.set(i));
    r.verdict = check_case(b, c, operands);
    const auto body = [&] {
      for (int i = 0; i < operands.sets(); ++i) c.op.run(b, operands.set(i));
    };
    std::vector<double> samples;
    {
      // Our side of a comparison with the library is the own kernels; other ops run as they do in a model.
      std::optional<ProductsBy> own;
      if (c.product) own.emplace(b, ProductsBy::own);
      OpClock clock(b, operands.sets(), body, run.least());
      for ([[maybe_unused]] auto _ : state) {
        samples.push_back(clock.sample());
        state.SetIterationTime(samples.back());
      }
    }
    r.seconds = median(samples);
    r.peer = peer_seconds(run, b, c, operands, body, r);
  } catch (const Error& e) {
    run.failures.push_back(fmt::format("{}: {}", c.name(), e.what()));
    state.SkipWithError(e.what());
    return;
  }
  auto& counters = state.counters;
  counters["median_us"] = r.seconds * 1e6;
  counters["GB/s"] = r.bytes / r.seconds * 1e-9;
  counters["%copy"] = 100 * r.bytes / r.seconds / run.peaks.copy;
  if (r.flops > 0) {
    counters["GFLOP/s"] = r.flops / r.seconds * 1e-9;
    counters["%product"] = 100 * r.flops / r.seconds / run.peaks.of(r.type);
  }
  counters["sampled"] = r.verdict.sampled;
  counters["wrong"] = r.verdict.wrong;
  if (r.peer > 0) counters["peer_us"] = r.peer * 1e6;
  if (r.verdict.wrong > 0) state.SetLabel("WRONG " + r.verdict.worst);
  run.results.push_back(std::move(r));
  write_markdown(run);
}

std::vector<std::string> shapes_of(const Options& o, Device device) {
  if (!o.shapes.empty()) return o.shapes;
  if (device == Device::cpu) return {"toy", "0.5b"};
  if (o.quick) return {"0.5b", "7b"};
  return {"0.5b", "1.5b", "7b", "32b"};
}

/// Attention by each of the kernels that its choice has; empty for other ops and devices.
std::vector<BenchCase> by_each_kernel(Backend& b, const BenchCase& c) {
  std::vector<BenchCase> all;
  const bool has_choice = c.op.op == "attention" || c.op.op == "attention_backward";
  if (!has_choice || c.op.type != DType::bf16 || !two_attentions(b, c.op.needs.attention.head_dim)) return all;
  for (const bool wgmma : {false, true}) {
    BenchCase k = c;
    k.op.op += wgmma ? "_wgmma" : "_mma";
    k.op.run = [run = c.op.run, wgmma](Backend& on, const std::vector<Tensor>& t) {
      const AttentionBy kernel(on, wgmma);
      run(on, t);
    };
    all.push_back(std::move(k));
  }
  return all;
}

int run(const Options& options, char* program) {
  Run run;
  run.options = options;
  std::vector<std::string> texts = options.rest;
  std::vector<char*> arguments{program};
  for (std::string& s : texts) arguments.push_back(s.data());
  int count = arguments.size();
  benchmark::Initialize(&count, arguments.data());
  if (count > 1) fail_input("{}: not known; see --help", arguments[1]);

  // On a GPU only bf16 is timed: the f32 kernels are for tests.
  std::vector<DType> types{DType::bf16};
  if (options.device == "cpu") types = {DType::f32};
  if (options.device == "cpu" && cpu_has_bf16()) types.push_back(DType::bf16);
  std::vector<std::unique_ptr<Backend>> backends;
  struct Entry {
    std::string shape;
    BenchCase c;
    Backend* backend;
  };
  std::vector<Entry> entries;
  for (const DType t : types) {
    backends.push_back(make_backend(options.device, dtype_name(t)).backend);
    Backend& b = *backends.back();
    std::vector<BenchShape> shapes;
    for (const std::string& name : shapes_of(options, b.device()))
      shapes.push_back(bench_shape(name, b.device(), options.quick));
    const bool peers = !options.no_peers && b.device() == Device::cuda;
    measure_peaks(b, run.peaks, peers);
    run.cublaslt = run.peaks.cublaslt_product > 0;
    run.head += peaks_text(b, run.peaks) + "\n";
    if (peers) {
      const std::string why = simulated(b) ? "this is the simulator" : CudnnAttention::missing();
      run.cudnn = why.empty();
      if (!run.cudnn) run.head += "no cuDNN beside ours: " + why + "\n";
    }
    for (const BenchShape& s : shapes) {
      b.prepare_products(bench_weights(s), s.tokens);
      b.prepare_attention(s.heads, s.tokens);
    }
    if (const std::string products = b.products_text(); !products.empty()) run.head += products + "\n";
    for (const BenchShape& s : shapes)
      for (BenchCase& c : bench_cases(s, t)) {
        const bool of_f32 = c.op.type == DType::f32 && t == DType::bf16;
        if (of_f32 && types.size() > 1) continue;  // the f32 backend has it too
        std::vector<BenchCase> kernels = by_each_kernel(b, c);
        entries.push_back({s.name, std::move(c), &b});
        for (BenchCase& k : kernels) entries.push_back({s.name, std::move(k), &b});
      }
  }
  std::printf("%s", run.head.c_str());
  std::fflush(stdout);
  for (const Entry& e : entries)
    benchmark::RegisterBenchmark(e.c.name().c_str(),
                                 [&run, &e](benchmark::State& s) { measure(s, run, *e.backend, e.c, e.shape); })
        ->UseManualTime()
        ->Iterations(run.samples())
        ->Unit(benchmark::kMicrosecond);
  benchmark::RunSpecifiedBenchmarks();
  write_markdown(run);
  for (const std::string& n : run.notes) std::printf("a library failed: %s\n", n.c_str());
  int64_t sampled = 0, wrong = 0;
  for (const Result& r : run.results) sampled += r.verdict.sampled, wrong += r.verdict.wrong;
  std::printf("%zu cases, %lld elements compared with fp64, %lld wrong, %zu failed\n", run.results.size(),
              static_cast<long long>(sampled), static_cast<long long>(wrong), run.failures.size());
  for (const std::string& f : run.failures) std::fprintf(stderr, "bench_ops: %s\n", f.c_str());
  return wrong > 0 ? kExitNumerics : run.failures.empty() ? kExitOk : kExitInternal;
}

}  // namespace
}  // namespace dapo::bench

int main(int argc, char** argv) {
  CLI::App app(
      "Times every op of a backend and compares samples of what it gives with fp64.\n"
      "example: bench_ops --device cuda --quick --markdown ops.md --benchmark_out=ops.json\n"
      "Exit 4: an element is wrong; 70: a case failed.",
      "bench_ops");
  dapo::bench::Options o;
  app.add_option("--device", o.device, "cpu | cuda");
  app.add_option("--shape", o.shapes, "of toy,0.5b,1.5b,7b,32b (cpu: toy,0.5b; cuda: all but toy)")->delimiter(',');
  app.add_flag("--quick", o.quick, "0.5b and 7b, fewer sizes: under 90 s on an H100");
  app.add_flag("--no-peers", o.no_peers, "without cuBLASLt and cuDNN");
  app.add_option("--markdown", o.markdown, "file for the tables");
  app.allow_extras()->footer("Google Benchmark's --benchmark_filter=REGEX, --benchmark_out=FILE, ... work as well.");
  return dapo::run_program("bench_ops", app, argc, argv, [&] {
    o.rest = app.remaining();
    return dapo::bench::run(o, argv[0]);
  });
}
