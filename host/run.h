// A run's folder: config.resolved.cfg, metrics.jsonl (a line a step), rollouts/step_N.jsonl, models/step_N and model/.
#pragma once

#include <string>
#include <vector>

#include "host/config.h"
#include "host/evaluate.h"
#include "host/jsonl.h"
#include "host/trainer.h"

namespace dapo {

class RunFolder {
 public:
  /// Makes the folder and writes config.resolved.cfg. Error (exit 2) where it already holds a run, unless `overwrite`
  /// says that its metrics and rollouts go; exit 3 where the disk refuses.
  RunFolder(const Config& config, bool overwrite);
  ~RunFolder();

  /// Appends one line to metrics.jsonl: a step's metrics, an evaluation's, or both. On disk before it returns
  /// (flushed).
  void metrics(int64_t step, const StepMetrics* m, const EvalResult* e);
  /// rollouts/step_N.jsonl: prompt, response, score, pred, reason, advantage of every response trained on.
  void rollouts(int64_t step, const std::vector<SampleGroup>& groups, const Tokenizer& tokenizer, const Dataset& data);
  /// model/ (the last), or models/step_N; a folder that transformers loads. Returns its path.
  std::string save_model(Model& model, int64_t step, bool last);

  const std::string& path() const { return path_; }

 private:
  const std::string path_, tokenizer_from_;
  std::FILE* metrics_ = nullptr;
};

}  // namespace dapo
