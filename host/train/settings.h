// Every setting, one struct a section, its default beside it. Keys in .cfg files (TOML) and in --set are
// "section.field". Names are verl's where verl has the setting.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dapo {

/// Below it, logits divided by the temperature leave the range in which their differences mean anything.
inline constexpr float kLeastTemperature = 1e-4f;

struct ModelSection {
  std::string path;             ///< Hugging Face folder with config.json, weights, tokenizer
  std::string device = "auto";  ///< auto | cpu | cuda
  std::string dtype = "auto";   ///< auto | bf16 | f32; auto: bf16 where the device multiplies it natively
  int threads = 0;              ///< CPU threads; 0: all cores
  bool recompute = false;       ///< keep only layer inputs of a pack, run layers' forward again in backward
};

struct DataSection {
  std::vector<std::string> train_files;
  std::vector<std::string> val_files;
  std::string format = "auto";                       ///< auto | countdown (rows {"input": "30,100,93", "output": "23"})
  std::string prompt_key, answer_key, response_key;  ///< override what the reader would find
  std::string prompt_template =
      "auto";                    ///< auto (chatml where the model has a chat template, else raw) | raw | chatml | dapo
  std::string prompt_format;     ///< "Q: {question}\nA:": the prompt as plain text, for models without a chat template
  std::string system_prompt;     ///< chatml: replaces the template's default system message
  std::string prompt_suffix;     ///< appended to the user's text
  int max_prompt_length = 2048;  ///< tokens
  int max_response_length = 20480;        ///< tokens, EOS included
  std::string overlong_prompts = "drop";  ///< drop (counted) | error
  bool unique = true;  ///< train on each problem once an epoch: further rows with the same prompt are left out
  bool shuffle = true;
  int train_batch_size = 512;  ///< prompts a step that are trained on
  int gen_batch_size = 0;      ///< prompts of one generation batch; 0: by expected yield of what is missing
};

struct RolloutSection {
  int n = 16;  ///< responses a prompt (G)
  float temperature = 1.0f;
  int top_k = 0;  ///< 0: off
  float top_p = 1.0f;
  float min_p = 0.0f;
  int max_num_seqs = 256;             ///< sequences decoded at once
  int max_num_batched_tokens = 4096;  ///< rows of one prefill call
  int page_size = 64;                 ///< tokens a KV page
  double kv_memory_gb = 0;            ///< KV pages; 0: what the sequences of a batch need, as far as memory allows
  bool ignore_eos = false;            ///< every response runs to max_response_length (benchmarks)
  int collect_every = 0;              ///< decode steps between looks by the host; 0: 1 on the CPU, 16 on a GPU
};

struct ActorSection {
  int ppo_mini_batch_size = 32;  ///< prompts an update
  int ppo_epochs = 1;
  double lr = 1e-6;
  double weight_decay = 0.1;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double grad_clip = 1.0;                ///< global norm; 0: off
  int lr_warmup_steps = 20;              ///< rollout steps; linear, the first step's lr is > 0
  std::string lr_schedule = "constant";  ///< constant | cosine | linear (to 0 at trainer.total_steps)
  double clip_ratio_low = 0.2, clip_ratio_high = 0.28, clip_ratio_c = 10.0;
  std::string loss_agg_mode = "token-mean";  ///< token-mean | seq-mean-token-mean | seq-mean-token-sum |
                                             ///< seq-mean-token-sum-norm | token-mean-per-micro-batch
  int ppo_max_token_len = 0;  ///< tokens of a pack (micro-batch); 0: by memory, at least one group's longest sequence
  std::string old_logprobs = "rollout";  ///< rollout | recompute (measures the mismatch)
};

struct AlgorithmSection {
  bool norm_adv_by_std = true;  ///< false: Dr. GRPO's advantage (its loss: actor.loss_agg_mode seq-mean-token-sum-norm)
  bool filter_groups = true;    ///< dynamic sampling: keep groups with 0 < #correct < G
  int max_num_gen_batches = 10;  ///< limit on the prompts of a step, in batches of data.gen_batch_size (0: of
                                 ///< 3 x data.train_batch_size, as in the paper); then the step trains on what there is
  std::string surplus = "auto";  ///< finished groups beyond the batch: bank (they open the next step) | drop (as verl)
                                 ///< | auto (bank where data.gen_batch_size = 0, so that they are few; else drop)
  int max_age = 1;  ///< steps after which a banked group is dropped; 0: train on this step's groups alone
  bool overlong_filtering = false;  ///< mask the loss of truncated responses
};

struct RewardSection {
  std::string verifier = "math_dapo";  ///< math_dapo | gsm8k | boxed | countdown | exact
  double correct = 1.0, incorrect = -1.0;
  bool overlong_buffer = true;     ///< soft overlong punishment
  int overlong_buffer_len = 4096;  ///< tokens before max_response_length over which it grows
  double overlong_penalty_factor = 1.0;
  int workers = 2;  ///< verifier threads
};

struct SftSection {
  std::vector<std::string> files;
  int steps = 100;
  int batch_size = 64;  ///< rows an update
  double lr = 1e-5;
  int lr_warmup_steps = 50;
  double lr_decay_fraction = 0.25;  ///< the last part of the steps over which lr falls to 0 linearly
  double weight_decay = 0.01, beta1 = 0.9, beta2 = 0.98, eps = 1e-8, grad_clip = 1.0;
  double init_std = 0.02;  ///< for a model without weights
  std::string out;         ///< folder of the resulting model
};

struct EvalSection {
  int every = 20;  ///< steps; 0: never
  bool before_train = true;
  int n = 32;  ///< responses a problem
  std::vector<int> pass_k = {1, 8, 32};
  float temperature = 1.0f;
  float top_p = 0.7f;
  int top_k = 0;
  int max_problems = 0;  ///< 0: all
  bool dedupe = true;    ///< repeated problems once
};

struct TrainerSection {
  int total_steps = 100;  ///< rollout steps
  uint64_t seed = 1;
  std::string run_dir = "runs/run";
  int save_every = 0;          ///< steps between saved models; 0: only the last
  bool log_rollouts = true;    ///< rollouts/step_N.jsonl
  int nonfinite_patience = 3;  ///< refused updates in a row before exit code 4
  int stuck_patience =
      10;  ///< steps in a row without a group of right and wrong responses before exit code 4; 0: never
};

struct ParallelSection {
  int tensor = 1;
  int data = 1;
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

/// Which settings a program needs beyond their defaults.
enum class Use : uint8_t { train, sft, eval };

/// Reads a .cfg file and then "section.field=value" settings, in order. Unknown keys, wrong types and values that
/// cannot work are errors (exit 2) with file:line, the nearest known key, and how to mend it.
Config load_config(const std::string& path, const std::vector<std::string>& settings, Use use = Use::train);
/// Applies "section.field=value" settings in order, without the checks across sections.
void apply_settings(Config& config, const std::vector<std::string>& settings);
/// Checks that the files and folders which `use` needs are named, and what the sections say together (mini-batch
/// divides the batch, lengths, fractions); called by load_config.
void check_config(const Config& config, Use use, const std::string& where);
/// The whole configuration as a .cfg file.
std::string config_text(const Config& config);
/// Every setting with its default and what it may be, as a .cfg file.
std::string settings_help();
/// Numbers that follow: responses a step, updates a step, tokens a response at most; one a line.
std::string derived_numbers(const Config& config);

}  // namespace dapo
