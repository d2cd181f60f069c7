// The subcommands of `dapo`: the options of each, and the function that runs it. Results go to `out` ("" or "-":
// standard output). Every error is thrown; main turns it into one line and an exit code.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dapo {

/// Where a command runs.
struct DeviceOptions {
  std::string device = "auto", dtype = "auto";
  int threads = 0;
  uint64_t seed = 1;
};

struct SftOptions {
  std::string config;
  std::vector<std::string> settings;
  bool check = false, overwrite = false;
};
/// Fine-tunes on (prompt, response) rows and saves model, metrics.jsonl and log.txt to sft.out; weights are random
/// if the model's folder has none. check: loads everything, shows the first row, trains nothing.
int run_sft_command(const SftOptions& o);

struct EvalOptions {
  std::vector<std::string> given;     ///< a .cfg file and model folders, in any order
  std::vector<std::string> settings;  ///< --set, and the settings that the flags below translate to
  std::string model;
  std::vector<std::string> data;
  std::string out;  ///< JSONL of every response
};
/// avg@n, pass@k, maj@k of a model on sets of problems; of two models, and their difference, paired by problem.
int run_eval_command(const EvalOptions& o);

struct GenerateOptions {
  std::string model, prompt, prompts, out;
  bool has_prompt = false;
  int n = 1, max_new_tokens = 256, batch = 64;
  float temperature = 1, top_p = 1, min_p = 0;
  int top_k = 0;
  std::string prompt_template = "auto", format, system, suffix;
  DeviceOptions on;
};
/// JSONL of {"id", "sample", "text", "prompt_ids", "ids", "log_probs", "finish_reason"}, without "text" if the model
/// has no tokenizer; a single prompt's text streams to a terminal. After a signal, rows of complete prompts are kept.
int run_generate_command(const GenerateOptions& o);

struct ScoreOptions {
  std::string model, file = "-", out;
  float temperature = 1;
  int pack_tokens = 2048;
  DeviceOptions on;
};
/// {"prompt_ids", "ids"} (rows of generate, rollouts, eval -o), {"ids", "prompt_len"}, {"prompt", "response"} or
/// {"text"} in; out comes the log-prob and entropy (nats) of every token after the prompt.
int run_score_command(const ScoreOptions& o);

struct TokenizeOptions {
  std::string model, file = "-", out;
  bool decode = false, chat = false, special = false;
};
/// {"text"} to {"ids"}; decode: the reverse; chat: {"messages"[, "tools"]} to {"text", "ids"}.
int run_tokenize_command(const TokenizeOptions& o);

struct VerifyOptions {
  std::string verifier = "math_dapo", file = "-", out, pattern, command;
  double timeout = 10;
  int workers = 2;
  bool strict_box = false, flexible = false;
};
/// Input: {"solution" or "response", "ground_truth"[, "id", "prompt", "data_source"]}; output: {"score", "acc", "pred",
/// "reason"}.
int run_verify_command(const VerifyOptions& o);

struct DoctorOptions {
  std::vector<std::string> inputs;    ///< configs (.cfg, .toml), model folders, files of rows; none: the machine alone
  std::vector<std::string> settings;  ///< --set, and the settings that flags translate to
};
/// Prints findings about each input, and about this machine if a config or nothing is given, each with what to do. Returns 0 if none is an error, else 2.
int run_doctor_command(const DoctorOptions& o);

struct ChainOptions {
  std::string folder;
  bool overwrite = false;
  uint64_t seed = 1;
};
/// Writes the demo's input: data/{train,test,skill,crowd}.jsonl and model/ (config and byte tokenizer, no weights).
int run_chain_command(const ChainOptions& o);

struct CountdownOptions {
  std::string file;
  bool overwrite = false;
  int64_t rows = 10000;
  uint64_t seed = 1;
};
/// Writes problems of 3 or 4 numbers in verl's schema, all of them solvable.
int run_countdown_command(const CountdownOptions& o);

struct ReportOptions {
  std::vector<std::string> runs;
  std::string out;
};
/// Writes report.html about one run, or several side by side (host/app/report.h).
int run_report_command(const ReportOptions& o);

struct WatchOptions {
  std::string run;
  int64_t last = 20;
};
/// Prints a run's last steps, then each new one, until the run is over. `last`: 0 for all steps.
int run_watch_command(const WatchOptions& o);

}  // namespace dapo
