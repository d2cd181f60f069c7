// The limits of this machine, measured once and kept in a file.
#pragma once

#include <string>

#include "core/backend.h"
#include "host/app/step_cost.h"

namespace dapo {

struct MeasuredCeilings {
  Ceilings ceilings;
  std::string when;  ///< "measured now" or "measured 2026-11-26", and the file that keeps them, for a person
};

/// Whether other programs use half of this machine's processors or more, by the load average of the last minute.
bool processors_busy();

/// FLOP/s of a large product and bytes/s of memory: from the cache file if it has this machine (host, device, threads,
/// type, driver), else measured (about a second) and added to it. The file is $XDG_CACHE_HOME/dapo/ceilings.json, by
/// default ~/.cache/dapo/ceilings.json. A figure is not kept, and `when` says why, if the file cannot be written or if
/// other programs hold the processors (`busy`): it would be too low for as long as the file exists.
MeasuredCeilings machine_ceilings(Backend& backend, bool busy = processors_busy());

/// What identifies the machine: a change measures again.
std::string machine_identity(const Backend& backend);
/// "" if neither XDG_CACHE_HOME nor HOME is set.
std::string ceilings_file();

/// "580.159": the version of NVIDIA's kernel driver; "" without one.
std::string driver_version();

/// Bytes/s of the best of a copy and a read of buffers that no cache holds.
double measure_bandwidth(Backend& backend);

}  // namespace dapo
