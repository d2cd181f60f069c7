// What mpirun or srun says about this process, from its environment.
#pragma once

#include <functional>
#include <string>

namespace dapo {

struct GivenRanks {
  int rank = 0, size = 1;
  std::string by;  ///< "mpirun", "srun"; "" if nothing started this process as one of several
};

/// `variable`: std::getenv. Error (exit 2) where a variable is not a number. In a batch script of Slurm, outside srun,
/// there are no ranks yet.
GivenRanks given_ranks(const std::function<const char*(const char*)>& variable);
GivenRanks given_ranks();

}  // namespace dapo
