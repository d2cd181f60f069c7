#include "host/parallel/ranks.h"

#include <fcntl.h>
#include <omp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>

namespace dapo {
namespace {

/// Both standard streams to this file.
void redirect_to(int out, int error) {
  std::fflush(stdout);
  std::fflush(stderr);
  dup2(out, STDOUT_FILENO);
  dup2(error, STDERR_FILENO);
}

}  // namespace

std::string host_name() {
  char name[256] = "?";
  gethostname(name, sizeof name - 1);
  return name;
}

bool started_by_launch() {
  return std::getenv(kJobVariable) != nullptr;
}

Ranks::Ranks()
    : single_(std::make_unique<SingleComm>(
          [](void*, const Tensor& to, const Tensor& from) { std::memcpy(to.data, from.data, from.bytes()); },
          nullptr)) {}

Ranks::Ranks(const char* program, const GivenRanks& given) : program_(program), given_(given) {
  take_terminal(given);
  mpi_ = start_mpi();
  if (size() != given.size)
    fail_input(
        "{} says that there are {} ranks, MPI sees {}: start them with the mpirun of this Open MPI, or with srun "
        "--mpi=pmix",
        given.by, given.size, size());
  share_cores();
  const char* const job = std::getenv(kJobVariable);
  const std::string name = comm().broadcast_bytes(job ? job : HeartbeatPage::new_name(), 0);
  comm().together([&] { page_ = HeartbeatPage(name, size()); });
  begin_heartbeat(page_.ranks()[rank()]);
  mpi_->comm().report_to(&page_.ranks()[rank()]);
  comm().barrier();
  HeartbeatPage::unlink(name);
}

Ranks::~Ranks() {
  watchdog_.reset();
}

void Ranks::take_terminal(const GivenRanks& given) {
  if (const char* const job = std::getenv(kJobVariable))
    terminal_ = connect_to_job(job, given.rank);
  else
    terminal_ = {OwnedFd(), OwnedFd(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)),
                 OwnedFd(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3))};
  if (given.rank == 0) return redirect_to(terminal_.out.get(), terminal_.error.get());
  early_ = OwnedFd(memfd_create("dapo-rank-log", MFD_CLOEXEC));
  if (!early_) fail(kExitResources, "memfd_create: {}", std::strerror(errno));
  redirect_to(early_.get(), early_.get());
}

/// Where the environment does not set them: the cores that this rank may use, divided by the ranks that may use the same;
/// those that are bound to others have cores of their own.
void Ranks::share_cores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  sched_getaffinity(0, sizeof cores, &cores);
  const std::string mine = host_name() + std::string(reinterpret_cast<const char*>(&cores), sizeof cores);
  const std::vector<std::string> all = comm().all_gather_bytes(mine);
  const auto sharing = static_cast<int>(std::count(all.begin(), all.end(), mine));
  if (!std::getenv("OMP_NUM_THREADS")) omp_set_num_threads(std::max(1, omp_get_num_procs() / sharing));
}

void Ranks::expect_size(int configured) {
  if (configured == size()) return;
  const std::string text =
      fmt::format("parallel.dp x parallel.tp = {} rank{}, but {} started {}; make them equal", configured,
                  configured == 1 ? "" : "s", given_.by.empty() ? "this process" : given_.by, size());
  throw AgreedError(kExitUsage, text);
}

void Ranks::split(int tp) {
  if (mpi_) page_.set_tensor_ranks(tp);
  grid_ = mpi_ ? std::make_unique<HostGrid>(mpi_->comm(), tp) : std::make_unique<HostGrid>(*single_);
}

const Grid& Ranks::grid() {
  if (!grid_) split(1);
  return grid_->grid();
}

void Ranks::compare(const std::vector<StartFact>& facts) {
  // A line a fact; the values hold none.
  std::string mine = host_name();
  for (const StartFact& fact : facts) mine += "\n" + fact.value;
  const std::vector<std::string> all = comm().all_gather_bytes(mine);
  const auto part = [](const std::string& text, size_t index) {
    size_t begin = 0;
    while (index-- > 0) begin = text.find('\n', begin) + 1;
    return text.substr(begin, text.find('\n', begin) - begin);
  };
  for (int r = 1; r < size(); ++r)
    for (size_t i = 0; i < facts.size(); ++i)
      if (part(all[r], i + 1) != part(all[0], i + 1))
        throw AgreedError(kExitUsage, fmt::format("rank {} on {} has another {} than rank 0 on {}: {} against {}; {}",
                                                  r, part(all[r], 0), facts[i].name, part(all[0], 0),
                                                  part(all[r], i + 1), part(all[0], i + 1), facts[i].repair));
}

