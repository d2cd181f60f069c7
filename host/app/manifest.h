// MANIFEST.json of a checkpoint: the size and the XXH128 of each of its files, and its own. A folder is complete if it has
// one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dapo {

inline constexpr const char* kManifest = "MANIFEST.json";

/// Paths of a folder's files relative to it, sorted.
std::vector<std::string> files_in(const std::string& folder);
/// Writes the manifest of the folder's files, synced. `about`: a JSON object. Error (exit 3) if the disk refuses.
void write_manifest(const std::string& folder, int64_t step, bool open, const std::string& about);
/// Reads every file and compares it with the manifest: "" or what is wrong, with the file's name.
std::string find_damage(const std::string& folder);
/// Deletes the files that the manifest lists, then the manifest, then the folder unless it contains others.
void remove_listed(const std::string& folder);

}  // namespace dapo
