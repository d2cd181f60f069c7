#include "host/parallel/launch.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "core/check.h"
#include "core/progress.h"
#include "host/parallel/heartbeat_page.h"
#include "host/parallel/job_socket.h"
#include "host/parallel/mpi_comm.h"
#include "host/parallel/ranks.h"

namespace dapo {
namespace {

constexpr double kStartSeconds = 60;  ///< for all ranks to connect
constexpr double kLeaveSeconds = 10;  ///< for mpirun, once a rank is gone
constexpr const char* kRestartVariable = "DAPO_RESTART";

/// Settings of Open MPI and NCCL, where the user has not set others. Between processes of one machine: shared memory only, so that
/// no rank listens on a port; copied through it, since reading another process is forbidden in containers.
constexpr std::array<std::array<const char*, 2>, 6> kSettings = {{
    {"OMPI_MCA_pml", "ob1"},
    {"OMPI_MCA_btl", "self,vader"},
    {"OMPI_MCA_btl_vader_single_copy_mechanism", "none"},
    {"OMPI_MCA_mpi_yield_when_idle", "1"},
    {"OMPI_MCA_plm_rsh_agent", "true"},  // no other machine: mpirun need not find ssh
    {"NCCL_SOCKET_IFNAME", "lo"},        // where its ranks meet
}};

std::string find_program(const char* name) {
  const char* const path = std::getenv("PATH");
  std::string_view rest = path ? path : "/usr/local/bin:/usr/bin:/bin";
  while (true) {
    std::string file = fmt::format("{}/{}", rest.substr(0, rest.find(':')), name);
    if (access(file.c_str(), X_OK) == 0 && std::filesystem::is_regular_file(file)) return file;
    if (rest.find(':') == rest.npos) return "";
    rest.remove_prefix(rest.find(':') + 1);
  }
}

/// Signals come as reads of a file while this lives.
class Signals {
 public:
  Signals() {
    sigemptyset(&set_);
    for (const int s : {SIGCHLD, SIGINT, SIGTERM}) sigaddset(&set_, s);
    struct sigaction before {};
    sigaction(SIGHUP, nullptr, &before);
    if (before.sa_handler != SIG_IGN) sigaddset(&set_, SIGHUP);
    sigprocmask(SIG_BLOCK, &set_, &old_);
    fd_ = OwnedFd(signalfd(-1, &set_, SFD_CLOEXEC | SFD_NONBLOCK));
  }
  ~Signals() { restore(); }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  void restore() { sigprocmask(SIG_SETMASK, &old_, nullptr); }
  int fd() const { return fd_.get(); }
  /// The next one that has come; 0: none.
  int next() {
    signalfd_siginfo about{};
    return read(fd_.get(), &about, sizeof about) == sizeof about ? static_cast<int>(about.ssi_signo) : 0;
  }

 private:
  sigset_t set_{}, old_{};
  OwnedFd fd_;
};

struct PageName {
  std::string name = HeartbeatPage::new_name();
  PageName() = default;
  ~PageName() { HeartbeatPage::unlink(name); }
  PageName(const PageName&) = delete;
  PageName& operator=(const PageName&) = delete;
};

class Launch {
 public:
  Launch(const char* program, int ranks, bool again)
      : program_(program), again_(again), page_(name_.name, ranks), server_(name_.name), clients_(ranks) {}
  int run(const std::string& mpirun, const std::vector<std::string>& arguments) {
    start(mpirun, arguments);
    while (status_ < 0) wait();
    remove_ranks();
    return conclude();
  }
  /// Whether all ranks ran, and nobody wanted them to stop: then a lost rank is worth another start.
  bool ran() const { return connected_ == std::ssize(clients_) && interrupts_ == 0; }
  void say(const std::string& text) const { fmt::print(stderr, "{}: {}\n", program_, text); }

 private:
  void start(const std::string& mpirun, const std::vector<std::string>& arguments);
  void wait();
  void connected();
  void ended(int rank);
  void signalled();
  void check_times();
  void kill_all(int signal);
  void remove_ranks();
  int conclude();
  std::string words_of_mpirun() const;

