// A file that appears whole or not at all, and the syncs that make this hold after a power cut.
#pragma once

#include <string>
#include <string_view>

namespace dapo {

/// Written as PATH.tmp; commit() syncs it and gives it its name. Without a commit it is removed, and `path` is as
/// before. Error (exit 3) names the call that failed.
class NewFile {
 public:
  explicit NewFile(std::string path);
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  void write(const void* from, size_t bytes);
  void commit();

 private:
  std::string path_, temporary_;
  int fd_ = -1;
};

/// A NewFile of this text.
void write_new_file(const std::string& path, std::string_view text);
/// Makes a file's data, or the names in a folder, durable (fsync). Error (exit 3) if that fails.
void sync_path(const std::string& path);

}  // namespace dapo
