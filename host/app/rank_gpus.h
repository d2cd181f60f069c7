// Which GPU each rank takes, and which cores are near it.
#pragma once

#include <sched.h>

#include <optional>
#include <string>
#include <vector>

#include "core/comm.h"

namespace dapo {

struct VisibleGpu {
  std::string uuid, pci;  ///< of the card; its address, "0000:1b:00.0"
};

/// What a rank tells the others: its machine, and the cards that it sees there.
struct RankGpus {
  std::string host;
  std::vector<std::string> uuids;
};

/// What a rank takes: which of the GPUs that it sees (-1: none), and how many ranks share that one.
struct GpuShare {
  int gpu = -1, ranks = 1;
  bool operator==(const GpuShare&) const = default;
};
/// By rank: the next one after those of earlier ranks of its machine that see the same ones, as all do under mpirun; ranks
/// to which a launcher has given GPUs of their own take their first. No GPU for all ranks: none sees one. Error (exit 2)
/// that names rank and machine: a rank without a GPU among others, and unless they may be `shared`, more ranks than
/// GPUs, one GPU for two ranks.
std::vector<GpuShare> assign_gpus(const std::vector<RankGpus>& ranks, bool shared = false);
/// That of this rank; all ranks of `hosts` call it with what they see, and throw the same error.
GpuShare assign_gpu(Comm& hosts, const std::vector<VisibleGpu>& gpus, bool shared);

/// "0-3,8" -> {0, 1, 2, 3, 8}, as the kernel prints a list of cores; none if it is not such a list.
std::optional<cpu_set_t> parse_cores(const std::string& text);
/// Binds this thread, and those that it starts from here on, to the cores of the memory node that the GPU is attached
/// to, as far as it may use them. Does nothing where the kernel does not tell which these are. `devices`: /sys/bus/pci/devices.
void bind_near(const VisibleGpu& gpu, const std::string& devices = "/sys/bus/pci/devices");

}  // namespace dapo
