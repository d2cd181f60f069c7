// The only place that names both cpu and cuda.
#pragma once

#include <memory>
#include <string>

#include "core/backend.h"
#include "core/comm.h"
#include "host/train/settings.h"

namespace dapo {

struct ChosenBackend {
  std::unique_ptr<Backend> backend;
  std::string why;  ///< one line: what was chosen and why
};

/// threads: of the CPU, 0: all cores. automatic: a GPU if there is one; bf16 if the device multiplies it natively.
/// Error (exit 2): a device that this build or machine does not have, a CPU without the instructions that the program
/// was compiled for.
ChosenBackend make_backend(DeviceChoice device, DTypeChoice dtype, int threads = 0);
/// The same by the words of --device and --dtype. Error (exit 2) for an unknown word.
ChosenBackend make_backend(std::string_view device, std::string_view dtype, int threads = 0);

/// Whether this program holds the CUDA backend.
bool built_with_cuda();

/// A group of one rank on this backend.
std::unique_ptr<Comm> make_single_comm(Backend& backend);

/// Flops a second of a product large enough to be bound by arithmetic: a measurement of some 20 ms.
double measure_flops(Backend& backend);

/// Idle OpenMP threads spin for milliseconds by default, which on a machine with other work costs more than our own
/// work does (measured: 3 times). libgomp reads its limit once, as it is loaded; so where the environment says nothing
/// of it, the program starts itself again with GOMP_SPINCOUNT=1000. First in main.
void settle_threads(char** argv);

}  // namespace dapo
