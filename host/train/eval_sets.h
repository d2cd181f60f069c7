// The sets of data.val_files: each entry is a set of its own, and may be the name of a well-known one.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/dataset.h"
#include "host/train/settings.h"

namespace dapo {

struct KnownSet {
  std::string_view name, files;  ///< files: where data/download.sh puts them, "a|b"
};
/// AIME 2024 and 2025, AMC 2023, GSM8K, MATH-500.
std::span<const KnownSet> known_sets();

struct EvalSet {
  std::string name;  ///< the known set's, else from the file's or folder's name; unique
  Dataset data;
};

/// What an entry of data.val_files stands for: the files of the known set of that name, unless a file or folder is
/// called so; else itself.
std::vector<std::string> set_files(const std::string& entry);
/// For a known set whose files are not there: which one, and how to fetch it; else "".
std::string missing_set(const std::string& entry);

/// Error (exit 2) names a row whose ground truth is a JSON object, if the verifier compares texts or mathematics.
void check_ground_truths(const Dataset& data, const std::string& verifier);

/// Loads every entry of data.val_files as a set. Error (exit 2) if that fails, or if missing_set.
std::vector<EvalSet> load_eval_sets(const DataSection& data);

}  // namespace dapo
