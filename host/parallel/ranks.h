// This process as one of the ranks of a run: the communicator, its watchdog, and where its words go. Rank 0 has the
// terminal; the others write into a file in memory, and then into RUN/rank_N.log.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/grid.h"
#include "host/parallel/given_ranks.h"
#include "host/parallel/heartbeat_page.h"
#include "host/parallel/job_socket.h"
#include "host/parallel/mpi_comm.h"
#include "host/parallel/watchdog.h"

namespace dapo {

/// Of this machine.
std::string host_name();

/// What must be the same on all ranks, or must not: "config" -> a hash.
struct StartFact {
  std::string name, value;
  std::string repair;  ///< what to do where ranks differ
};

class Ranks {
 public:
  /// One rank, without MPI.
  Ranks();
  /// One of the ranks that mpirun or srun started: starts MPI, meets the others. Error (exit 2) if MPI sees another
  /// number of ranks than the launcher says.
  Ranks(const char* program, const GivenRanks& given);
  ~Ranks();
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  Comm& comm() { return mpi_ ? static_cast<Comm&>(mpi_->comm()) : *single_; }
  int rank() { return comm().rank(); }
  int size() { return comm().size(); }
  /// The rank that prints and writes the run's folder.
  bool first() { return rank() == 0; }

  /// Error (exit 2) unless the run is configured for as many ranks as were started.
  void expect_size(int configured);
  /// Groups of `tp` neighbours, which divides the number of ranks, share one copy of the weights from here on.
  void split(int tp);
  /// After split(); before it, that of a run without tensor parallelism.
  const Grid& grid();
  /// Error (exit 2), the same on all ranks, that names a rank, its machine and what differs.
  void compare(const std::vector<StartFact>& facts);
  /// From here on a rank that died ends the run with exit code 5, and one that hangs for `limit` seconds.
  void watch(double limit);
  /// CPU threads by the cores that this rank may use now; all ranks call it.
  void share_cores();
  /// "rollout", ...: for the line that names a culprit. Also a sign of life.
  void phase(std::string_view name);
  /// A sign of life.
  void beat();
  /// The words of ranks other than 0 go to FOLDER/rank_N.log from here on. Error (exit 2) if the folder is not there:
  /// the machines do not share it.
  void log_to(const std::string& folder);

 private:
  friend int run_as_rank(const char*, const GivenRanks&, const std::function<int(Ranks&)>&);
  void take_terminal(const GivenRanks& given);
  /// Waits for the other ranks, and ends MPI.
  void finish();
  /// An error of this rank alone goes to the terminal; the others follow.
  void fail_apart(const std::string& text, int code);
  [[noreturn]] void bite(const Culprit& culprit);
  void say(const std::string& text, int file) const;

  std::string program_;
  GivenRanks given_;
  std::unique_ptr<Comm> single_;
  std::unique_ptr<MpiRanks> mpi_;
  std::unique_ptr<HostGrid> grid_;
  HeartbeatPage page_;
  JobTerminal terminal_;  ///< error: the terminal's, on every rank
  OwnedFd early_;         ///< what ranks other than 0 wrote before log_to()
  std::optional<Watchdog> watchdog_;
};

/// Runs body() as one of the ranks, and returns the exit code of this process. An error that all ranks throw is printed
/// once; one that this rank throws alone names it, and ends the run. Errors of a single rank are thrown.
int run_as_rank(const char* program, const GivenRanks& given, const std::function<int(Ranks&)>& body);

/// Whether `./dapo_train CFG` started this process as a rank: its signals come from there.
bool started_by_launch();
inline constexpr const char* kJobVariable = "DAPO_JOB";

}  // namespace dapo
