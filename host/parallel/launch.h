// `./dapo_train CFG` with several ranks: the typed program starts them on this machine by mpirun, waits, and turns every
// end into an exit code.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace dapo {

/// What happens when a rank is lost.
struct Restarts {
  int most = 0;  ///< times that all ranks are started again
  /// Whether the run had begun to write its folder: ranks then find restarted(), and go on from what is in there.
  std::function<bool()> begun = [] { return false; };
};
/// In a rank: an earlier start of this run has begun to write its folder.
bool restarted();

/// Starts `ranks` ranks of this program with these arguments (after the program's name), and returns the exit code of the
/// run: that of its ranks; 5 where one died; 130 where it was interrupted. SIGINT, SIGTERM and SIGHUP are passed on to
/// the ranks, as SIGINT. No rank is left behind. Error (exit 2) without mpirun, or in a build without MPI.
int launch_ranks(const char* program, int ranks, const std::vector<std::string>& arguments,
                 const Restarts& restarts = {});

/// The exit code of a run whose mpirun ended with this wait status. `joined`: all ranks had started.
int launched_exit_code(int wait_status, bool joined);

}  // namespace dapo
