// The line between the program that was typed and the ranks that it started on this machine: a local socket without a
// name in any file system. Ranks get the standard output and error of the typed program through it, so that a terminal
// stays one and no output passes through mpirun; the typed program learns the ranks' processes, and sees each end.
#pragma once

#include <string>
#include <vector>

namespace dapo {

/// A file descriptor that is closed with its owner.
class OwnedFd {
 public:
  explicit OwnedFd(int fd = -1) : fd_(fd) {}
  ~OwnedFd();
  OwnedFd(OwnedFd&& other) noexcept : fd_(other.release()) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept;
  int get() const { return fd_; }
  int release();
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

struct JobClient {
  OwnedFd connection;
  int rank = -1, pid = 0;
};

/// The typed program's end.
class JobServer {
 public:
  explicit JobServer(const std::string& job);
  int fd() const { return listener_.get(); }
  /// A rank that waits to connect: gives it our standard output and error. rank -1: not one of ours.
  JobClient accept();

 private:
  OwnedFd listener_;
};

/// A rank's end.
struct JobTerminal {
  OwnedFd connection, out, error;
};
/// Error (exit 5) if the typed program is gone.
JobTerminal connect_to_job(const std::string& job, int rank);

}  // namespace dapo
