#include "host/verify/line_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>
#include <utility>

#include "core/check.h"

namespace dapo::verify {
namespace {
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void close_now(int& fd) {
  if (fd >= 0) close(fd);
  fd = -1;
}

/// The last line that is not empty, without control characters, shortened.
std::string last_line(std::string_view text) {
  while (!text.empty() && static_cast<unsigned char>(text.back()) <= ' ') text.remove_suffix(1);
  text.remove_prefix(text.rfind('\n') + 1);  // npos + 1 is 0: the whole
  std::string out(text.substr(0, 200));
  std::erase_if(out, [](unsigned char c) { return c < ' ' || c == 0x7f; });
  return out;
}

/// Runs in the child, which shares our memory until exec: only calls that change the child alone.
[[noreturn]] void become(char* const* arguments, const int (&streams)[3], pid_t parent, volatile int& error) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // it died before the line above
  for (int fd = 0; fd < 3; ++fd)
    if (dup2(streams[fd], fd) < 0) _exit(127);
#ifdef CLOSE_RANGE_CLOEXEC
  close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);  // descriptors of ours that a library opened without O_CLOEXEC
#endif
  struct sigaction plain {};
  plain.sa_handler = SIG_DFL;
  for (int s = 1; s < NSIG; ++s) sigaction(s, &plain, nullptr);  // an ignored SIGPIPE would be inherited
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execvp(arguments[0], arguments);
  error = errno;
  _exit(127);
}

}  // namespace

LineProcess::LineProcess(const std::vector<std::string>& command) {
  CHECK(!command.empty());
  std::signal(SIGPIPE, SIG_IGN);  // as the programs do: a process that ends while we write is an error of write()
  int pipes[3][2];
  for (int i = 0; i < 3; ++i) {
    if (pipe2(pipes[i], O_CLOEXEC) == 0) continue;
    const int error = errno;
    while (--i >= 0) close(pipes[i][0]), close(pipes[i][1]);
    fail(kExitResources, "\"{}\" cannot be started: {}", command[0], std::strerror(error));
  }
  in_ = pipes[0][1], out_ = pipes[1][0], err_ = pipes[2][0];
  const int streams[3] = {pipes[0][0], pipes[1][1], pipes[2][1]};
  for (const int fd : {in_, out_, err_}) fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);

  std::vector<char*> arguments;
  arguments.reserve(command.size() + 1);
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  volatile int error = 0;
  const pid_t parent = getpid();
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // no handler of ours may run in the child
  // vfork: fork would copy the page tables of the weights. In the child pid_ is the parent's, which is set again there.
  // NOLINTNEXTLINE(clang-analyzer-security.insecureAPI.vfork,clang-analyzer-unix.Vfork)
  pid_ = vfork();
  if (pid_ == 0) become(arguments.data(), streams, parent, error);
  const int forked = pid_ < 0 ? errno : 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  for (const int fd : streams) close(fd);
  if (pid_ > 0 && error == 0) return;
  if (pid_ > 0) waitpid(pid_, nullptr, 0);
  for (int* fd : {&in_, &out_, &err_}) close_now(*fd);
  const int why = pid_ > 0 ? error : forked;
  fail(pid_ > 0 ? kExitUsage : kExitResources, "\"{}\" cannot be started: {}{}", command[0], std::strerror(why),
       why == ENOENT   ? "; is its name or path right?"
       : why == EACCES ? "; is it executable (chmod +x)?"
                       : "");
}

LineProcess::~LineProcess() {
  close_input();
  if (!broken_) wait_for_end(kGrace - seconds_since(input_closed_), nullptr);
  kill(-pid_, SIGKILL);  // also what it has started; the group exists until its leader is reaped
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  close_now(out_), close_now(err_);
}

void LineProcess::close_input() {
  if (in_ >= 0) input_closed_ = Clock::now();
  close_now(in_);
}

