// A run's folder: dapo.json (which program made it, from what), config.resolved.cfg, metrics.jsonl (a line a step),
// log.txt, rollouts/step_N.jsonl, models/step_N and model/.
#pragma once

#include <string>
#include <vector>

#include "host/app/folders.h"
#include "host/app/json_lines.h"
#include "host/app/streams.h"
#include "host/train/evaluate.h"
#include "host/train/settings.h"
#include "host/train/trainer.h"

namespace dapo {

class RunFolder {
 public:
  /// Error (exit 2) where the folder holds anything but a run of this program, or a run while `overwrite` is no, or
  /// another process is writing there. Changes nothing: asked before models are loaded.
  static void check(const Config& config, Overwrite overwrite);
  /// check(), then makes and locks the folder; metrics, rollouts and log of an earlier run are removed. `about`: JSON
  /// for dapo.json. Exit 3 where the disk refuses.
  RunFolder(const Config& config, Overwrite overwrite, const std::string& about, Progress& progress);

  /// Appends one line to metrics.jsonl: a step's metrics, an evaluation's, or both. On disk before it returns; what a
  /// full disk refuses is noted, kept, and written with the next line.
  void metrics(int64_t step, const StepMetrics* m, const EvalResult* e);
  /// rollouts/step_N.jsonl: every response that the step drew or trained on, with prompt, verdict and reward. `kept`:
  /// false where nothing is ever trained on it; `advantage`: null where this step does not train on it (a banked group
  /// comes again in the file of the step that does). A full disk is noted.
  void rollouts(int64_t step, const Trainer& trainer, const Tokenizer& tokenizer, const Dataset& data);
  /// model/ (the last), or models/step_N; a folder that transformers loads. Returns its path. Error (exit 3) where the
  /// disk refuses.
  std::string save_model(const Weights& weights, int64_t step, bool last);
  /// Error (exit 3) where lines of metrics.jsonl could not be written to the end.
  void finish();

  const std::string& path() const { return path_; }

 private:
  const std::string path_, tokenizer_from_, about_;
  Progress& progress_;
  std::unique_ptr<FolderLock> lock_;
  AppendFile metrics_;
  bool behind_ = false;  // lines of metrics.jsonl wait for space
};

}  // namespace dapo
