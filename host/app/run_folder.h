// A run's folder: dapo.json (which program made it, from what), config.resolved.cfg, metrics.jsonl (one line per step),
// tensorboard/ (the same figures), log.txt, rollouts/step_N.jsonl, eval/step_N.jsonl, checkpoints/ (host/app/checkpoint.h)
// and model/.
#pragma once

#include <string>
#include <vector>

#include "host/app/event_file.h"
#include "host/app/folders.h"
#include "host/app/json_lines.h"
#include "host/app/streams.h"
#include "host/train/evaluate.h"
#include "host/train/settings.h"
#include "host/train/trainer.h"

namespace dapo {

class RunFolder {
 public:
  /// Error (exit 2) if the folder holds anything but a run of this program, or a run while `overwrite` is no, or
  /// another process is writing there. Changes nothing: called before models are loaded.
  static void check(const Config& config, Overwrite overwrite);
  /// check(), then creates and locks the folder. What an earlier run wrote after step `after` is removed: rollouts,
  /// lines of metrics.jsonl (with `unwritten` that of `after`, too); with kNothing all of it, checkpoints included.
  /// `about`: JSON for dapo.json. Error (exit 3) if the disk is full or a write fails.
  static constexpr int64_t kNothing = -1;
  RunFolder(const Config& config, int64_t after, bool unwritten, const std::string& about, Progress& progress);

  /// Appends one line to metrics.jsonl, and its numbers to tensorboard/: a step's metrics, an evaluation's, or both. On
  /// disk before it returns; if the disk is full, a note says so, and the line is kept and written with the next one.
  void metrics(int64_t step, const StepMetrics* m, const EvalResult* e);
  /// rollouts/step_N.jsonl: every response that the step drew or trained on, with prompt, verdict and reward. `kept`:
  /// false if it is never trained on; `advantage`: null if this step does not train on it (a banked group appears again
  /// in the file of the step that does); `log_probs`: of each id when it was drawn, to three decimals. On a full disk a note says that the file is lost.
  void rollouts(int64_t step, const Trainer& trainer, const Tokenizer& tokenizer, const Dataset& data);
  /// eval/step_N.jsonl: every response of the evaluation after step N, as `dapo eval -o` writes them. On a full disk a
  /// note says that the file is lost.
  void evaluation(int64_t step, const EvalResult& result, const Tokenizer& tokenizer);
  /// model/ (the last), or models/step_N; a folder that transformers loads. Returns its path. Error (exit 3) if it
  /// cannot be written.
  std::string save_model(const Weights& weights, Comm& tensor, int64_t step, bool last);
  /// Makes metrics.jsonl durable, as far as it is written.
  void sync() { metrics_.sync(); }
  /// Error (exit 3) if lines of metrics.jsonl or events of tensorboard/ are still unwritten.
  void finish();

  const std::string& path() const { return path_; }

 private:
  const std::string path_, tokenizer_from_, about_;
  Progress& progress_;
  std::unique_ptr<FolderLock> lock_;
  AppendFile metrics_;
  EventFile events_;
  bool behind_ = false;  // lines of metrics.jsonl wait for space
};

}  // namespace dapo
