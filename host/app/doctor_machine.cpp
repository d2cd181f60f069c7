// The machine: processors, GPU, memory, disk.
#include <fcntl.h>
#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "core/check.h"
#include "core/progress.h"
#include "core/sizes.h"
#include "host/app/backends.h"
#include "host/app/ceilings.h"
#include "host/app/doctor.h"
#include "host/app/save.h"

namespace dapo {
namespace fs = std::filesystem;
namespace {

/// Processors that the control group allows; 0 if it does not limit them.
double allowed_processors() {
  std::ifstream in("/sys/fs/cgroup/cpu.max");
  double quota = 0, period = 0;
  return in >> quota >> period && period > 0 ? quota / period : 0;  // "max 100000" does not parse
}

void check_processors(Diagnosis& out, const Config& config) {
  const int threads = config.model.threads > 0 ? config.model.threads : omp_get_num_procs();
  const unsigned all = std::thread::hardware_concurrency();
  const double allowed = allowed_processors();
  out.add(Severity::ok, "", "processors: {} of {} usable, {} threads", omp_get_num_procs(), std::max(1u, all), threads);
  if (allowed > 0 && allowed + 0.5 < threads)
    out.add(Severity::warning, fmt::format("set model.threads = {}", std::max(1, static_cast<int>(allowed))),
            "the control group allows {:.1f} processors, {} threads would wait for each other", allowed, threads);
  double load = 0;
  if (processors_busy() && getloadavg(&load, 1) == 1)
    out.add(Severity::warning, "stop the other programs, or expect a slower run",
            "the processors are busy: load {:.1f} on {}", load, std::max(1u, all));
}

void check_device(Diagnosis& out, const Config& config) {
  const std::string driver = driver_version();
  try {
    const ChosenBackend chosen = make_backend(config.model.device, config.model.dtype, config.model.threads);
    Backend& b = *chosen.backend;
    out.add(Severity::ok, "", "{}", chosen.why);
    if (!driver.empty() && !built_with_cuda())
      out.add(Severity::warning, "install the CUDA toolkit and run make again, or use the programs of make dist",
              "NVIDIA's driver {} is here, but this program was built without CUDA", driver);
    else if (!driver.empty())
      out.add(Severity::ok, "", "NVIDIA driver {}", driver);
    if (b.device() == Device::cpu && b.dtype() == DType::f32 && config.model.dtype == DTypeChoice::automatic)
      out.add(Severity::note, "", "this CPU does not multiply bf16: runs are f32, with twice the memory for weights");
    const size_t total = b.memory_total(), available = b.memory_available();
    out.add(2 * available < total ? Severity::warning : Severity::ok,
            2 * available < total ? "other programs hold the rest: stop them, or a run gets fewer KV pages" : "",
            "memory: {:.1f} GiB free of {:.1f}", gib(available), gib(total));
    const MeasuredCeilings m = machine_ceilings(b);
    out.add(Severity::ok, "", "limits: {:.0f} GFLOP/s in products, {:.1f} GB/s of memory ({})", m.ceilings.flops / 1e9,
            m.ceilings.bytes_per_second / 1e9, m.when);
  } catch (const Error& e) {
    out.add(Severity::error, "", "{}", e.what());
  }
}

/// Bytes/s of writing a new file and syncing it; 0 if it cannot be written.
double disk_speed(const fs::path& folder) {
  constexpr size_t kBlock = size_t{4} << 20, kBlocks = 16;
  const std::string path = (folder / fmt::format(".dapo_doctor_{}", getpid())).string();
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return 0;
  std::vector<uint32_t> block(kBlock / 4);
  uint32_t x = 1;
  for (uint32_t& word : block) word = x = x * 1664525u + 1013904223u;  // nothing that a disk could compress
  bool good = true;
  const Stopwatch watch;
  for (size_t i = 0; i < kBlocks && good; ++i) good = write(fd, block.data(), kBlock) == std::ssize(block) * 4;
  good = fsync(fd) == 0 && good;
  const double seconds = watch.seconds();
  close(fd);
  unlink(path.c_str());
  return good ? kBlock * kBlocks / seconds : 0;
}

void check_disk(Diagnosis& out, const Config& config) {
  std::error_code error;
  fs::path folder = fs::absolute(config.trainer.run_dir, error);
  while (!fs::exists(folder, error) && folder.has_relative_path()) folder = folder.parent_path();
  const double speed = disk_speed(folder), free = static_cast<double>(free_bytes(folder.string()));
  if (speed == 0) {
    out.add(Severity::error, "set trainer.run_dir to a folder that you may write", "{}: cannot be written",
            folder.string());
    return;
  }
  const bool slow = speed < 1e8;
  out.add(slow ? Severity::warning : Severity::ok, slow ? "set trainer.run_dir to a faster disk" : "",
          "disk at {}: {:.1f} GB free, {:.0f} MB/s written and synced{}", folder.string(), gb(free), speed / 1e6,
          slow ? fmt::format("; a checkpoint of a 7B model takes {:.0f} minutes", 91e9 / speed / 60) : "");
}

}  // namespace

Diagnosis diagnose_machine(const Config& config) {
  Diagnosis out{.subject = "this machine"};
  check_processors(out, config);
  check_device(out, config);
  check_disk(out, config);
  return out;
}

}  // namespace dapo
