#include "host/app/streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <utility>

#include "core/check.h"

namespace dapo {

void settle_standard_files() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(fd, F_GETFD) != -1 || errno != EBADF) continue;
    // open() returns the lowest free number, which is this one. The wrong access mode, on purpose: every write fails.
    const int opened = open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    if (opened >= 0 && opened != fd) close(opened);
  }
}

namespace {
/// `error`: errno, or 0 if an earlier write failed.
[[noreturn]] void output_lost(int error) {
  fail(kExitResources, "standard output: {}",
       error == EPIPE   ? "its reader has closed it; the output after that is lost"
       : error == EBADF ? "closed; its output is lost"
       : error == 0     ? "closed, full, or closed by its reader: its output is lost"
                        : fmt::format("cannot be written: {}", std::strerror(error)));
}
}  // namespace

void print_out(std::string_view text) {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) output_lost(errno);
}

void check_standard_output() {
  errno = 0;
  std::cout.flush();
  if (std::fflush(stdout) != 0 || std::ferror(stdout) || !std::cout) output_lost(errno);
}

AppendFile::AppendFile(const std::string& path, Start start) : path_(path) {
  fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (start == empty ? O_TRUNC : 0), 0644);
  if (fd_ < 0) fail(kExitResources, "{}: cannot be written: {}", path, std::strerror(errno));
}

AppendFile::AppendFile(AppendFile&& other) noexcept
    : path_(std::move(other.path_)), pending_(std::move(other.pending_)), fd_(std::exchange(other.fd_, -1)) {}

AppendFile& AppendFile::operator=(AppendFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(pending_, other.pending_);
  std::swap(fd_, other.fd_);
  return *this;
}

AppendFile::~AppendFile() {
  if (fd_ >= 0) close(fd_);
}

bool AppendFile::sync() {
  return complete() && fsync(fd_) == 0;
}

bool AppendFile::append(std::string_view text) {
  pending_ += text;
  size_t done = 0;
  while (done < pending_.size()) {
    const ssize_t n = write(fd_, pending_.data() + done, pending_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += n;
  }
  const int error = errno;
  pending_.erase(0, done);
  errno = error;
  return pending_.empty();
}

}  // namespace dapo
