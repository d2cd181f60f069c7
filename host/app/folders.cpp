#include "host/app/folders.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "core/check.h"
#include "core/new_file.h"

namespace dapo {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

Json read_mark(const fs::path& folder) {
  std::ifstream in(folder / kFolderMark, std::ios::binary);
  return Json::parse(in, nullptr, false);
}

bool is_ours(const fs::path& folder) {
  std::error_code none;
  return fs::is_regular_file(fs::symlink_status(folder / kFolderMark, none));
}

/// Names of the files that this program wrote into a folder; empty if dapo.json does not list them.
std::set<std::string> files_of(const fs::path& folder) {
  std::set<std::string> names;
  const Json mark = read_mark(folder);
  if (mark.is_object() && mark.contains("files") && mark["files"].is_array())
    for (const Json& one : mark["files"])
      if (one.is_string()) names.insert(one.get<std::string>());
  return names;
}

bool is_mount_point(const fs::path& folder) {
  struct stat here {
  }, above{};
  return stat(folder.c_str(), &here) == 0 && stat((folder / "..").c_str(), &above) == 0 && here.st_dev != above.st_dev;
}

[[noreturn]] void disk_error(const fs::path& path, const char* call) {
  fail(kExitResources, "{}: {}: {}", path.string(), call, std::strerror(errno));
}

/// Empties `old`, a folder of ours, and removes it: files that it lists are deleted, everything else moves into `to`.
void dissolve(const fs::path& old, const fs::path& to) {
  const std::set<std::string> ours = files_of(old);
  for (const auto& entry : fs::directory_iterator(old)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_directory() && ours.contains(name)) {
      fs::remove(entry.path());
    } else if (name != kFolderMark) {
      fs::path kept = to / name;
      while (fs::exists(fs::symlink_status(kept))) kept += ".kept";
      fs::rename(entry.path(), kept);
    }
  }
  fs::remove(old / kFolderMark);
  fs::remove(old);
}

/// Removes what a crash left of a folder under construction: its files, and the folder if nothing else is in it.
void remove_leftovers(const fs::path& folder) {
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none))
    if (!entry.is_directory(none) && entry.path().filename() != kFolderMark) fs::remove(entry.path(), none);
  for (const auto& entry : fs::directory_iterator(folder, none))
    if (entry.path().filename() != kFolderMark) return;
  fs::remove(folder / kFolderMark, none);
  fs::remove(folder, none);
}

/// `path`, or the first of path-2, path-3, ... that does not exist or, with `ours`, is a folder of ours or empty.
fs::path free_name(const fs::path& path, bool ours) {
  const auto taken = [&](const fs::path& p) {
    if (!fs::exists(fs::symlink_status(p))) return false;
    return !ours || !(is_ours(p) || (fs::is_directory(p) && fs::is_empty(p)));
  };
  fs::path name = path;
  for (int i = 2; taken(name); ++i) name = fmt::format("{}-{}", path.string(), i);
  return name;
}

/// The path to rename from and to: as the user gave it, but with ".." and symbolic links resolved.
std::string real_name(const std::string& to) {
  const fs::path given = to, path = without_slash(to);
  const bool plain = std::none_of(given.begin(), given.end(), [](const fs::path& p) { return p == ".."; });
  std::error_code error;
  if (plain && path != "." && path != "/" && !fs::is_symlink(path, error)) return path.string();
  const fs::path real = fs::weakly_canonical(to, error);
  if (error) fail_input("{}: {}", to, error.message());
  return without_slash(real.string());
}

}  // namespace

std::string without_slash(const std::string& folder) {
  const fs::path path = fs::path(folder).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).string();
}

void make_folders(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (!error) return;
  const bool full = error == std::errc::no_space_on_device || error.value() == EDQUOT;
  fail(full ? kExitResources : kExitUsage, "{}: cannot be made: {}; {}", path, error.message(),
       full ? "free some space, or name a folder on another disk" : "name another folder");
}

bool is_our_folder(const std::string& folder) {
  return is_ours(folder);
}

