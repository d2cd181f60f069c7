// The interface for tests: order, faults, device, injected errors, leaks. Programs never include this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

struct cudaDeviceProp;

namespace sim {

// ---- order of execution

/// Seed of the order of blocks, warps and lanes (environment: DAPO_SIM_SEED). Also restarts the count of launches.
void set_seed(std::uint64_t seed);
/// OS threads that run blocks (environment: DAPO_SIM_THREADS; always 1 under AddressSanitizer).
void set_threads(unsigned count);

// ---- arithmetic

/// Sums of bf16 products: with the bits of an H100's tensor cores, or (the default, faster) fp32 fma in order of k.
/// Environment: DAPO_SIM_EXACT=1.
void set_exact_sums(bool on);
bool exact_sums();

// ---- faults

/// A fault found in a kernel. The launch returns cudaErrorLaunchFailure, and cudaGetErrorString then returns message().
struct Fault {
  std::string kind;    ///< "divergent barrier", "missing lane", "race", "uninitialised", "misaligned", "deadlock", ...
  std::string kernel;  ///< demangled name
  std::string block;   ///< "(x,y,z)"
  std::string thread;  ///< "(x,y,z), warp w lane l"
  std::string where;   ///< file:line, or "?"
  std::string text;    ///< the rest
  std::string message() const;
};
/// The first fault since the last take_fault(), if any; taking it clears it.
bool take_fault(Fault* out = nullptr);
/// Prints each fault to stderr as it is found (default on).
void set_verbose(bool on);
/// True if the .cu files were compiled with the race checker (VARIANT=race).
bool race_checked();

// ---- the device

void set_device_properties(const cudaDeviceProp& p);
cudaDeviceProp device_properties();
void set_device_count(int count);
/// Bytes that cudaMalloc can allocate in total; then it returns cudaErrorMemoryAllocation.
void set_total_memory(std::size_t bytes);
void set_driver_version(int version);  ///< as cudaDriverGetVersion returns it: 13000
/// Resets all of the above to an H100 with 80 GB; clears faults and injected errors.
void reset_device();

// ---- errors of the driver

/// Makes the n-th call from now (1: the next one) of the runtime, cuBLASLt or NCCL return `error`, once; with `only`,
/// of the calls of that name. n = 0 undoes it. Environment: DAPO_SIM_FAIL=n:error[:name].
void fail_call(long n, int error, const char* only = nullptr);
/// Calls into the runtime so far, and whether an injected error was returned.
long calls();
bool failed();

// ---- cuBLASLt

/// The library offers four algorithms for each product, best first; algorithm i has other bits (it sums over k from the
/// end) if bit i of `mask` is set. reset_device() undoes it.
void set_library_other_bits(unsigned mask);
/// The result of cublasLtGetVersion: 130000.
void set_library_version(std::size_t version);

// ---- what is alive

struct Live {
  long allocations = 0, pinned = 0, streams = 0, events = 0, graphs = 0, executables = 0, handles = 0;
  std::size_t bytes = 0;
  long total() const { return allocations + pinned + streams + events + graphs + executables + handles; }
};
Live live();
/// True if [p, p + bytes) lies inside one live cudaMalloc.
bool is_device(const void* p, std::size_t bytes = 1);

// ---- what ran

struct Stats {
  long launches = 0, blocks = 0, threads = 0, switches = 0, barriers = 0, collectives = 0;
  long ldmatrix_phases = 0;     ///< groups of 8 rows read
  long ldmatrix_conflicts = 0;  ///< extra passes over the banks those took
};
Stats stats();
void reset_stats();
/// Names of all kernels launched so far in this process (environment: DAPO_SIM_KERNELS=file appends them at exit).
std::vector<std::string> launched_kernels();

}  // namespace sim