/// Waits until it has ended, without reaping it; si_pid 0: it still runs.
siginfo_t LineProcess::wait_for_end(double seconds, const std::atomic<bool>* cancelled) {
  siginfo_t ended{};
  for (const auto start = Clock::now();;) {
    read_output(), read_errors();  // it may wait for room in a pipe
    if (waitid(P_PID, pid_, &ended, WEXITED | WNOHANG | WNOWAIT) != 0 || ended.si_pid != 0) return ended;
    if (seconds_since(start) >= seconds || (cancelled && *cancelled)) return ended;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

/// Reads what there is; false at the end of the output.
bool LineProcess::read_output() {
  char block[1 << 14];
  while (output_.size() <= kLongestAnswer) {
    const ssize_t n = read(out_, block, sizeof block);
    if (n > 0) output_.append(block, n);
    if (n == 0) return false;
    if (n < 0 && errno != EINTR) return true;
  }
  return true;
}

void LineProcess::read_errors() {
  constexpr size_t kKept = 4096;
  char block[kKept];
  while (err_ >= 0) {
    const ssize_t n = read(err_, block, sizeof block);
    if (n > 0) errors_.append(block, n);
    if (n == 0) close_now(err_);
    if (n < 0 && errno != EINTR) break;
    if (errors_.size() > kKept) errors_.erase(0, errors_.size() - kKept);
  }
}

void LineProcess::wait_for_pipes(bool writing, double seconds) {
  constexpr double kLook = 0.1;  // how often ask() looks at `cancelled`
  pollfd fds[] = {{out_, POLLIN, 0}, {err_, POLLIN, 0}, {writing ? in_ : -1, POLLOUT, 0}};
  poll(fds, 3, static_cast<int>(1000 * std::clamp(seconds, 0.0, kLook)) + 1);
}

/// How it has ended, with the last line that it wrote to its standard error; `otherwise` if it still runs.
std::string LineProcess::end_text(const char* otherwise, const std::atomic<bool>& cancelled) {
  constexpr double kWait = 5;  // a process that ends closes its pipes first; on a busy machine long before
  const siginfo_t ended = wait_for_end(kWait, &cancelled);
  read_errors();
  std::string text = ended.si_pid == 0             ? otherwise
                     : ended.si_code == CLD_EXITED ? fmt::format("ended with exit code {}", ended.si_status)
                                                   : fmt::format("was killed by signal {}", ended.si_status);
  if (const std::string line = last_line(errors_); !line.empty()) text += ": " + line;
  return text;
}

/// Whether it printed before the line was written or during that is a matter of scheduling: one message for both.
void LineProcess::refuse_early_answer() const {
  fail_input("printed before it had read its line of input: \"{}\"; print one line for each line of input",
             last_line(output_));
}

std::string LineProcess::ask(std::string_view line, double seconds, const std::atomic<bool>& cancelled) {
  CHECK(!broken_);
  broken_ = true;  // until the answer is here
  const auto start = Clock::now();
  bool open = read_output();
  read_errors();
  if (!output_.empty()) refuse_early_answer();
  std::string text(line);
  text += '\n';
  for (size_t sent = 0;;) {
    if (!open) fail_input("{}", end_text("closed its output", cancelled));
    while (sent < text.size()) {
      const ssize_t n = write(in_, text.data() + sent, text.size() - sent);
      if (n > 0) sent += n;
      if (n < 0 && errno == EAGAIN) break;
      if (n < 0 && errno != EINTR) fail_input("{}", end_text("closed its input", cancelled));
    }
    wait_for_pipes(sent < text.size(), seconds - seconds_since(start));
    open = read_output();
    read_errors();
    if (const size_t end = output_.find('\n'); end != std::string::npos) {
      if (end + 1 < output_.size())
        fail_input("printed more than one line for a line of input: \"{}\"", last_line(output_));
      if (sent < text.size()) refuse_early_answer();
      broken_ = false;
      answered_ = true;
      output_.pop_back();
      return std::exchange(output_, {});
    }
    if (output_.size() > kLongestAnswer) fail_input("printed more than {} bytes without a line end", kLongestAnswer);
    if (cancelled) fail_input("was cancelled");
    if (seconds_since(start) > seconds) fail_input("gave no answer within {:g} s (reward.timeout)", seconds);
  }
}

}  // namespace dapo::verify
