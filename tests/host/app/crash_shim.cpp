// Preloaded into dapo_train by crash_test.py: counts the system calls that change files under SHIM_ROOT, and fails or
// kills the SHIM_AT-th. Writes each call that succeeded to SHIM_LOG, so that the test can undo what was not synced.
//
//   SHIM_DO     kill: SIGKILL before the call; a number: the call fails with this errno, and so do all that follow
//               while SHIM_MORE > 0 counts down
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

template <class F>
F* real(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

const char* setting(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

std::string path_of(int fd) {
  char link[64], path[PATH_MAX];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t n = readlink(link, path, sizeof path - 1);
  return n > 0 ? std::string(path, static_cast<size_t>(n)) : "";
}

std::string absolute(int folder, const char* path) {
  if (*path == '/') return path;
  char here[PATH_MAX];
  const std::string base = folder == AT_FDCWD ? (getcwd(here, sizeof here) != nullptr ? here : "") : path_of(folder);
  return base + "/" + path;
}

bool watched(const std::string& path) {
  static const std::string root = setting("SHIM_ROOT");
  return !root.empty() && path.compare(0, root.size(), root) == 0;
}

std::atomic<int> calls{0};

/// Whether the call fails by order, with errno set. May not return.
bool fails(const std::string& path) {
  if (!watched(path)) return false;
  static const int at = std::atoi(setting("SHIM_AT")), more = std::atoi(setting("SHIM_MORE"));
  const int number = ++calls;
  if (at == 0 || number < at || number > at + more) return false;
  if (std::strcmp(setting("SHIM_DO"), "kill") == 0) raise(SIGKILL);
  errno = std::atoi(setting("SHIM_DO"));
  return true;
}

template <class T>
T logged(T result, const char* what, const std::string& a, const std::string& b = "") {
  if (result < 0 || !watched(a)) return result;
  const int error = errno;
  static const int log =
      real<int(const char*, int, ...)>("open")(setting("SHIM_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0644);
  const std::string line = std::string(what) + "\t" + a + "\t" + b + "\n";
  if (log >= 0 && real<ssize_t(int, const void*, size_t)>("write")(log, line.data(), line.size()) < 0) std::abort();
  errno = error;
  return result;
}

int open_any(const char* name, int folder, const char* path, int flags, mode_t mode) {
  const std::string full = absolute(folder, path);
  if (!(flags & O_CREAT)) return real<int(int, const char*, int, ...)>("openat")(folder, path, flags, mode);
  if (fails(full)) return -1;
  struct stat there {};
  const bool is_new = fstatat(folder, path, &there, 0) != 0;
  (void)name;
  return logged(real<int(int, const char*, int, ...)>("openat")(folder, path, flags, mode),
                is_new            ? "create"
                : flags & O_TRUNC ? "data"
                                  : "append",
                full);
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
  va_end(more);
  return open_any("open", AT_FDCWD, path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
  va_end(more);
  return open_any("open64", AT_FDCWD, path, flags, mode);
}
ssize_t write(int fd, const void* from, size_t bytes) {
  const std::string path = path_of(fd);
  if (fails(path)) return -1;
  return logged(real<ssize_t(int, const void*, size_t)>("write")(fd, from, bytes), "data", path);
}
ssize_t sendfile(int to, int from, off_t* at, size_t bytes) {
  const std::string path = path_of(to);
  if (fails(path)) return -1;
  return logged(real<ssize_t(int, int, off_t*, size_t)>("sendfile")(to, from, at, bytes), "data", path);
}
ssize_t copy_file_range(int from, off64_t* a, int to, off64_t* b, size_t bytes, unsigned flags) {
  const std::string path = path_of(to);
  if (fails(path)) return -1;
  return logged(
      real<ssize_t(int, off64_t*, int, off64_t*, size_t, unsigned)>("copy_file_range")(from, a, to, b, bytes, flags),
      "data", path);
}
int fsync(int fd) {
  const std::string path = path_of(fd);
  if (fails(path)) return -1;
  return logged(real<int(int)>("fsync")(fd), "sync", path);
}
int rename(const char* from, const char* to) {
  const std::string full = absolute(AT_FDCWD, from);
  if (fails(full)) return -1;
  return logged(real<int(const char*, const char*)>("rename")(from, to), "rename", full, absolute(AT_FDCWD, to));
}
int renameat2(int a, const char* from, int b, const char* to, unsigned flags) {
  const std::string full = absolute(a, from);
  if (fails(full)) return -1;
  return logged(real<int(int, const char*, int, const char*, unsigned)>("renameat2")(a, from, b, to, flags), "exchange",
                full, absolute(b, to));
}
int mkdir(const char* path, mode_t mode) {
  const std::string full = absolute(AT_FDCWD, path);
  if (fails(full)) return -1;
  return logged(real<int(const char*, mode_t)>("mkdir")(path, mode), "create", full);
}
int unlink(const char* path) {
  const std::string full = absolute(AT_FDCWD, path);
  if (fails(full)) return -1;
  return logged(real<int(const char*)>("unlink")(path), "remove", full);
}
int unlinkat(int folder, const char* path, int flags) {
  const std::string full = absolute(folder, path);
  if (fails(full)) return -1;
  return logged(real<int(int, const char*, int)>("unlinkat")(folder, path, flags), "remove", full);
}
int remove(const char* path) {
  const std::string full = absolute(AT_FDCWD, path);
  if (fails(full)) return -1;
  return logged(real<int(const char*)>("remove")(path), "remove", full);
}
int symlink(const char* target, const char* path) {
  const std::string full = absolute(AT_FDCWD, path);
  if (fails(full)) return -1;
  return logged(real<int(const char*, const char*)>("symlink")(target, path), "create", full);
}

}  // extern "C"

namespace {
/// At the end of the process: how many calls there were.
struct Report {
  ~Report() {
    if (const char* to = setting("SHIM_COUNT"); *to != '\0')
      if (std::FILE* f = std::fopen(to, "w")) std::fprintf(f, "%d\n", calls.load()), std::fclose(f);
  }
} report;
}  // namespace
