// A run's folder as a report reads it: metrics, settings, origin, and some of its responses. Whatever is missing or
// damaged is left out and noted.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "host/app/run_log.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

/// A line of rollouts/step_N.jsonl. Numbers that the line does not have are NaN.
struct RolloutRow {
  std::string id, prompt, response, ground_truth, pred, reason, finish;
  bool acc = false, kept = false;
  double reward, shaped, advantage, tokens;
  std::vector<int32_t> ids;
  std::vector<float> log_probs;
};

/// Some of the responses of a step: of a few prompts, a right and a wrong one of each where it has both.
struct StepSamples {
  int64_t step = 0;
  std::vector<RolloutRow> rows;
};

/// What dapo.json says of the run; empty or 0 where it does not.
struct RunOrigin {
  std::string program, version, started, device, host, plan;
  double product_gflops = 0;  ///< rate of a large matrix product on the run's machine
};

struct RunRecord {
  std::string path, label;
  MetricsLog log;
  std::string settings;                                     ///< config.resolved.cfg
  std::vector<std::pair<std::string, std::string>> values;  ///< its "section.key" and value
  RunOrigin origin;
  std::unique_ptr<const Tokenizer> tokenizer;  ///< null if it is not found
  std::vector<StepSamples> samples;
  std::vector<std::string> notes;  ///< what is missing or damaged

  std::string value(std::string_view key) const;
  /// trainer.total_steps or sft.steps; 0 if unknown.
  int64_t total_steps() const;
};

/// Error (exit 2) if the folder has no metrics.jsonl. `steps`: how many steps' responses to read.
RunRecord read_run(const std::string& path, int steps);

RunOrigin read_origin(const std::string& folder);
/// "section.key" and value of each setting in a .cfg file that this program wrote.
std::vector<std::pair<std::string, std::string>> setting_lines(const std::string& text);
/// Whether the process that writes the folder is running here. False also if the run is on another machine.
bool runs_here(const std::string& folder);

}  // namespace dapo
