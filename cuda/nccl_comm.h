// Collectives on the memory of GPUs, by NCCL. The library moves bytes; sums are added by a kernel of ours, in the order
// of the ranks, so that their bits depend neither on its algorithm nor on the topology (core/comm.h).
#pragma once

#include <memory>

#include "core/backend.h"
#include "core/host_comm.h"

namespace dapo {

/// `backend`: the CUDA backend of this rank; tensors are memory of its device, and work is queued on its stream. `host`
/// connects the same ranks: it carries the identifier, the checks that all ranks call the same, and bytes of the host.
/// Both must outlive the communicator. Error (exit 2) if there is no NCCL, (exit 3) if it does not start, as with two ranks on one GPU; the same
/// on all ranks. While it exists, waits of the backend show in the heartbeat of `host`, and end with an Error (exit 5) if
/// NCCL reports that a rank is lost.
std::unique_ptr<Comm> make_nccl_comm(Backend& backend, HostComm& host);

}  // namespace dapo
