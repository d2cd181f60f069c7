// How dapo_train becomes one rank or several (docs/parallel.md), and what they compare before they train.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/backend.h"
#include "data/dataset.h"
#include "host/app/backends.h"
#include "host/parallel/ranks.h"
#include "host/train/settings.h"

namespace dapo {

/// Runs run() as what this process is: the only rank; one of those that mpirun or srun started; or, where the config asks
/// for several and nothing has started them, the program that starts them with the same `arguments`, and again up to
/// `restarts` times when a rank is lost. Ranks compare builds and settings first. `plans`: for --plan, which one process
/// prints for any number of ranks.
int start_ranks(const std::string& config, const std::vector<std::string>& settings,
                const std::vector<std::string>& arguments, bool plans, int restarts,
                const std::function<int(Ranks&)>& run);

/// The ranks of a run that nothing has started, where parallel.dp is auto: one a GPU of this machine, or one on the CPU.
int ranks_of_machine(const ModelSection& model);

/// The backend of this rank: of several on GPUs, each takes one of its machine's (with parallel.transport = host, a
/// share of one), and the cores near it. Errors are the
/// same on all ranks.
ChosenBackend rank_backend(const Config& config, Ranks& ranks);
/// Connects the memory of the ranks' devices. Errors are the same on all ranks.
void connect_devices(ChosenBackend& chosen, const Grid& grid, Transport transport);

/// Error (exit 2), the same on all ranks, where one has read other rows, another model, or runs on another kind of device: bits
/// would differ.
void compare_inputs(Ranks& ranks, const Dataset& data, const std::string& weights, const Backend& backend);

}  // namespace dapo
