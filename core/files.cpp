#include "core/files.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "core/check.h"

namespace dapo {

std::string expand_home(const std::string& path) {
  if (!path.starts_with('~')) return path;
  const size_t slash = std::min(path.find('/'), path.size());
  const std::string user = path.substr(1, slash - 1), rest = path.substr(slash);
  const char* home = user.empty() ? std::getenv("HOME") : nullptr;
  if (home == nullptr || *home == '\0') {
    const passwd* entry = user.empty() ? getpwuid(getuid()) : getpwnam(user.c_str());
    if (entry == nullptr) return path;  // a file may have such a name
    home = entry->pw_dir;
  }
  return home + rest;
}

std::string_view foreign_format(std::string_view head) {
  using namespace std::string_view_literals;
  static constexpr std::pair<std::string_view, std::string_view> kStarts[] = {
      {"version https://git-lfs.github.com/spec/",
       "a Git LFS pointer, not the file itself: run git lfs pull, or "
       "download it again"},
      {"<!DOCTYPE", "an HTML page, not the file: download it again (the hub shows pages where a login is needed)"},
      {"<!doctype", "an HTML page, not the file: download it again (the hub shows pages where a login is needed)"},
      {"<html", "an HTML page, not the file: download it again (the hub shows pages where a login is needed)"},
      {"GGUF", "a GGUF file: take the model's folder with safetensors instead"},
      {"PK\x03\x04", "a zip archive (PyTorch's .bin and .pt files are such)"},
      {"PAR1", "a Parquet file: its name must end in .parquet"},
      {"ARROW1", "an Arrow file: write it with to_parquet or to_json of the datasets library"},
      {"\x28\xB5\x2F\xFD", "compressed by zstd: unpack it (zstd -d)"},
      {"\x1F\x8B", "compressed by gzip: unpack it (gzip -d)"},
      {"BZh", "compressed by bzip2: unpack it (bzip2 -d)"},
      {"\xFD"
       "7zXZ",
       "compressed by xz: unpack it (xz -d)"},
      {"\xFF\xFE", "text in UTF-16: save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"},
      {"\xFE\xFF", "text in UTF-16: save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"},
  };
  for (const auto& [start, what] : kStarts)
    if (head.starts_with(start)) return what;
  return "";
}

std::string_view special_file(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a fifo";
  if (S_ISSOCK(mode)) return "a socket";
  return S_ISREG(mode) ? "" : "a device";
}

bool has_entry(const std::string& path) {
  struct stat st {};
  return ::lstat(path.c_str(), &st) == 0;
}

std::string open_error(const std::string& path, int error) {
  std::error_code none;
  const auto target = std::filesystem::read_symlink(path, none);
  if (none || (error != ENOENT && error != ELOOP)) return std::strerror(error);
  if (error == ELOOP) return fmt::format("a link that leads back to itself ({})", target.string());
  return fmt::format("a link to {}, where nothing is: download the file again", target.string());
}

int open_regular(const std::string& path, uint64_t& size) {
  // O_NONBLOCK: a fifo of that name must not hang the program.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat st {};
  if (fd < 0) {
    const int error = errno;
    if (error == ENXIO && ::stat(path.c_str(), &st) == 0)
      fail_input("{}: {}, not a file", path, special_file(st.st_mode));
    fail_input("{}: {}", path, open_error(path, error));
  }
  if (::fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
    ::close(fd);
    fail_input("{}: {}, not a file", path, special_file(st.st_mode));
  }
  size = static_cast<uint64_t>(st.st_size);
  return fd;
}

void check_format(const std::string& path) {
  uint64_t size = 0;
  const int fd = open_regular(path, size);
  char head[64];
  const ssize_t n = ::read(fd, head, sizeof head);
  ::close(fd);
  const auto format = foreign_format({head, static_cast<size_t>(std::max<ssize_t>(n, 0))});
  if (!format.empty()) fail_input("{}: {}", path, format);
}

}  // namespace dapo