void check_replaceable(const std::string& to, Overwrite overwrite) {
  std::error_code error;
  if (!fs::exists(to, error)) {
    if (fs::is_symlink(to, error)) fail_input("{}: a dangling symbolic link; name another folder", to);
    return;
  }
  if (!fs::is_directory(to, error)) fail_input("{}: a file of that name exists; name another folder", to);
  if (is_mount_point(to))
    fail_input("{}: a mount point, which no other folder can replace; name a folder in it, such as {}/model", to,
               without_slash(to));
  if (fs::is_empty(to, error) && !error) return;
  if (!is_ours(to))
    fail_input("{}: exists, and this program did not write it (no {}), so it is left alone; name another folder", to,
               kFolderMark);
  if (overwrite == Overwrite::no)
    fail_input("{}: already holds a model; name another folder, or give --overwrite to replace it", to);
}

FolderLock::FolderLock(const std::string& folder) : path_(folder + "/" + kFolderMark) {
  struct stat held {
  }, named{};
  do {  // until the locked file is the one of that name: another process may have moved the folder in the meantime
    if (fd_ >= 0) ::close(fd_);
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd_ < 0) fail_input("{}: cannot be written: {}", path_, std::strerror(errno));
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      const bool busy = errno == EWOULDBLOCK;
      const std::string why = std::strerror(errno);
      ::close(fd_);
      if (!busy) fail_input("{}: cannot be locked: {}; name a folder on another file system", path_, why);
      const Json mark = read_mark(folder);
      const bool known = mark.is_object() && mark.contains("pid") && mark["pid"].is_number_integer();
      fail_input("{}: process {} is writing there; wait for it, or name another folder", folder,
                 known ? std::to_string(mark["pid"].get<int64_t>()) : "?");
    }
  } while (::fstat(fd_, &held) != 0 || ::stat(path_.c_str(), &named) != 0 || held.st_ino != named.st_ino ||
           held.st_dev != named.st_dev);
}

FolderLock::~FolderLock() {
  ::close(fd_);
}

void FolderLock::write(const std::string& about) {
  Json mark = Json::parse(about);
  mark["pid"] = ::getpid();
  const std::string text = mark.dump(1) + "\n";
  if (::ftruncate(fd_, 0) != 0 || ::pwrite(fd_, text.data(), text.size(), 0) != std::ssize(text))
    disk_error(path_, "write");
}

FreshFolder::FreshFolder(const std::string& to, Overwrite overwrite) {
  check_replaceable(to, overwrite);
  std::error_code error;
  to_ = real_name(to);
  path_ = to_ + ".tmp";
  if (fs::exists(path_, error)) {
    if (!fs::is_directory(path_, error) || (!is_ours(path_) && !fs::is_empty(path_, error)))
      fail_input("{}: in the way, because the model is written there first; move it, or name another folder", path_);
    if (is_ours(path_)) {
      const FolderLock held(path_);
      // A crash after publish() exchanged the folders leaves the older one here, which lists its files; otherwise
      // this is a half-written one.
      if (!files_of(path_).empty() && is_ours(to_)) {
        dissolve(path_, to_);
      } else {
        remove_leftovers(path_);
      }
    }
    if (fs::exists(path_, error) && !fs::is_empty(path_, error))
      fail_input("{}: in the way, because the model is written there first; move it, or name another folder", path_);
  }
  make_folders(path_);
  lock_ = std::make_unique<FolderLock>(path_);
  lock_->write("{}");
}

FreshFolder::~FreshFolder() {
  if (!published_) remove_leftovers(path_);
}

std::string FreshFolder::publish(const std::string& about, const std::string& as) {
  try {
    Json mark = Json::parse(about);
    mark["files"] = Json::array();
    for (const auto& entry : fs::directory_iterator(path_)) {
      if (entry.path().filename() != kFolderMark) mark["files"].push_back(entry.path().filename().string());
      if (entry.path().filename() != kFolderMark) sync_path(entry.path().string());
    }
    lock_->write(mark.dump());
    sync_path(path_ + "/" + kFolderMark);
    sync_path(path_);
    const fs::path to = free_name(as.empty() ? to_ : as, true);
    if (!is_ours(to)) {
      fs::rename(path_, to);  // the target does not exist or is an empty folder
    } else if (::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
      published_ = true;
      dissolve(path_, to);
    } else {  // the file system cannot exchange folders
      const fs::path old = free_name(to.string() + ".old", false);
      fs::rename(to, old);
      fs::rename(path_, to);
      dissolve(old, to);
    }
    published_ = true;
    sync_path(to.has_parent_path() ? to.parent_path().string() : ".");
    return to.string();
  } catch (const fs::filesystem_error& e) {
    fail(kExitResources, "{}: the model cannot be written: {}", to_, e.code().message());
  }
}

}  // namespace dapo
