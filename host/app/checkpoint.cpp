#include "host/app/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/new_file.h"
#include "host/app/session.h"

namespace dapo {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kManifest = "MANIFEST.json";
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

/// "step_12" or "step_12-open".
bool parse_name(const std::string& name, Checkpoint& out) {
  if (!name.starts_with("step_")) return false;
  const char *begin = name.data() + 5, *end = name.data() + name.size();
  const auto [p, error] = std::from_chars(begin, end, out.step);
  out.open = std::string_view(p, end) == "-open";
  return error == std::errc() && p > begin && (p == end || out.open);
}

void sync_file(const fs::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 || ::fsync(fd) != 0) {
    const int error = errno;
    if (fd >= 0) ::close(fd);
    fail(kExitResources, "{}: fsync: {}", file.string(), std::strerror(error));
  }
  ::close(fd);
}

/// Paths of a folder's files relative to it, sorted.
std::vector<std::string> files_in(const fs::path& folder) {
  std::vector<std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) out.push_back(entry.path().lexically_relative(folder).string());
  std::sort(out.begin(), out.end());
  return out;
}

/// Bytes of memory that the host can still give, by /proc/meminfo.
uint64_t free_memory() {
  std::ifstream in("/proc/meminfo");
  std::string name, unit;
  for (uint64_t kib = 0; in >> name >> kib; std::getline(in, unit))
    if (name == "MemAvailable:") return kib << 10;
  return 0;
}

/// Removes the files of a folder that a crash left half written or half removed, and the folder.
void remove_leftovers(const fs::path& folder) {
  std::error_code none;
  fs::remove_all(folder, none);
}

}  // namespace

std::vector<Checkpoint> checkpoints_of(const std::string& run) {
  std::vector<Checkpoint> out;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(run + "/checkpoints", none)) {
    Checkpoint c;
    c.folder = entry.path().string();
    if (!entry.is_symlink(none) && parse_name(entry.path().filename().string(), c) &&
        fs::exists(entry.path() / kManifest, none))
      out.push_back(std::move(c));
  }
  std::ranges::sort(out, [](const Checkpoint& a, const Checkpoint& b) {
    return std::pair(a.step, a.open) > std::pair(b.step, b.open);
  });
  return out;
}

Checkpoint checkpoint_at(const std::string& folder) {
  std::error_code none;
  Checkpoint c;
  c.folder = folder;
  const fs::path real = fs::weakly_canonical(folder, none);  // checkpoints/best is a link
  if (!parse_name(real.filename().string(), c) || !fs::exists(real / kManifest, none))
    fail_input("{}: not a checkpoint (a folder such as RUN/checkpoints/step_20, with {})", folder, kManifest);
  return c;
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

void remove_checkpoint(const std::string& folder) {
  std::error_code none;
  std::ifstream in(folder + "/" + kManifest, std::ios::binary);
  const Json manifest = Json::parse(in, nullptr, false);
  if (!manifest.is_object() || !manifest.contains("files")) return;
  for (const Json& file : manifest["files"]) {
    const fs::path path = fs::path(folder) / file.value("name", "");
    fs::remove(path, none);
    if (path.parent_path() != folder) fs::remove(path.parent_path(), none);  // once it is empty
  }
  fs::remove(fs::path(folder) / kManifest, none);  // last, so that the rest is still listed after a crash
  fs::remove(folder, none);
}

struct CheckpointWriter::Job {
  TrainingState training;
  StateImage image;
  Checkpoint at;
  int64_t best_step;
  std::exception_ptr error = nullptr;
};

CheckpointWriter::CheckpointWriter(const std::string& run, int keep, std::string tokenizer_from, std::string about,
                                   Progress& progress)
    : folder_(run + "/checkpoints"),
      tokenizer_from_(std::move(tokenizer_from)),
      about_(std::move(about)),
      keep_(keep),
      progress_(progress) {
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder_, none)) {
    Checkpoint c;
    const fs::path& path = entry.path();
    if (path.extension() == ".tmp" && parse_name(path.stem().string(), c)) remove_leftovers(path);
  }
}

CheckpointWriter::~CheckpointWriter() {
  if (thread_.joinable()) thread_.join();
}

std::string CheckpointWriter::finish() {
  if (thread_.joinable()) thread_.join();
  const std::unique_ptr<Job> job = std::exchange(job_, nullptr);
  if (job && job->error) std::rethrow_exception(job->error);
  return last_;
}

