// Folders that this program writes: whose they are, who holds them, and how a new one takes an older one's place.
//
// Each holds dapo.json, written first. A folder without that file is somebody else's and is never changed; of a folder
// with it only the files listed there are ever removed. The process that writes a folder holds a lock on its dapo.json.
#pragma once

#include <memory>
#include <string>

namespace dapo {

inline constexpr const char* kFolderMark = "dapo.json";

enum class Overwrite : bool { no, yes };

/// "a/b/" is "a/b": a name that can be extended.
std::string without_slash(const std::string& folder);

/// Whether this program made the folder: it holds dapo.json.
bool is_our_folder(const std::string& folder);

/// Error (exit 2) where `to` cannot become a model folder of ours: it is a file, a mount point, somebody else's, or one
/// of ours and `overwrite` is no. Changes nothing.
void check_replaceable(const std::string& to, Overwrite overwrite);

/// A lock on dapo.json of a folder, held until destruction or the end of the process.
class FolderLock {
 public:
  /// Makes dapo.json where there is none. Error (exit 2) names the process that holds it.
  explicit FolderLock(const std::string& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  /// Replaces what dapo.json holds. `about`: a JSON object; the process id is added.
  void write(const std::string& about);

 private:
  std::string path_;
  int fd_ = -1;
};

/// A folder under construction, "TO.tmp", until publish() puts it in the place of TO; removed if that never happens.
/// What a crash left under that name is removed first.
class FreshFolder {
 public:
  /// Error (exit 2) where check_replaceable says so, TO.tmp belongs to somebody else or to a running process, or it
  /// cannot be made.
  FreshFolder(const std::string& to, Overwrite overwrite);
  ~FreshFolder();
  FreshFolder(const FreshFolder&) = delete;
  FreshFolder& operator=(const FreshFolder&) = delete;

  const std::string& path() const { return path_; }
  /// Puts the folder in the place of `to` (default: the constructor's) in one step; files in the older folder that this
  /// program did not write move into the new one. Where somebody else's folder has appeared under that name, the new
  /// one becomes "TO-2" (3, ...). Returns the final name. `about`: JSON object for dapo.json. Error (exit 3) where the
  /// file system refuses; the older folder is then as it was.
  std::string publish(const std::string& about, const std::string& to = "");

 private:
  std::string to_, path_;
  std::unique_ptr<FolderLock> lock_;
  bool published_ = false;
};

}  // namespace dapo
