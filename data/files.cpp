// The files that a user's path stands for.
#include "core/files.h"

#include <glob.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <map>

#include "core/check.h"
#include "data/dataset.h"

namespace dapo {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 5> kEndings = {".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz"};

std::string_view ending_of(std::string_view name) {
  for (const std::string_view e : kEndings)
    if (name.ends_with(e)) return e;
  return "";
}

/// "train" for "train-00000-of-00002.parquet": the split at the beginning of a name; "" if it names none.
std::string split_of(const std::string& name) {
  for (const std::string_view split : {"train", "test", "validation", "valid", "val", "dev", "eval"})
    if (name.starts_with(split) && !std::isalnum(static_cast<unsigned char>(name[split.size()])))
      return std::string(split);
  return "";
}

std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> files, subfolders;
  std::map<std::string, std::string> splits;  // with an example file
  std::map<std::string_view, std::string> endings;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    std::error_code ignored;
    if (entry.is_directory(ignored)) {
      if (!name.starts_with('.')) subfolders.push_back(name);
      continue;
    }
    const std::string_view ending = ending_of(name);
    if (ending.empty() || name.starts_with('.') || name == "dataset_info.json" || name == "dataset_infos.json" ||
        name == "state.json")
      continue;
    files.push_back(entry.path().string());
    splits.emplace(split_of(name), name);
    endings.emplace(ending, name);
  }
  if (error) fail_input("{}: cannot be read: {}", folder, error.message());
  std::sort(subfolders.begin(), subfolders.end());
  if (files.empty())
    fail_input("{}: a folder without data files (.jsonl, .json, .parquet){}{}", folder,
               subfolders.empty() ? "" : "; it has the folders ", fmt::join(subfolders, ", "));
  if (splits.size() > 1) {
    const auto first = splits.begin(), second = std::next(first);
    fail_input("{}: a folder with several splits ({}, {}): name the files, or a pattern such as {}/{}*", folder,
               first->second, second->second, folder, second->first);
  }
  if (endings.size() > 1)
    fail_input("{}: a folder with files of several formats ({}, {}): name the files, or a pattern such as {}/*{}",
               folder, endings.begin()->second, std::next(endings.begin())->second, folder, endings.begin()->first);
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

std::vector<std::string> data_files(const std::string& given) {
  const std::string path = expand_home(given);
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return files_in(path);
  if (path == "-" || fs::exists(path, ignored) || path.find_first_of("*?[") == path.npos) return {path};
  glob_t found{};
  const int rc = ::glob(path.c_str(), 0, nullptr, &found);  // sorted
  std::vector<std::string> files(found.gl_pathv, found.gl_pathv + (rc == 0 ? found.gl_pathc : 0));
  ::globfree(&found);
  if (files.empty()) fail_input("{}: no file matches this pattern", given);
  return files;
}

}  // namespace dapo
