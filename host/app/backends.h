// The only place that names both cpu and cuda.
#pragma once

#include <memory>
#include <string>

#include "core/backend.h"
#include "core/comm.h"
#include "host/app/rank_gpus.h"
#include "host/train/settings.h"

namespace dapo {

struct ChosenBackend {
  std::unique_ptr<Backend> backend;
  std::string why;  ///< one line: what was chosen and why
  /// Of the grid (core/grid.h), for memory of the device: the ranks that share the weights, and those that train the same
  /// part of them. Null: this one alone.
  std::shared_ptr<Comm> tensor, data;
};

/// threads: of the CPU, 0: all cores. automatic: a GPU if there is one; bf16 if the device multiplies it natively.
/// Error (exit 2) for a device that this build or machine does not have, and for a CPU that lacks the instructions the
/// program was compiled for. share: which of visible_gpus(), -1: the
/// first, and how many ranks take a part of its memory.
ChosenBackend make_backend(DeviceChoice device, DTypeChoice dtype, int threads = 0, const GpuShare& share = {});
/// The same from the values of --device and --dtype. Error (exit 2) for an unknown value.
ChosenBackend make_backend(std::string_view device, std::string_view dtype, int threads = 0);

/// Whether this program was built with the CUDA backend.
bool built_with_cuda();
/// The GPUs that this process sees; none on the CPU. Error (exit 3) if the driver cannot list them.
std::vector<VisibleGpu> visible_gpus(DeviceChoice device);

/// What connects the ranks of `hosts` in memory of their devices: `transport` between GPUs, `hosts` itself on CPUs. All of
/// them call it, each with the backend of its rank; both must outlive the result. Error (exit 2 or 3), the same on all,
/// if NCCL is asked for and is not there, or does not start.
std::shared_ptr<Comm> make_device_comm(Backend& backend, Comm& hosts, Transport transport);

/// A single-rank group on this backend.
std::unique_ptr<Comm> make_single_comm(Backend& backend);

/// FLOP/s of a product large enough to be compute-bound, measured in less than a second. Prepares products of its own shapes.
double measure_flops(Backend& backend);

/// Idle OpenMP threads spin for milliseconds by default; on a machine with other load this made our own work 3 times
/// slower (measured). libgomp reads the limit only once, when it is loaded, so if the environment does not set it, the
/// program re-executes itself with GOMP_SPINCOUNT=1000. Call it first in main.
void settle_threads(char** argv);

}  // namespace dapo
