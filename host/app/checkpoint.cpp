#include "host/app/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>

#include "core/check.h"
#include "core/new_file.h"
#include "cpu/cpu_backend.h"
#include "host/app/manifest.h"
#include "host/app/session.h"
#include "host/train/share.h"
#include "model/whole_model.h"

namespace dapo {
namespace fs = std::filesystem;
namespace {

/// "step_12" or "step_12-open".
bool parse_name(const std::string& name, Checkpoint& out) {
  if (!name.starts_with("step_")) return false;
  const char *begin = name.data() + 5, *end = name.data() + name.size();
  const auto [p, error] = std::from_chars(begin, end, out.step);
  out.open = std::string_view(p, end) == "-open";
  return error == std::errc() && p > begin && (p == end || out.open);
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

struct CheckpointWriter::Job {
  std::unique_ptr<TrainingState> training;  ///< none once it is written, since its copy is large
  std::unique_ptr<StateImage> image;        ///< of the first rank
  Checkpoint at;
  int64_t best_step;
  std::exception_ptr error = nullptr;
  std::atomic<bool> written = false;  ///< this rank's files, or its error is set
};

CheckpointWriter::CheckpointWriter(const std::string& run, int keep, std::string tokenizer_from, std::string about,
                                   Progress& progress, const Grid& grid)
    : folder_(run + "/checkpoints"),
      tokenizer_from_(std::move(tokenizer_from)),
      about_(std::move(about)),
      keep_(keep),
      progress_(progress),
      grid_(grid),
      comm_(grid.world) {
  if (!first()) return;
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
  if (!job) return last_;
  if (comm_.size() == 1) {
    if (job->error) std::rethrow_exception(job->error);
    return last_;
  }
  try {
    comm_.together([&] {
      if (job->error) std::rethrow_exception(job->error);
    });
    comm_.together([&] {
      if (first()) publish(*job), prune(job->at, job->best_step);
    });
  } catch (const Error&) {
    if (first()) remove_leftovers(job->at.folder + ".tmp");
    throw;
  }
  return last_ = job->at.folder;
}

void CheckpointWriter::poll() {
  if (comm_.size() == 1 || !job_) return;
  const std::vector<bool> written = gather_values(comm_, job_->written.load());
  if (std::ranges::all_of(written, [](bool w) { return w; })) finish();
}

void CheckpointWriter::save(const Learner& learner, const RunState& state) {
  finish();
  const bool open = state.trainer.now.stage != StepState::done;
  auto fresh = std::make_unique<Job>(std::make_unique<TrainingState>(learner),
                                     first() ? std::make_unique<StateImage>(state) : nullptr,
                                     Checkpoint{state.trainer.step, open, ""}, state.best_step);
  fresh->at.folder = folder_ + "/" + fresh->at.name();
  const size_t bytes = fresh->training->bytes();
  const auto write_and_prune = [this, &job = *fresh] {
    try {
      write_files(job);
      job.training.reset();
      job.image.reset();
      if (comm_.size() == 1) {
        publish(job);
        last_ = job.at.folder;
        prune(job.at, job.best_step);
      }
    } catch (...) {
      job.error = std::current_exception();
    }
    job.written = true;
  };
  comm_.together([&] {
    if (first()) make_folder(*fresh);
  });
  write_shared_model(learner.weights(), *fresh);
  const bool copy = !value_of_any(comm_, bytes > host_memory_available() / 2 / comm_.size());
  if (!copy && !std::exchange(noted_, true))
    progress_.note(fmt::format("a checkpoint is written before the next step begins: a copy of it, {:.2f} GB, would "
                               "take more than half of the free memory",
                               double(bytes) * 1e-9)
                       .c_str());
  if (copy) comm_.together([&] { fresh->training->copy_to_host(); });
  job_ = std::move(fresh);
  if (copy) {
    thread_ = std::thread(write_and_prune);
  } else {
    write_and_prune();
    finish();
  }
}

void CheckpointWriter::save_at(const std::string& folder, const Learner& learner, const RunState& state) {
  finish();
  Job job{std::make_unique<TrainingState>(learner), first() ? std::make_unique<StateImage>(state) : nullptr,
          Checkpoint{state.trainer.step, true, folder}, state.best_step};
  comm_.together([&] {
    if (first()) make_folder(job);
  });
  write_shared_model(learner.weights(), job);
  comm_.together([&] { write_files(job); });
  comm_.together([&] {
    if (first()) publish(job);
  });
}

namespace {

/// Runs a part of writing a checkpoint; an error is one of the disk.
template <class Work>
void writing(const std::string& to, bool alone, Work&& work) {
  const auto leave = [&](const char* what) {
    if (alone) remove_leftovers(to + ".tmp");
    fail(kExitResources, "{}: cannot be written: {}", to, what);
  };
  try {
    work();
  } catch (const fs::filesystem_error& e) {
    leave(e.code().message().c_str());
  } catch (const Error& e) {
    leave(e.what());
  }
}

}  // namespace

void CheckpointWriter::make_folder(const Job& job) {
  const fs::path fresh = job.at.folder + ".tmp";
  writing(job.at.folder, true, [&] {
    remove_leftovers(fresh);
    fs::create_directories(fresh / "model");
  });
}

/// The model of the tensor groups, which write its files in turn; all ranks take part.
void CheckpointWriter::write_shared_model(const Weights& weights, const Job& job) {
  if (grid_.tensor.size() == 1) return;
  const std::string fresh = job.at.folder + ".tmp";
  try {
    comm_.together([&] {
      const ShardFiles files{.writer = grid_.data.rank(), .writers = grid_.data.size()};
      lend_parts(weights, grid_.tensor, [&] {
        writing(job.at.folder, false, [&] { save_whole(weights, grid_.tensor, fresh + "/model", files); });
      });
    });
  } catch (const Error&) {
    if (first()) remove_leftovers(fresh);
    throw;
  }
}

/// This rank's files, synced.
void CheckpointWriter::write_files(const Job& job) {
  const std::string fresh = job.at.folder + ".tmp";
  writing(job.at.folder, comm_.size() == 1, [&] {
    job.training->save_optimizer(fresh);
    if (!first()) return;
    if (grid_.tensor.size() == 1) job.training->save_model(fresh + "/model");
    copy_tokenizer(tokenizer_from_, fresh + "/model");
    job.image->write(fresh);
  });
}

/// Makes a folder in which all files are complete a checkpoint.
void CheckpointWriter::publish(const Job& job) {
  const fs::path to = job.at.folder, fresh = job.at.folder + ".tmp";
  writing(job.at.folder, true, [&] {
    for (const std::string& name : files_in(fresh.string())) sync_path((fresh / name).string());
    for (const auto& entry : fs::recursive_directory_iterator(fresh))
      if (entry.is_directory()) sync_path(entry.path().string());
    write_manifest(fresh.string(), job.at.step, job.at.open, about_);
    sync_path(fresh.string());
    if (!fs::exists(to)) {
      fs::rename(fresh, to);
    } else if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) != 0) {
      remove_listed(to.string());  // the file system cannot exchange folders; the one before it is still there
      fs::rename(fresh, to);
    }
    sync_path(to.parent_path().string());
    remove_leftovers(fresh);  // the one of the same name, if they were exchanged
  });
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
    const bool is_best = best_step > 0 && c.step == best_step;
    const bool stays = c.open ? c.name() == newest.name() : is_best || keep_ == 0 || kept++ < keep_;
    if (!stays) remove_listed(c.folder);
  }
}

}  // namespace dapo
