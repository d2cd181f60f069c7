// Ranks as processes that MPI connects. mpi_comm.cpp is the only file that includes mpi.h; without MPI it is a build of
// one rank.
#pragma once

#include <memory>

#include "core/host_comm.h"

namespace dapo {

bool built_with_mpi();

/// MPI, from its start to its end; one object of a process. Destroyed without finish(), it leaves MPI alone: its end
/// would wait for the other ranks.
class MpiRanks {
 public:
  virtual ~MpiRanks() = default;
  virtual HostComm& comm() = 0;
  /// Waits until all ranks are here, and ends MPI.
  virtual void finish() = 0;
};

/// Starts MPI. Error (exit 2) if this build has none.
std::unique_ptr<MpiRanks> start_mpi();

}  // namespace dapo
