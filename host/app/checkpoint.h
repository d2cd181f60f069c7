// Checkpoints of a run: RUN/checkpoints/step_N, or step_N-open with part of step N + 1 done. Each has
//   model/                a Hugging Face folder
//   optimizer.safetensors moments, and the low halves of the master weights (model/training_state.h); of a run of N
//                         ranks a file of each, optimizer-0000i-of-0000N.safetensors, which any number of ranks reads
//   state.json, groups.safetensors  everything else (host/train/run_state.h)
//   MANIFEST.json         size and XXH128 of each file; a folder without it is not a checkpoint
//
// A checkpoint is written as step_N.tmp: files synced, then the manifest, then the folder is renamed, then its parent
// synced; only then are older ones removed. So a crash or a power cut at any moment leaves the last complete one. With
// several ranks the manifest and all that follows is the first rank's work, once all have synced their files. A model
// that tensor-parallel ranks share is written before the step goes on, as its parts go through the communicators; each
// group of them writes some of its files.
#pragma once

#include <compare>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/grid.h"
#include "core/progress.h"
#include "host/app/manifest.h"
#include "host/train/run_state.h"
#include "model/training_state.h"

namespace dapo {

struct Checkpoint {
  int64_t step = 0;   ///< complete steps
  bool open = false;  ///< and part of the next one
  std::string folder;
  std::string name() const { return "step_" + std::to_string(step) + (open ? "-open" : ""); }
};

/// The checkpoints of a run, newest first. Folders without a manifest are left out.
std::vector<Checkpoint> checkpoints_of(const std::string& run);
/// The checkpoint in a folder. Error (exit 2) if it is none.
Checkpoint checkpoint_at(const std::string& folder);
class CheckpointWriter {
 public:
  /// Writes into run/checkpoints; removes what a crash left there. `keep`: newest checkpoints that stay (0: all), and
  /// the best one beside them. `about`: JSON for the manifest. Of several ranks, all make the same calls; all throw the
  /// same errors.
  CheckpointWriter(const std::string& run, int keep, std::string tokenizer_from, std::string about, Progress& progress,
                   const Grid& grid);
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// Waits for the checkpoint before, copies the state to host memory and writes it in the background; if the copy
  /// would take more than half of the free memory, writes it here and now. Error (exit 3), of the one before too, if
  /// it cannot be written; older checkpoints are then as they were.
  void save(const Learner& learner, const RunState& state);
  /// Writes the same at once into `folder`, for --replay.
  void save_at(const std::string& folder, const Learner& learner, const RunState& state);
  /// Removes all but the newest and the best; save() does so after each checkpoint. Sets the link "best".
  void prune(const Checkpoint& newest, int64_t best_step);
  /// Waits. Error (exit 3) if the last one could not be written. Returns its folder, "" if there is none.
  std::string finish();
  /// With several ranks, finish() if all have written their files: called after every step, so that a checkpoint is
  /// complete soon. One rank needs no call.
  void poll();

 private:
  struct Job;
  void make_folder(const Job& job);
  void write_shared_model(const Weights& weights, const Job& job);
  void write_files(const Job& job);
  void publish(const Job& job);
  void write(const Job& job);
  bool first() const { return comm_.rank() == 0; }

  const std::string folder_, tokenizer_from_, about_;
  const int keep_;
  Progress& progress_;
  const Grid grid_;
  Comm& comm_;  // all ranks
  std::thread thread_;
  std::unique_ptr<Job> job_;  // being written; kept until the next
  std::string last_;          // folder of the last one written
  bool noted_ = false;
};

}  // namespace dapo
