// Grids: blocks in random order over the OS threads, faults, statistics.
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <thread>

#include "engine.h"

namespace sim {
namespace {

std::uint64_t environment(const char* name, std::uint64_t otherwise) {
  const char* v = std::getenv(name);
  return v && *v ? std::strtoull(v, nullptr, 0) : otherwise;
}

struct State {
  std::mutex mutex;
  std::uint64_t seed = environment("DAPO_SIM_SEED", 1);
  std::uint64_t launches = 0;
  std::uint32_t blocks = 1;
  std::vector<Fault> faults;
  bool verbose = true;
  Stats stats;
  std::vector<const void*> kernels;
};
State& state() {
  static State* s = new State;  // kernels may run while statics are destroyed
  return *s;
}

/// A grid that is running: the next cluster (most often of one block), and its result.
struct Job {
  const Launch* launch;
  std::vector<std::uint32_t> order;
  std::uint32_t first_serial;
  std::atomic<std::uint32_t> next{0};
  std::atomic<bool> faulted{false};

  void work() {
    Cluster cluster(*launch);
    const auto size = static_cast<std::uint32_t>(cluster.blocks.size());
    for (;;) {
      const std::uint32_t i = next++;
      if (i >= order.size() || faulted) break;
      if (!cluster.run(order[i], first_serial + i * size)) faulted = true;
    }
    std::lock_guard lock(state().mutex);
    cluster.add_stats(state().stats);
  }
};

/// The OS threads in addition to the caller's.
class Workers {
 public:
  ~Workers() { resize(0); }
  void resize(unsigned n) {
    {
      std::lock_guard lock(mutex_);
      quit_ = true;
    }
    wake_.notify_all();
    threads_.clear();
    quit_ = false;
    for (unsigned i = 0; i < n; ++i) threads_.emplace_back([this, seen = generation_] { loop(seen); });
  }
  std::size_t size() const { return threads_.size(); }
  void run(Job& job) {
    {
      std::lock_guard lock(mutex_);
      job_ = &job;
      ++generation_;
      busy_ = threads_.size();
    }
    wake_.notify_all();
    job.work();
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void loop(std::uint64_t seen) {
    for (;;) {
      Job* job;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return quit_ || generation_ != seen; });
        if (quit_) return;
        seen = generation_;
        job = job_;
      }
      job->work();
      std::lock_guard lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  std::uint64_t generation_ = 0;
  std::size_t busy_ = 0;
  bool quit_ = false;
  std::vector<std::jthread> threads_;
};

std::mutex grid_mutex;  // one grid at a time, from any host thread
Workers* workers = nullptr;

void write_kernels() {
  const char* path = std::getenv("DAPO_SIM_KERNELS");
  if (std::FILE* f = path ? std::fopen(path, "a") : nullptr) {
    std::string lines;
    for (const auto& k : launched_kernels()) lines += k + "\n";
    std::setvbuf(f, nullptr, _IONBF, 0);  // one write: other processes append to the same file
    std::fwrite(lines.data(), 1, lines.size(), f);
    std::fclose(f);
  }
}

}  // namespace

bool run_grid(const Launch& given) {
  std::lock_guard grid_lock(grid_mutex);
  if (!workers) {
    workers = new Workers;
#ifndef __SANITIZE_ADDRESS__
    const std::uint64_t n = environment("DAPO_SIM_THREADS", std::thread::hardware_concurrency());
    workers->resize(n > 1 ? static_cast<unsigned>(n - 1) : 0);
#endif
    if (std::getenv("DAPO_SIM_KERNELS")) std::atexit(write_kernels);
  }
  Launch launch = given;
  Job job;
  {
    State& s = state();
    std::lock_guard lock(s.mutex);
    launch.seed = (s.seed + 0x632BE59BD9B4E019ull * ++s.launches) * 0xD1342543DE82EF95ull;
    const std::uint32_t n = launch.grid.x * launch.grid.y * launch.grid.z;
    job.order.resize(n / (launch.cluster.x * launch.cluster.y * launch.cluster.z));
    job.first_serial = s.blocks;
    s.blocks += n;
    ++s.stats.launches;
    bool known = false;
    for (const void* k : s.kernels) known |= k == launch.function;
    if (!known) s.kernels.push_back(launch.function);
  }
  job.launch = &launch;
  std::iota(job.order.begin(), job.order.end(), 0u);
  std::uint64_t r = launch.seed;
  for (std::size_t i = job.order.size(); i > 1; --i) {
    r = r * 6364136223846793005ull + 1442695040888963407ull;
    std::swap(job.order[i - 1], job.order[(r >> 33) % i]);
  }
  if (job.order.size() > 1 && workers->size())
    workers->run(job);
  else
    job.work();
  return !job.faulted;
}

void set_seed(std::uint64_t seed) {
  std::lock_guard lock(state().mutex);
  state().seed = seed;
  state().launches = 0;
}

void set_threads(unsigned count) {
#ifdef __SANITIZE_ADDRESS__
  (void)count;  // __shared__ variables are plain statics there
#else
  std::lock_guard lock(grid_mutex);
  if (!workers) workers = new Workers;
  workers->resize(count ? count - 1 : 0);
#endif
}

void record_fault(Fault f) {
  std::lock_guard lock(state().mutex);
  if (state().verbose && state().faults.empty()) std::fprintf(stderr, "%s\n", f.message().c_str());
  if (state().faults.size() < 16) state().faults.push_back(std::move(f));
}

bool take_fault(Fault* out) {
  std::lock_guard lock(state().mutex);
  if (state().faults.empty()) return false;
  if (out) *out = state().faults.front();
  state().faults.clear();
  return true;
}

std::string last_fault_message() {
  std::lock_guard lock(state().mutex);
  return state().faults.empty() ? std::string() : state().faults.front().message();
}

std::string Fault::message() const {
  return "sim: " + kind + " in " + kernel + ", block " + block + ", thread " + thread + ", at " + where + ": " + text;
}

void set_verbose(bool on) {
  state().verbose = on;
}

Stats stats() {
  std::lock_guard lock(state().mutex);
  return state().stats;
}

void reset_stats() {
  std::lock_guard lock(state().mutex);
  state().stats = {};
}

std::vector<std::string> launched_kernels() {
  return function_names({state().kernels.begin(), state().kernels.end()});
}

}  // namespace sim
