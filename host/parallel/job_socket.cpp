#include "host/parallel/job_socket.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/check.h"

namespace dapo {
namespace {

struct Address {
  sockaddr_un name{};
  socklen_t length = 0;
};

/// An abstract name: it begins with a zero byte, and ends with the socket.
Address address_of(const std::string& job) {
  Address a;
  CHECK(job.size() + 1 < sizeof a.name.sun_path, "{}", job);
  a.name.sun_family = AF_UNIX;
  std::memcpy(a.name.sun_path + 1, job.data(), job.size());
  a.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + job.size());
  return a;
}

OwnedFd new_socket() {
  OwnedFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd) fail(kExitResources, "socket: {}", std::strerror(errno));
  return fd;
}

ucred peer_of(const OwnedFd& fd) {
  ucred who{};
  socklen_t size = sizeof who;
  if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) != 0) who.uid = static_cast<uid_t>(-1);
  return who;
}

/// Waits no longer than this for the other end.
void limit_waits(const OwnedFd& fd) {
  const timeval limit{.tv_sec = 10, .tv_usec = 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

union Control {
  cmsghdr header;
  char bytes[CMSG_SPACE(2 * sizeof(int))];
};

/// A message of one byte, with room for two descriptors beside it.
class DescriptorMessage {
 public:
  explicit DescriptorMessage(Control& control) {
    message_.msg_iov = &data_;
    message_.msg_iovlen = 1;
    message_.msg_control = control.bytes;
    message_.msg_controllen = sizeof control.bytes;
  }
  DescriptorMessage(const DescriptorMessage&) = delete;
  DescriptorMessage& operator=(const DescriptorMessage&) = delete;
  msghdr* get() { return &message_; }

 private:
  char byte_ = 0;
  iovec data_{.iov_base = &byte_, .iov_len = 1};
  msghdr message_{};
};

}  // namespace

OwnedFd::~OwnedFd() {
  if (fd_ >= 0) close(fd_);
}

OwnedFd& OwnedFd::operator=(OwnedFd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

int OwnedFd::release() {
  return std::exchange(fd_, -1);
}

JobServer::JobServer(const std::string& job) : listener_(new_socket()) {
  const Address a = address_of(job);
  if (bind(listener_.get(), reinterpret_cast<const sockaddr*>(&a.name), a.length) != 0 ||
      listen(listener_.get(), SOMAXCONN) != 0)
    fail(kExitResources, "local socket {}: {}", job, std::strerror(errno));
}

JobClient JobServer::accept() {
  JobClient client{OwnedFd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC))};
  if (!client.connection) return client;
  limit_waits(client.connection);
  const ucred who = peer_of(client.connection);
  int rank = -1;
  if (who.uid != geteuid() || recv(client.connection.get(), &rank, sizeof rank, 0) != sizeof rank) return client;
  const std::array<int, 2> ours = {STDOUT_FILENO, STDERR_FILENO};
  Control control{};
  DescriptorMessage message(control);
  control.header.cmsg_level = SOL_SOCKET;
  control.header.cmsg_type = SCM_RIGHTS;
  control.header.cmsg_len = CMSG_LEN(sizeof ours);
  std::memcpy(CMSG_DATA(&control.header), ours.data(), sizeof ours);
  if (sendmsg(client.connection.get(), message.get(), MSG_NOSIGNAL) != 1) return client;
  client.rank = rank;
  client.pid = who.pid;
  return client;
}

JobTerminal connect_to_job(const std::string& job, int rank) {
  JobTerminal t{new_socket(), OwnedFd(), OwnedFd()};
  const Address a = address_of(job);
  const auto lost = [&](const char* call) {
    fail(kExitLostRank, "the program that started this rank is gone: {}: {}", call, std::strerror(errno));
  };
  if (connect(t.connection.get(), reinterpret_cast<const sockaddr*>(&a.name), a.length) != 0) lost("connect");
  if (peer_of(t.connection).uid != geteuid()) {
    errno = EPERM;
    lost("connect");
  }
  limit_waits(t.connection);
  if (::send(t.connection.get(), &rank, sizeof rank, MSG_NOSIGNAL) != sizeof rank) lost("send");
  std::array<int, 2> got = {-1, -1};
  Control control{};
  DescriptorMessage message(control);
  if (recvmsg(t.connection.get(), message.get(), MSG_CMSG_CLOEXEC) != 1 || control.header.cmsg_type != SCM_RIGHTS ||
      control.header.cmsg_len != CMSG_LEN(sizeof got))
    lost("recvmsg");
  std::memcpy(got.data(), CMSG_DATA(&control.header), sizeof got);
  t.out = OwnedFd(got[0]);
  t.error = OwnedFd(got[1]);
  return t;
}

}  // namespace dapo
