// Where a run begins: anew, or at a checkpoint.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "host/app/checkpoint.h"
#include "host/app/folders.h"
#include "host/train/settings.h"

namespace dapo {

/// --resume: "auto" goes on with the run in trainer.run_dir, if there is one; "no" does not; any other value is the
/// folder of a checkpoint, or of a run, whose newest checkpoint is taken.
struct Begin {
  std::optional<Checkpoint> checkpoint;  ///< none: the run begins anew
  RunState state;
  bool replaces = false;              ///< all that run_dir holds of an earlier run is removed
  std::vector<Checkpoint> set_aside;  ///< damaged: renamed to NAME.damaged
  std::vector<Checkpoint> dropped;    ///< newer than the one that was asked for: removed
  std::vector<std::string> notes;     ///< for the terminal
  /// The folder whose weights are loaded; "" for model.path.
  std::string weights() const { return checkpoint ? checkpoint->folder + "/model" : ""; }
};

/// Decides where the run begins, and reads the state from there. Changes nothing. Error (exit 2) if run_dir cannot be
/// written to (RunFolder::check), if it holds a run that cannot go on, or if a setting has changed that matters.
Begin find_begin(const Config& config, const std::string& resume, Overwrite overwrite);

/// The state in one folder, such as RUN/replays/step_3-1. Error (exit 2) if it is damaged, or settings that matter differ.
Begin read_begin(const Config& config, const std::string& folder);

/// Removes and renames what Begin says. The run folder must be locked.
void tidy_checkpoints(const Begin& begin);

/// Error (exit 2) if the dataset or the prompts are not those of the run.
void check_same_data(const RunState& state, uint64_t data, uint64_t prompts);

}  // namespace dapo
