// Standard output and files that lines are appended to, where a reader may go away and a disk may be full.
#pragma once

#include <string>
#include <string_view>

namespace dapo {

/// First in main. A standard file that is closed (`>&-`) becomes one that refuses every read and write, so that no file
/// of the run is opened under its number; SIGPIPE and SIGXFSZ become errors of write().
void settle_standard_files();

/// Writes to standard output. Error (exit 3) where it refuses: the reader has left, the disk is full.
void print_out(std::string_view text);
/// Error (exit 3) where something written to standard output, by whatever means, did not arrive.
void check_standard_output();

/// A file that lines are appended to. What the disk refuses is kept and tried again with the next line.
class AppendFile {
 public:
  AppendFile() = default;
  /// Empties the file or makes it. Error (exit 3) where it cannot be opened.
  explicit AppendFile(const std::string& path);
  ~AppendFile();
  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&& other) noexcept;

  explicit operator bool() const { return fd_ >= 0; }
  /// Writes what is pending, then the text. False where the disk refuses (errno says why).
  bool append(std::string_view text);
  /// Whether all that was appended is written; tries once more.
  bool complete() { return append(""); }
  const std::string& path() const { return path_; }

 private:
  std::string path_, pending_;
  int fd_ = -1;
};

}  // namespace dapo
