// Folders that this program writes: who owns them, who locks them, and how a new one replaces an older one.
//
// Each holds dapo.json, written first. A folder without that file is not ours and is never changed; in a folder
// with it, only the files listed there are ever removed. The process that writes a folder locks its dapo.json.
#pragma once

#include <memory>
#include <string>

namespace dapo {

inline constexpr const char* kFolderMark = "dapo.json";

enum class Overwrite : bool { no, yes };

/// "a/b/" becomes "a/b", to which a suffix can be appended.
std::string without_slash(const std::string& folder);

/// Makes a folder and its parents where they are not there. Error: exit 3 if the disk is full, 2 if the path is at fault.
void make_folders(const std::string& path);

/// Whether this program made the folder, that is, whether it holds dapo.json.
bool is_our_folder(const std::string& folder);

/// Error (exit 2) if `to` cannot become a model folder of ours: it is a file, a mount point, not ours, or ours while
/// `overwrite` is no. Changes nothing.
void check_replaceable(const std::string& to, Overwrite overwrite);

/// A lock on the dapo.json of a folder, held until destruction or the end of the process.
class FolderLock {
 public:
  /// Creates dapo.json if there is none. Error (exit 2) names the process that holds the lock.
  explicit FolderLock(const std::string& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  /// Replaces the content of dapo.json. `about`: a JSON object; the process id is added.
  void write(const std::string& about);

 private:
  std::string path_;
  int fd_ = -1;
};

/// A folder under construction, "TO.tmp", until publish() replaces TO with it; removed if that never happens.
/// What a crash left under that name is removed first.
class FreshFolder {
 public:
  /// Error (exit 2) if check_replaceable fails, TO.tmp is not ours or belongs to a running process, or it cannot be
  /// created.
  FreshFolder(const std::string& to, Overwrite overwrite);
  ~FreshFolder();
  FreshFolder(const FreshFolder&) = delete;
  FreshFolder& operator=(const FreshFolder&) = delete;

  const std::string& path() const { return path_; }
  /// Atomically replaces `to` (default: the constructor's) with the folder; files in the older folder that this program
  /// did not write move into the new one. If a folder that is not ours has appeared under that name, the new one
  /// becomes "TO-2" (3, ...). Returns the final name. `about`: JSON object for dapo.json. Error (exit 3) if the file
  /// system fails; the older folder is then unchanged.
  std::string publish(const std::string& about, const std::string& to = "");

 private:
  std::string to_, path_;
  std::unique_ptr<FolderLock> lock_;
  bool published_ = false;
};

}  // namespace dapo