void CheckpointWriter::save(const Learner& learner, const RunState& state) {
  finish();
  const bool open = state.trainer.now.stage != StepState::done;
  job_ = std::make_unique<Job>(Job{.training = TrainingState(learner),
                                   .image = StateImage(state),
                                   .at = {state.trainer.step, open, ""},
                                   .best_step = state.best_step});
  job_->at.folder = folder_ + "/" + job_->at.name();
  const size_t bytes = job_->training.bytes();
  const auto write_and_prune = [this, &job = *job_] {
    write(job);
    last_ = job.at.folder;
    prune(job.at, job.best_step);
  };
  if (bytes > free_memory() / 2) {
    if (!std::exchange(noted_, true))
      progress_.note(fmt::format("a checkpoint is written before the next step begins: a copy of it, {:.2f} GB, would "
                                 "take more than half of the free memory",
                                 double(bytes) * 1e-9)
                         .c_str());
    return write_and_prune();
  }
  job_->training.copy_to_host();
  thread_ = std::thread([this, write_and_prune] {
    try {
      write_and_prune();
    } catch (...) {
      job_->error = std::current_exception();
    }
  });
}

void CheckpointWriter::save_at(const std::string& folder, const Learner& learner, const RunState& state) {
  finish();
  write({.training = TrainingState(learner),
         .image = StateImage(state),
         .at = {state.trainer.step, true, folder},
         .best_step = state.best_step});
}

void CheckpointWriter::write(const Job& job) {
  const fs::path to = job.at.folder, fresh = job.at.folder + ".tmp";
  try {
    remove_leftovers(fresh);
    fs::create_directories(fresh / "model");
    job.training.save_model((fresh / "model").string());
    copy_tokenizer(tokenizer_from_, (fresh / "model").string());
    job.training.save_optimizer((fresh / "optimizer.safetensors").string());
    job.image.write(fresh.string());

    Json manifest = {{"format", kFormat}, {"step", job.at.step}, {"open", job.at.open}, {"files", Json::array()}};
    for (const std::string& name : files_in(fresh)) {
      sync_file(fresh / name);
      manifest["files"].push_back(
          {{"name", name}, {"bytes", fs::file_size(fresh / name)}, {"xxh128", hash_of(fresh / name)}});
    }
    manifest["about"] = Json::parse(about_);
    manifest["xxh128"] = hash_of_text(manifest.dump(1));
    for (const auto& entry : fs::recursive_directory_iterator(fresh))
      if (entry.is_directory()) sync_folder(entry.path().string());
    write_new_file((fresh / kManifest).string(), manifest.dump(1) + "\n");
    sync_folder(fresh.string());
    if (!fs::exists(to)) {
      fs::rename(fresh, to);
    } else if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) != 0) {
      remove_checkpoint(to.string());  // the file system cannot exchange folders; the one before it is still there
      fs::rename(fresh, to);
    }
    sync_folder(to.parent_path().string());
    remove_leftovers(fresh);  // the one of the same name, if they were exchanged
  } catch (const fs::filesystem_error& e) {
    remove_leftovers(fresh);
    fail(kExitResources, "{}: cannot be written: {}", to.string(), e.code().message());
  } catch (const Error& e) {
    remove_leftovers(fresh);
    fail(kExitResources, "{}: cannot be written: {}", to.string(), e.what());
  }
}

void CheckpointWriter::prune(const Checkpoint& newest, int64_t best_step) {
  const fs::path best = fs::path(folder_) / "best", link = fs::path(folder_) / "best.tmp";
  std::error_code none;
  const std::string best_name = Checkpoint{best_step, false, ""}.name();
  if (best_step > 0 && fs::exists(fs::path(folder_) / best_name, none)) {
    fs::remove(link, none);
    fs::create_directory_symlink(best_name, link, none);
    if (!none) fs::rename(link, best, none);
  }
  int kept = 0;
  for (const Checkpoint& c : checkpoints_of(fs::path(folder_).parent_path().string())) {
    const bool stays = c.open ? c.name() == newest.name() : c.step == best_step || keep_ == 0 || kept++ < keep_;
    if (!stays) remove_checkpoint(c.folder);
  }
}

}  // namespace dapo
