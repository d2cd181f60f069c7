// Standard output and append-only files, when a reader may close its end and a disk may be full.
#pragma once

#include <string>
#include <string_view>

namespace dapo {

/// Call it first in main. A closed standard stream (`>&-`) is replaced by one on which every read and write fails, so
/// that no file of the run gets its number; SIGPIPE and SIGXFSZ become errors of write().
void settle_standard_files();

/// Writes to standard output. Error (exit 3) if that fails: the reader has closed it, the disk is full.
void print_out(std::string_view text);
/// Error (exit 3) if anything written to standard output, through any interface, was lost.
void check_standard_output();

/// A file that lines are appended to. Lines that cannot be written are kept and retried with the next one.
class AppendFile {
 public:
  AppendFile() = default;
  enum Start : bool { empty, end };
  /// Creates the file if there is none; `empty` drops what it holds. Error (exit 3) if it cannot be opened.
  explicit AppendFile(const std::string& path, Start start = empty);
  ~AppendFile();
  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&& other) noexcept;

  explicit operator bool() const { return fd_ >= 0; }
  /// Writes what is pending, then the text. False if the write fails (see errno).
  bool append(std::string_view text);
  /// Whether everything appended has been written; tries once more.
  bool complete() { return append(""); }
  /// complete(), and on disk.
  bool sync();
  const std::string& path() const { return path_; }

 private:
  std::string path_, pending_;
  int fd_ = -1;
};

}  // namespace dapo
