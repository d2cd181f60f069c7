#include "host/app/manifest.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/new_file.h"

namespace dapo {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormat = 1;

/// XXH128 of a file as xxhsum prints it. Error (exit 2) if it cannot be read.
std::string hash_of(const fs::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_input("{}: cannot be opened: {}", file.string(), std::strerror(errno));
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), XXH3_freeState);
  XXH3_128bits_reset(state.get());
  std::vector<char> block(4 << 20);
  ssize_t n;
  while ((n = ::read(fd, block.data(), block.size())) > 0 || (n < 0 && errno == EINTR))
    if (n > 0) XXH3_128bits_update(state.get(), block.data(), size_t(n));
  const int error = errno;
  ::close(fd);
  if (n < 0) fail_input("{}: cannot be read: {}", file.string(), std::strerror(error));
  const XXH128_hash_t h = XXH3_128bits_digest(state.get());
  return fmt::format("{:016x}{:016x}", h.high64, h.low64);
}

std::string hash_of_text(const std::string& text) {
  const XXH128_hash_t h = XXH3_128bits(text.data(), text.size());
  return fmt::format("{:016x}{:016x}", h.high64, h.low64);
}

/// Whether a name in a manifest stays inside the folder.
bool is_inside(const std::string& name) {
  const fs::path path(name);
  return !name.empty() && path.is_relative() && std::ranges::find(path, "..") == path.end();
}

}  // namespace

std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) out.push_back(entry.path().lexically_relative(folder).string());
  std::sort(out.begin(), out.end());
  return out;
}

void write_manifest(const std::string& folder, int64_t step, bool open, const std::string& about) {
  Json manifest = {{"format", kFormat}, {"step", step}, {"open", open}, {"files", Json::array()}};
  for (const std::string& name : files_in(folder)) {
    const fs::path file = fs::path(folder) / name;
    manifest["files"].push_back({{"name", name}, {"bytes", fs::file_size(file)}, {"xxh128", hash_of(file)}});
  }
  manifest["about"] = Json::parse(about);
  manifest["xxh128"] = hash_of_text(manifest.dump(1));
  write_new_file(folder + "/" + kManifest, manifest.dump(1) + "\n");
}

std::string find_damage(const std::string& folder) try {
  std::ifstream in(folder + "/" + kManifest, std::ios::binary);
  Json manifest = Json::parse(in);
  const std::string own = manifest.value("xxh128", "");
  manifest.erase("xxh128");
  if (own != hash_of_text(manifest.dump(1))) return fmt::format("{} has changed: its hash is not its own", kManifest);
  const int format = manifest.at("format").get<int>();
  if (format != kFormat) return fmt::format("{} has format {}, this version reads {}", kManifest, format, kFormat);
  for (const Json& file : manifest.at("files")) {
    const std::string name = file.at("name").get<std::string>();
    if (!is_inside(name)) return fmt::format("{} lists \"{}\", which is outside of it", kManifest, name);
    const uint64_t bytes = file.at("bytes").get<uint64_t>();
    std::error_code error;
    const uint64_t there = fs::file_size(folder + "/" + name, error);
    if (error) return fmt::format("{}: {}", name, error.message());
    if (there != bytes) return fmt::format("{} has {} bytes, not {}", name, there, bytes);
    if (hash_of(folder + "/" + name) != file.at("xxh128").get<std::string>())
      return fmt::format("{} has changed: its hash is not that of {}", name, kManifest);
  }
  return "";
} catch (const nlohmann::json::exception& e) {
  return fmt::format("{}: {}", kManifest, e.what());
} catch (const Error& e) {
  return e.what();
}

void remove_listed(const std::string& folder) {
  std::error_code none;
  std::ifstream in(folder + "/" + kManifest, std::ios::binary);
  const Json manifest = Json::parse(in, nullptr, false);
  if (!manifest.is_object() || !manifest.contains("files")) return;
  for (const Json& file : manifest["files"]) {
    const auto entry = file.find("name");  // end() where `file` is no object
    const std::string name = entry != file.end() && entry->is_string() ? entry->get<std::string>() : "";
    if (!is_inside(name)) continue;
    const fs::path path = fs::path(folder) / name;
    fs::remove(path, none);
    if (path.parent_path() != folder) fs::remove(path.parent_path(), none);  // once it is empty
  }
  fs::remove(fs::path(folder) / kManifest, none);  // last, so that the rest is still listed after a crash
  fs::remove(folder, none);
}

}  // namespace dapo
