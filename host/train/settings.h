// Every setting with its default, one struct a section. Keys in .cfg files (TOML) and in --set are "section.field";
// names are verl's where verl has the setting. What each does, its unit and its range: settings_table.cpp, which
// ./dapo_train --settings and docs/settings.md print.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/dapo_loss.h"
#include "data/dataset.h"
#include "tokenizer/prompt_style.h"

namespace dapo {

/// The lowest temperature above 0: below it, logits divided by the temperature leave the range in which their
/// differences mean anything.
inline constexpr double kLeastTemperature = 1e-4;

enum class DeviceChoice : uint8_t { automatic, cpu, cuda };
constexpr std::string_view choices(DeviceChoice) {
  return "auto|cpu|cuda";
}

enum class DTypeChoice : uint8_t { automatic, bf16, f32 };
constexpr std::string_view choices(DTypeChoice) {
  return "auto|bf16|f32";
}

struct ModelSection {
  std::string path, reference;
  DeviceChoice device = DeviceChoice::automatic;
  DTypeChoice dtype = DTypeChoice::automatic;
  int threads = 0;
  bool recompute = false;
  bool offload_optimizer = false;
};

enum class OverlongPrompts : uint8_t { drop, error };
constexpr std::string_view choices(OverlongPrompts) {
  return "drop|error";
}

struct DataSection {
  std::vector<std::string> train_files, val_files;
  RowFormat format = RowFormat::automatic;
  std::string prompt_key, answer_key, response_key;
  PromptStyle prompt_template = PromptStyle::automatic;
  std::string prompt_format, system_prompt, prompt_suffix;
  int max_prompt_length = 2048, max_response_length = 20480;
  OverlongPrompts overlong_prompts = OverlongPrompts::drop;
  bool unique = true;
  bool shuffle = true;
  int train_batch_size = 512, gen_batch_size = 0;
};

struct RolloutSection {
  int n = 16;
  float temperature = 1.0f;
  int top_k = 0;
  float top_p = 1.0f, min_p = 0.0f;
  int max_num_seqs = 256, max_num_batched_tokens = 0;
  int page_size = 64;
  double kv_memory_gb = 0;
  bool ignore_eos = false, partial = false;
  int collect_every = 0;
};

enum class LrSchedule : uint8_t { constant, cosine, linear };
constexpr std::string_view choices(LrSchedule) {
  return "constant|cosine|linear";
}

enum class LossAgg : uint8_t {
  token_mean,
  seq_mean_token_mean,
  seq_mean_token_sum,
  seq_mean_token_sum_norm,
  token_mean_per_micro_batch
};
constexpr std::string_view choices(LossAgg) {
  return "token-mean|seq-mean-token-mean|seq-mean-token-sum|seq-mean-token-sum-norm|token-mean-per-micro-batch";
}

enum class OldLogProbs : uint8_t { rollout, recompute };
constexpr std::string_view choices(OldLogProbs) {
  return "rollout|recompute";
}

constexpr std::string_view choices(LossKind) {
  return "clip|gspo|cispo|reinforce";
}
constexpr std::string_view choices(KlKind) {
  return "k1|k2|k3";
}

struct ActorSection {
  int ppo_mini_batch_size = 32, ppo_epochs = 1;
  double lr = 1e-6, weight_decay = 0.1, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, grad_clip = 1.0;
  int lr_warmup_steps = 20;
  LrSchedule lr_schedule = LrSchedule::constant;
  double clip_ratio_low = 0.2, clip_ratio_high = 0.28, clip_ratio_c = 10.0;
  LossKind policy_loss = LossKind::clip;
  LossAgg loss_agg_mode = LossAgg::token_mean;
  double kl_loss_coef = 0;
  KlKind kl_loss_type = KlKind::k3;
  double entropy_coeff = 0;
  int ppo_max_token_len = 0;
  OldLogProbs old_logprobs = OldLogProbs::rollout;
};

enum class Surplus : uint8_t { automatic, bank, drop };
constexpr std::string_view choices(Surplus) {
  return "auto|bank|drop";
}

enum class Preset : uint8_t { dapo, grpo, dr_grpo, gspo, cispo, rloo, reinforce_plus_plus };
constexpr std::string_view choices(Preset) {
  return "dapo|grpo|dr_grpo|gspo|cispo|rloo|reinforce_plus_plus";
}

enum class AdvEstimator : uint8_t { grpo, rloo, reinforce_plus_plus, reinforce_plus_plus_baseline };
constexpr std::string_view choices(AdvEstimator) {
  return "grpo|rloo|reinforce_plus_plus|reinforce_plus_plus_baseline";
}

struct AlgorithmSection {
  Preset preset = Preset::dapo;
  AdvEstimator adv_estimator = AdvEstimator::grpo;
  bool norm_adv_by_std = true;
  bool filter_groups = true;
  int max_num_gen_batches = 10;
  double stop_when_solved = 0.9;
  int skip_solved = 0;
  Surplus surplus = Surplus::automatic;
  int max_age = 1;
  bool overlong_filtering = false;
};

/// An entry of reward.terms: an inline table.
struct RewardTerm {
  std::string name, verifier;
  double weight = 1.0;
  std::string pattern;               ///< of verifier "format"
  std::vector<std::string> command;  ///< of verifier "command"
  bool operator==(const RewardTerm&) const = default;
};

struct RewardSection {
  std::string verifier = "math_dapo";
  double correct = 1.0, incorrect = -1.0;
  std::vector<std::string> command;
  double timeout = 10;
  std::string pattern;
  std::vector<RewardTerm> terms;
  bool overlong_buffer = true;
  int overlong_buffer_len = 4096;
  double overlong_penalty_factor = 1.0;
  int workers = 2;
};

struct SftSection {
  std::vector<std::string> files;
  int steps = 100, batch_size = 64;
  double lr = 1e-5;
  int lr_warmup_steps = 50;
  double lr_decay_fraction = 0.25;
  double weight_decay = 0.01, beta1 = 0.9, beta2 = 0.98, eps = 1e-8, grad_clip = 1.0;
  double init_std = 0.02;
  std::string out;
};

struct EvalSection {
  int every = 20;
  bool before_train = true;
  int n = 32;
  std::vector<int> pass_k = {1, 8, 32};
  float temperature = 1.0f, top_p = 0.7f;
  int top_k = 0;
  int max_problems = 0;
  bool dedupe = true;
};

struct TrainerSection {
  int total_steps = 100;
  uint64_t seed = 1;
  std::string run_dir = "runs/run";
  int save_every = 10, keep = 2;
  std::string keep_best = "eval/avg";
  bool log_rollouts = true;
  int nonfinite_patience = 3, stuck_patience = 10;
};

/// What carries tensors between ranks on GPUs.
enum class Transport : uint8_t { nccl, host };
constexpr std::string_view choices(Transport) {
  return "nccl|host";
}
/// In which type gradients travel between ranks.
enum class ReduceDType : uint8_t { f32, bf16 };
constexpr std::string_view choices(ReduceDType) {
  return "f32|bf16";
}

struct ParallelSection {
  int dp = 1, tp = 1;  ///< 0: auto (resolve_ranks, choose_grid); with tp 0, dp counts all ranks
  Transport transport = Transport::nccl;
  int zero_stage = 1;
  ReduceDType reduce_dtype = ReduceDType::f32;
  bool overlap = true;
  double hang_seconds = 60;
  int ranks() const { return copies() * of_a_copy(); }
  int copies() const { return std::max(1, dp); }     ///< 1 while it is auto
  int of_a_copy() const { return std::max(1, tp); }  ///< 1 while it is auto
};

struct Config {
  ModelSection model;
  DataSection data;
  RolloutSection rollout;
  ActorSection actor;
  AlgorithmSection algorithm;
  RewardSection reward;
  SftSection sft;
  EvalSection eval;
  TrainerSection trainer;
  ParallelSection parallel;
};

/// What a configuration is for: decides which settings must be given, and which checks apply.
enum class Use : uint8_t { train, sft, eval };

/// Reads a .cfg file and then "section.field=value" settings, in order, over what algorithm.preset sets. Unknown keys, wrong types and values that
/// cannot work are errors (exit 2) with file:line, the nearest known key, and how to repair it.
Config load_config(const std::string& path, const std::vector<std::string>& settings, Use use = Use::train);
/// Applies "section.field=value" settings in order, without the checks across sections. A preset among them goes first.
void apply_settings(Config& config, const std::vector<std::string>& settings);
/// Checks that the files and folders which `use` needs are named, and what holds across sections (the mini-batch
/// divides the batch; lengths; fractions). load_config calls it. `where` begins errors.
void check_config(const Config& config, Use use, const std::string& where);
/// The folder of the frozen model that the KL is measured against; "" without a KL.
std::string reference_folder(const Config& config);
/// The whole configuration as a .cfg file.
std::string config_text(const Config& config);
/// The defaults as a .cfg file, with a comment above each that says what it does and what it may be.
std::string settings_help();
/// The same as docs/settings.md: a table a section.
std::string settings_markdown();
/// Numbers that follow: responses a step, updates a step, tokens a response at most; one a line.
std::string derived_numbers(const Config& config);

}  // namespace dapo
