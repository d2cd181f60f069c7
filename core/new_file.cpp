#include "core/new_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/check.h"

namespace dapo {
namespace {

[[noreturn]] void disk_error(const std::string& path, const char* call) {
  fail(kExitResources, "{}: {}: {}", path, call, std::strerror(errno));
}

}  // namespace

NewFile::NewFile(std::string path) : path_(std::move(path)), temporary_(path_ + ".tmp") {
  ::unlink(temporary_.c_str());
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (fd_ < 0) disk_error(temporary_, "open");
}

NewFile::~NewFile() {
  if (fd_ >= 0) ::close(fd_), ::unlink(temporary_.c_str());
}

void NewFile::write(const void* from, size_t bytes) {
  const char* p = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t n = ::write(fd_, p, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) disk_error(temporary_, "write");
    p += n, bytes -= static_cast<size_t>(n);
  }
}

void NewFile::commit() {
  if (::fsync(fd_) != 0) disk_error(temporary_, "fsync");
  const int fd = std::exchange(fd_, -1);
  if (::close(fd) != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    errno = error;
    disk_error(path_, "close or rename");
  }
}

void write_new_file(const std::string& path, std::string_view text) {
  NewFile file(path);
  file.write(text.data(), text.size());
  file.commit();
}

void sync_path(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) disk_error(path, "open");
  const int rc = ::fsync(fd), error = errno;
  ::close(fd);
  if (rc == 0 || error == EINVAL) return;  // EINVAL: the file system does not sync folders
  errno = error;
  disk_error(path, "fsync");
}

}  // namespace dapo