void Ranks::watch(double limit) {
  if (mpi_ && size() > 1) watchdog_.emplace(page_, rank(), limit, [this](const Culprit& culprit) { bite(culprit); });
}

void Ranks::bite(const Culprit& culprit) {
  const std::string text =
      culprit.rank < 0
          ? fmt::format("{}; {} and the other ranks leave", culprit.why, rank_text(rank(), page_.ranks()[rank()]))
          : fmt::format("{} {}; the other ranks leave", rank_text(culprit.rank, page_.ranks()[culprit.rank]),
                        culprit.why);
  if (page_.first_to_report(kExitLostRank)) say(text, terminal_.error.get());
  if (!first()) say(text, STDERR_FILENO);  // its log
  // A stopped process leaves only so.
  if (culprit.rank >= 0)
    if (const Heartbeat& h = page_.ranks()[culprit.rank]; alive(h)) kill(h.pid.load(), SIGKILL);
  _exit(kExitLostRank);
}

void Ranks::say(const std::string& text, int file) const {
  std::string line = fmt::format("{}: {}", program_, text);
  std::replace_if(
      line.begin(), line.end(), [](char ch) { return static_cast<unsigned char>(ch) < ' '; }, ' ');
  line += '\n';
  [[maybe_unused]] const ssize_t written = write(file, line.data(), line.size());
}

void Ranks::phase(std::string_view name) {
  if (!mpi_) return;
  page_.ranks()[rank()].phase.set(name);
  beat();
}

void Ranks::beat() {
  if (mpi_) page_.ranks()[rank()].beat();
}

void Ranks::log_to(const std::string& folder) {
  phase("train");
  comm().together([&] {
    if (first()) return;
    const std::string path = fmt::format("{}/rank_{}.log", folder, rank());
    const OwnedFd log(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    if (!log)
      fail_input("{} on {}: {}; trainer.run_dir must be on a file system that all machines share", path, host_name(),
                 std::strerror(errno));
    redirect_to(log.get(), log.get());
    char bytes[4096];
    lseek(early_.get(), 0, SEEK_SET);
    for (ssize_t n = 0; (n = read(early_.get(), bytes, sizeof bytes)) > 0;)
      if (write(log.get(), bytes, n) != n) break;
    early_ = OwnedFd();
  });
}

void Ranks::finish() {
  if (!mpi_) return;
  comm().barrier();
  watchdog_.reset();
  page_.ranks()[rank()].left.store(true);
  mpi_->finish();
}

void Ranks::fail_apart(const std::string& text, int code) {
  if (!mpi_) return;
  if (page_.first_to_report(code))
    say(fmt::format("rank {} on {}: {}", rank(), host_name(), text), terminal_.error.get());
  watchdog_.reset();
  page_.ranks()[rank()].left.store(true);
}

int run_as_rank(const char* program, const GivenRanks& given, const std::function<int(Ranks&)>& body) {
  std::optional<Ranks> ranks;
  if (given.size == 1) {
    ranks.emplace();
    ranks->given_ = given;
    return body(*ranks);
  }
  const OwnedFd own_error(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3));
  try {
    ranks.emplace(program, given);
  } catch (const Error&) {
    // Where all ranks fail alike, rank 0 prints it, and the launcher ends the others; a rank that is still here failed alone.
    if (given.rank != 0) std::this_thread::sleep_for(std::chrono::seconds(2));
    dup2(own_error.get(), STDERR_FILENO);
    throw;
  }
  int code = kExitInternal;
  std::string error;
  try {
    code = body(*ranks);
    ranks->finish();
    return code;
  } catch (const AgreedError& e) {
    if (ranks->page_.first_to_report(e.code())) ranks->say(e.what(), ranks->terminal_.error.get());
    ranks->finish();
    return e.code();
  } catch (const Error& e) {
    code = e.code();
    error = e.what();
  } catch (const std::bad_alloc&) {
    code = kExitResources;
    error = "out of memory";
  } catch (const std::exception& e) {
    error = e.what();
  }
  ranks->fail_apart(error, code);
  return code;
}

}  // namespace dapo