  const char* program_;
  const bool again_;
  /// What mpirun prints. Ranks have our own streams, so it is shown only where it says more than we know.
  const OwnedFd words_{memfd_create("mpirun", MFD_CLOEXEC)};
  const PageName name_;
  HeartbeatPage page_;
  JobServer server_;
  Signals signals_;
  std::vector<JobClient> clients_;
  int mpirun_ = 0, status_ = -1, interrupts_ = 0, connected_ = 0;
  int dead_ = -1;  ///< the first rank that ended without having left
  bool report_dead_ = false, too_late_ = false, killed_mpirun_ = false;
  Stopwatch since_start_, since_end_, since_second_;
  bool any_ended_ = false;
};

void Launch::start(const std::string& mpirun, const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {mpirun,      "-n",  std::to_string(clients_.size()), "--map-by", ":OVERSUBSCRIBE",
                                    "--bind-to", "none"};
  if (geteuid() == 0) words.push_back("--allow-run-as-root");
  words.push_back(std::filesystem::read_symlink("/proc/self/exe").string());
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  mpirun_ = fork();
  if (mpirun_ < 0) fail(kExitResources, "fork: {}", std::strerror(errno));
  if (mpirun_ > 0) return;
  // The child. Its own session: a Ctrl-C reaches this program alone, which passes it on; mpirun would kill the ranks.
  signals_.restore();
  setsid();
  std::signal(SIGPIPE, SIG_DFL);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(kExitLostRank);
  for (const auto& [name, value] : kSettings) setenv(name, value, 0);
  setenv(kJobVariable, name_.name.c_str(), 1);
  if (again_) setenv(kRestartVariable, "1", 1);
  if (const int null = open("/dev/null", O_RDONLY); null >= 0) dup2(null, STDIN_FILENO);
  for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) dup2(words_.get(), stream);
  execv(mpirun.c_str(), argv.data());
  _exit(127);
}

void Launch::wait() {
  std::vector<pollfd> files = {{signals_.fd(), POLLIN, 0}, {server_.fd(), POLLIN, 0}};
  std::vector<int> ranks;
  for (size_t r = 0; r < clients_.size(); ++r)
    if (clients_[r].connection) {
      files.push_back({clients_[r].connection.get(), POLLIN, 0});
      ranks.push_back(static_cast<int>(r));
    }
  poll(files.data(), files.size(), 200);
  if (files[1].revents) connected();
  for (size_t i = 2; i < files.size(); ++i)
    if (files[i].revents) ended(ranks[i - 2]);
  signalled();
  check_times();
}

void Launch::connected() {
  JobClient client = server_.accept();
  if (client.rank < 0 || client.rank >= std::ssize(clients_) || clients_[client.rank].pid != 0) return;
  ++connected_;
  clients_[client.rank] = std::move(client);
}

void Launch::ended(int rank) {
  clients_[rank].connection = OwnedFd();
  if (!any_ended_) since_end_ = {};
  any_ended_ = true;
  if (dead_ >= 0 || interrupts_ > 1 || page_.ranks()[rank].left.load()) return;
  dead_ = rank;
  report_dead_ = page_.first_to_report(kExitLostRank);  // printed when mpirun tells of what
}

void Launch::signalled() {
  while (const int signal = signals_.next()) {
    if (signal == SIGCHLD) {
      int status = 0;
      if (waitpid(mpirun_, &status, WNOHANG) == mpirun_) status_ = status;
      continue;
    }
    if (interrupts_ > 0 && signal == SIGHUP) continue;  // a closing terminal sends one, and its shell another
    if (++interrupts_ == 2) since_second_ = {};
    kill_all(SIGINT);
    if (connected_ == 0) kill(mpirun_, SIGTERM);
  }
}

void Launch::check_times() {
  const bool start_late = connected_ < std::ssize(clients_) && !any_ended_ && since_start_.seconds() > kStartSeconds;
  const bool end_late = any_ended_ && since_end_.seconds() > kLeaveSeconds && dead_ >= 0;
  const bool leave_late = interrupts_ > 1 && since_second_.seconds() > kLeaveSeconds / 2;
  if (status_ >= 0 || !(start_late || end_late || leave_late)) return;
  too_late_ = start_late;
  kill_all(SIGKILL);
  kill(mpirun_, SIGKILL);
  killed_mpirun_ = true;
  int status = 0;
  if (waitpid(mpirun_, &status, 0) == mpirun_) status_ = status;
}

void Launch::kill_all(int signal) {
  for (const JobClient& client : clients_)
    if (client.connection) kill(client.pid, signal);
}

void Launch::remove_ranks() {
  for (int i = 0; i < 200; ++i) {
    bool any = false;
    for (JobClient& client : clients_) {
      if (!client.connection) continue;
      pollfd file{client.connection.get(), POLLIN, 0};
      if (poll(&file, 1, 0) > 0) {
        client.connection = OwnedFd();
      } else {
        any = true;
        if (i >= 10) kill(client.pid, SIGKILL);
      }
    }
    if (!any) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

std::string Launch::words_of_mpirun() const {
  std::string text(1 << 16, '\0');
  const ssize_t n = pread(words_.get(), text.data(), text.size(), 0);
  text.resize(std::max<ssize_t>(n, 0));
  return text;
}

int Launch::conclude() {
  const bool joined = connected_ == std::ssize(clients_);
  if (interrupts_ > 1 || (interrupts_ > 0 && !joined)) return kExitInterrupted;
  if (too_late_) {
    say(fmt::format("{} of {} ranks have not started within {:.0f} s; try mpirun -n {} by hand",
                    clients_.size() - connected_, clients_.size(), kStartSeconds, clients_.size()));
    return kExitLostRank;
  }
  // mpirun's is that of the rank whose end it noticed first, which may be one that left because of another.
  const int code = page_.reported() != 0 && !report_dead_ ? page_.reported() : launched_exit_code(status_, joined);
  if (report_dead_ && code == kExitLostRank && (WIFEXITED(status_) || killed_mpirun_)) {
    const int status = WIFEXITED(status_) ? WEXITSTATUS(status_) : kExitLostRank;
    say(fmt::format("{} {}; the other ranks have left", rank_text(dead_, page_.ranks()[dead_]),
                    status > 128 ? fmt::format("was killed by signal {} ({})", status - 128, strsignal(status - 128))
                    : status == kExitLostRank ? "has died"
                                              : fmt::format("ended with exit code {}", status)));
  } else if (!joined && code != 0) {
    fmt::print(stderr, "{}", words_of_mpirun());
    say(fmt::format("mpirun could not start {} ranks (exit code {})", clients_.size(),
                    WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_)));
  } else if (code == kExitLostRank && (report_dead_ || page_.reported() == 0)) {
    fmt::print(stderr, "{}", words_of_mpirun());
    say(fmt::format("mpirun ended with {}", WIFEXITED(status_) ? fmt::format("exit code {}", WEXITSTATUS(status_))
                                                               : fmt::format("signal {}", WTERMSIG(status_))));
  }
  return code;
}

}  // namespace

int launched_exit_code(int wait_status, bool joined) {
  if (!WIFEXITED(wait_status)) return kExitLostRank;
  const int code = WEXITSTATUS(wait_status);
  for (const int known :
       {kExitOk, kExitUsage, kExitResources, kExitNumerics, kExitLostRank, kExitInternal, kExitInterrupted})
    if (code == known) return code;
  return joined ? kExitLostRank : kExitUsage;  // mpirun itself could not start them
}

bool restarted() {
  return std::getenv(kRestartVariable) != nullptr;
}

int launch_ranks(const char* program, int ranks, const std::vector<std::string>& arguments, const Restarts& restarts) {
  if (!built_with_mpi())
    fail_input(
        "parallel.dp = {}: this program was built without MPI, for one rank; install libopenmpi-dev and openmpi-bin "
        "and "
        "run make again",
        ranks);
  const std::string mpirun = find_program("mpirun");
  if (mpirun.empty())
    fail_input("parallel.dp = {}: no mpirun in PATH; install openmpi-bin (make deps does), or set parallel.dp = 1",
               ranks);
  for (int times = 1;; ++times) {
    Launch launch(program, ranks, times > 1 && restarts.begun());
    const int code = launch.run(mpirun, arguments);
    if (code != kExitLostRank || times > restarts.most || !launch.ran()) return code;
    launch.say(fmt::format("starts the ranks again ({} of {} --restarts)", times, restarts.most));
  }
}

}  // namespace dapo
