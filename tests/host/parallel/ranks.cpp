// A program of several ranks for ranks_test.py: starts as dapo_train does (by itself, or by mpirun), and then does what
// its arguments say.
//   ranks N LIMIT ops [TP]                 the cases of tests/comm_cases.h; with TP those of a grid
//   ranks N LIMIT loop SECONDS [FAULT R [TP]]   a loop of collectives, in which rank R does FAULT; with TP those of a
//                                               grid's parts too
#include "host/parallel/ranks.h"

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "core/progress.h"
#include "host/parallel/launch.h"
#include "tests/comm_cases.h"

namespace dapo {
namespace {

volatile std::sig_atomic_t interrupted = 0;

void run_ops(Ranks& ranks, int tp) {
  if (tp > 0) {
    ranks.split(tp);
    const std::string wrong = wrong_grid(ranks.grid(), tp);
    ranks.comm().together([&] {
      if (!wrong.empty()) fail(kExitInternal, "{}", wrong);
    });
    if (ranks.first()) fmt::print("{} x {} ranks, all right\n", ranks.size() / tp, tp);
    return;
  }
  for (const std::string& wrong :
       {wrong_collectives(ranks.comm()), wrong_sums(ranks.comm()), wrong_agreement(ranks.comm()),
        ranks.size() > 1 ? wrong_mismatches(ranks.comm()) : std::string()})
    ranks.comm().together([&] {
      if (!wrong.empty()) fail(kExitInternal, "{}", wrong);
    });
  if (ranks.first()) fmt::print("{} ranks, all right\n", ranks.size());
}

/// What happens to the rank in the middle of the loop.
void do_fault(const std::string& fault, Ranks& ranks) {
  if (const char* const file = std::getenv("FAULT_FILE"))
    std::ofstream(file) << fault;  // its time is that of the fault
  if (fault == "kill") raise(SIGKILL);
  if (fault == "abort") std::abort();
  if (fault == "stop") raise(SIGSTOP);
  if (fault == "exit") _exit(kExitOk);
  if (fault == "sleep") std::this_thread::sleep_for(std::chrono::seconds(100));
  if (fault == "skip") ranks.comm().barrier();
  if (fault == "memory") fail(kExitResources, "out of memory");
  if (fault == "agreed") ranks.comm().agree(Error(kExitUsage, "a bad row"));
}

int run_loop(Ranks& ranks, double seconds, const std::string& fault, int faulty, int tp) {
  std::signal(SIGINT, [](int) { interrupted = 1; });
  std::vector<float> x(1000);
  const Stopwatch since;
  ranks.split(tp);
  ranks.phase("rollout");
  for (int i = 0;; ++i) {
    ranks.comm().all_reduce_sum(tensor(x));
    if (i == 100 && fault == "agreed" && ranks.rank() != faulty) ranks.comm().agree();
    if (i == 100 && ranks.rank() == faulty) do_fault(fault, ranks);
    for (int k = 0; tp > 1 && k < 3; ++k) ranks.grid().tensor.all_reduce_sum(tensor(x));
    if (tp > 1) ranks.grid().data.all_reduce_sum(tensor(x));
    std::vector<double> end{since.seconds() > seconds ? 1.0 : 0.0, interrupted ? 1.0 : 0.0};
    ranks.comm().all_reduce_max(tensor(end));
    if (end[1] > 0) return kExitInterrupted;
    if (end[0] > 0) return kExitOk;
  }
}

int run(Ranks& ranks, int argc, char** argv) {
  const std::string what = argc > 3 ? argv[3] : "";
  if (what == "ops") return run_ops(ranks, argc > 4 ? std::atoi(argv[4]) : 0), kExitOk;
  return run_loop(ranks, std::atof(argv[4]), argc > 5 ? argv[5] : "", argc > 6 ? std::atoi(argv[6]) : -1,
                  argc > 7 ? std::atoi(argv[7]) : 1);
}

int start(int argc, char** argv) try {
  const GivenRanks given = given_ranks();
  const int wanted = std::atoi(argv[1]);
  if (given.by.empty() && wanted > 1) return launch_ranks("ranks", wanted, {argv + 1, argv + argc});
  return run_as_rank("ranks", given, [&](Ranks& ranks) {
    ranks.expect_size(wanted);
    ranks.compare({{"argument", argv[2], "start all ranks alike"}});
    ranks.watch(std::atof(argv[2]));
    return run(ranks, argc, argv);
  });
} catch (const Error& e) {
  fmt::print(stderr, "ranks: {}\n", e.what());
  return e.code();
}

}  // namespace
}  // namespace dapo

int main(int argc, char** argv) {
  return argc < 5 && !(argc == 4 && std::string(argv[3]) == "ops") ? dapo::kExitUsage : dapo::start(argc, argv);
}
