#include "host/parallel/heartbeat_page.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <utility>

#include "core/check.h"

namespace dapo {

HeartbeatPage::HeartbeatPage(const std::string& name, int ranks)
    : bytes_(sizeof(Shared) + sizeof(Heartbeat) * ranks), count_(ranks) {
  const auto failed = [&](const char* call) {
    fail(kExitResources, "/dev/shm/{}: {}: {}; the ranks of a machine share a page there", name, call,
         std::strerror(errno));
  };
  const int fd = shm_open(("/" + name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) failed("shm_open");
  struct stat about {};
  // A new file is zeros, which is what a Heartbeat begins with.
  const bool sized = ftruncate(fd, static_cast<off_t>(bytes_)) == 0 && fstat(fd, &about) == 0;
  void* const memory = sized ? mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
  const int error = errno;
  close(fd);
  errno = about.st_uid != geteuid() && sized ? EPERM : error;
  if (memory == MAP_FAILED || about.st_uid != geteuid()) failed("mmap");
  shared_ = static_cast<Shared*>(memory);
}

HeartbeatPage::~HeartbeatPage() {
  if (shared_) munmap(shared_, bytes_);
}

HeartbeatPage::HeartbeatPage(HeartbeatPage&& other) noexcept
    : shared_(std::exchange(other.shared_, nullptr)), bytes_(other.bytes_), count_(std::exchange(other.count_, 0)) {}

HeartbeatPage& HeartbeatPage::operator=(HeartbeatPage&& other) noexcept {
  std::swap(shared_, other.shared_);
  std::swap(bytes_, other.bytes_);
  std::swap(count_, other.count_);
  return *this;
}

void HeartbeatPage::unlink(const std::string& name) {
  shm_unlink(("/" + name).c_str());
}

std::string HeartbeatPage::new_name() {
  return fmt::format("dapo-{}-{}-{:x}", geteuid(), getpid(),
                     std::chrono::steady_clock::now().time_since_epoch().count());
}

ProcessState process_state(int pid) {
  ProcessState p;
  std::FILE* const file = std::fopen(fmt::format("/proc/{}/stat", pid).c_str(), "re");
  if (!file) return p;
  char text[1024];
  const size_t length = std::fread(text, 1, sizeof text - 1, file);
  std::fclose(file);
  text[length] = 0;
  // The name, in brackets, may hold anything; fields after it: 3 state, 14 and 15 ticks of CPU, 22 start.
  const char* const rest = std::strrchr(text, ')');
  if (!rest) return p;
  unsigned long user = 0, system = 0;
  unsigned long long started = 0;
  if (std::sscanf(rest + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %llu",
                  &p.state, &user, &system, &started) != 4)
    return {};
  p.started = started;
  p.cpu_seconds = static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
  return p;
}

bool alive(const Heartbeat& rank) {
  const ProcessState p = process_state(rank.pid.load());
  return p.alive() && p.started == rank.started.load();
}

void begin_heartbeat(Heartbeat& rank) {
  rank.started.store(process_state(getpid()).started);
  rank.phase.set("start");
  rank.pid.store(getpid());
  rank.beat();
}

std::string rank_text(int rank, const Heartbeat& h) {
  std::string text = fmt::format("rank {} (pid {}), in phase {}", rank, h.pid.load(), h.phase.text());
  const Among among = h.among.load();
  if (const uint64_t calls = h.calls_of(among); calls > 0)
    text += fmt::format(", {} {}, its call {}{}", h.inside.load() ? "in" : "after", h.op.text(), calls,
                        among == Among::tensor ? " in its tensor group"
                        : among == Among::data ? " in its data group"
                                               : "");
  return text;
}

}  // namespace dapo
