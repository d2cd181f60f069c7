#include "host/train/settings_names.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/choices.h"
#include "host/train/settings_table.h"

namespace dapo {
namespace {

constexpr std::string_view kFixedKl =
    "the KL goes into the loss with a fixed factor and a frozen reference: "
    "actor.kl_loss_coef, actor.kl_loss_type, model.reference";
constexpr std::string_view kNoCritic = "there is no critic: see algorithm.adv_estimator";
constexpr std::string_view kNoStrategies =
    "parallel.dp, parallel.tp and parallel.zero_stage are all there is to choose: leave it out";
constexpr std::string_view kLogs = "numbers go to metrics.jsonl in trainer.run_dir: leave it out";
constexpr std::string_view kEngine = "rollout runs in this program, on the training weights: leave it out";

struct Alias {
  std::string_view names;  ///< "a|b|c", without their sections
  std::string_view key;    ///< the settings that do this; or, where `setting` is false, why there are none
  bool setting = true;
};

/// Names beyond those of the table (Setting::other): OpenRLHF's, older ones, common guesses.
constexpr Alias kAliases[] = {
    {"actor_learning_rate", "actor.lr"},
    {"kl_coef|use_kl_loss|init_kl_coef|kl|kl_beta", "actor.kl_loss_coef"},
    {"kl_estimator|use_kl_estimator_k3", "actor.kl_loss_type"},
    {"ref_model|ref_model_path|reference_model|ref_path", "model.reference"},
    {"use_kl_in_reward|kl_penalty|kl_ctrl|target_kl|sync_ref_model|ref_model_sync_steps", kFixedKl, false},
    {"entropy_loss_coef", "actor.entropy_coeff"},
    {"advantage_estimator", "algorithm.adv_estimator"},
    {"loss_mode|policy_loss_type", "actor.policy_loss"},
    {"gamma|lam|lambda|lambd|critic|vf_coef|value_clip|critic_learning_rate|critic_warmup", kNoCritic, false},
    {"tensor_parallel_size", "parallel.tp"},
    {"nnodes|num_gpus|world_size", "parallel.dp"},
    {"stage|zero|sharding_strategy", "parallel.zero_stage"},
    {"communication_data_type|grad_reduce_in_bf16|reduce_precision", "parallel.reduce_dtype"},
    {"overlap_comm|overlap_grad_reduce", "parallel.overlap"},
    {"deepspeed|fsdp_config|ulysses_sequence_parallel_size|vllm_num_engines", kNoStrategies, false},
    {"project_name|experiment_name|logger|report_to|use_wandb|wandb|run_name|logging_steps|log_completions", kLogs,
     false},
    {"use_vllm|vllm_mode|vllm|enforce_eager|free_cache_engine|load_format|enable_chunked_prefill", kEngine, false},
    {"max_tokens|max_new_tokens|generate_max_len|response_length|max_response_len", "data.max_response_length"},
    {"prompt_max_len|max_prompt_len|prompt_length", "data.max_prompt_length"},
    {"max_model_len|max_length|max_seq_len|max_len", "data.max_prompt_length and data.max_response_length"},
    {"n_samples_per_prompt|group_size|num_return_sequences|rollout_n|num_samples|g|G", "rollout.n"},
    {"batch_size|global_batch_size|rollout_batch_size|per_device_train_batch_size|prompts_per_step",
     "data.train_batch_size (prompts a step)"},
    {"mini_batch_size|minibatch_size|ppo_minibatch_size", "actor.ppo_mini_batch_size"},
    {"gen_prompt_bsz|generation_batch_size", "data.gen_batch_size"},
    {"micro_batch_size|ppo_micro_batch_size|ppo_micro_batch_size_per_gpu|micro_train_batch_size|"
     "gradient_accumulation_steps|ppo_max_token_len_per_gpu|use_dynamic_bsz|log_prob_micro_batch_size_per_gpu",
     "actor.ppo_max_token_len (tokens of a pack; 0: by memory)"},
    {"epsilon|cliprange|eps_clip|clip_ratio|clip_range|clip_eps", "actor.clip_ratio_low and actor.clip_ratio_high"},
    {"epsilon_low|eps_clip_low|clip_low", "actor.clip_ratio_low"},
    {"eps_clip_high|clip_high|clip_higher", "actor.clip_ratio_high"},
    {"dual_clip", "actor.clip_ratio_c"},
    {"epochs|total_epochs|num_train_epochs|num_episodes|max_epochs|max_steps|num_steps|total_training_steps|"
     "train_steps",
     "trainer.total_steps (rollout steps)"},
    {"ppo_epoch|mu", "actor.ppo_epochs"},
    {"lr_warmup|warmup_ratio|lr_warmup_ratio|lr_warmup_steps_ratio|warmup", "actor.lr_warmup_steps"},
    {"lr_scheduler|scheduler", "actor.lr_schedule"},
    {"clip_grad|gradient_clip|gradient_clipping|max_norm|grad_norm", "actor.grad_clip"},
    {"adam_eps|epsilon_adam", "actor.eps"},
    {"adam_betas|betas", "actor.beta1 and actor.beta2"},
    {"l2|wd|decay", "actor.weight_decay"},
    {"save_path|ckpt_path|checkpoint_dir|save_dir", "trainer.run_dir"},
    {"save_interval|checkpoint_every", "trainer.save_every"},
    {"eval_every|eval_interval|eval_freq", "eval.every"},
    {"model_name|model_path|pretrain|base_model|tokenizer_path|tokenizer", "model.path"},
    {"dataset|dataset_name|dataset_path|train_file|train_data|prompt_data|train_path", "data.train_files"},
    {"eval_data|eval_dataset|val_file|val_data|test_files|test_file", "data.val_files"},
    {"input_key|question_key|prompt_column", "data.prompt_key"},
    {"label_key|ground_truth_key|answer_column|target_key", "data.answer_key"},
    {"apply_chat_template|chat_template|template|prompt_type", "data.prompt_template"},
    {"system|system_message", "data.system_prompt"},
    {"suffix", "data.prompt_suffix"},
    {"truncation", "data.overlong_prompts"},
    {"loss_agg|loss_aggregation", "actor.loss_agg_mode"},
    {"normalize_advantages|whiten_advantages", "algorithm.norm_adv_by_std"},
    {"overlong_filter|enable_overlong_filter", "algorithm.overlong_filtering"},
    {"dynamic_sampling|dynamic_filtering|filter_group|filter_groups_enable", "algorithm.filter_groups"},
    {"kv_cache_memory|kv_cache_gb", "rollout.kv_memory_gb"},
    {"max_running_requests|max_batch_size", "rollout.max_num_seqs"},
    {"block_size", "rollout.page_size"},
    {"reward_fn|reward_function|reward_model|custom_reward_function|remote_rm_url|scorer", "reward.verifier"},
    {"overlong_penalty|overlong_penalty_len|overlong_buffer_length", "reward.overlong_buffer_len"},
    {"activation_checkpointing", "model.recompute"},
    {"optimizer_offload|cpu_offload|adam_offload", "model.offload_optimizer"},
    {"bf16|fp16|torch_dtype|precision|mixed_precision", "model.dtype"},
    {"num_threads|cpu_threads", "model.threads"},
    {"random_seed|data_seed", "trainer.seed"},
};

std::string_view trimmed(std::string_view s) {
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.front()))) s.remove_prefix(1);
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.back()))) s.remove_suffix(1);
  return s;
}

/// The setting that verl or TRL calls `name`, which may lack the front of its path ("optim.lr"); nullptr if there is
/// none or more than one.
const Setting* find_other_name(std::string_view name) {
  const Setting* found = nullptr;
  for (const Setting& s : all_settings()) {
    if (s.other.trl != name && !fmt::format(".{}", s.other.verl).ends_with(fmt::format(".{}", name))) continue;
    if (found != nullptr) return nullptr;
    found = &s;
  }
  return found;
}

}  // namespace

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

std::string name_hint(std::string_view key) {
  const std::string_view section = key.substr(0, key.find('.')), field = key.substr(key.rfind('.') + 1);
  const auto ask = [](std::string_view settings) { return fmt::format("did you mean {}?", settings); };
  std::string joined(key.substr(key.find('.') + 1));
  if (joined.find('.') != std::string::npos)
    if (const Setting* s = find_other_name(joined)) return ask(s->key);
  std::ranges::replace(joined, '.', '_');
  const Setting* found = nullptr;
  size_t best = std::string::npos;
  for (const Setting& s : all_settings()) {
    const size_t d = std::min(edit_distance(field, s.field()), edit_distance(joined, s.field()));
    const size_t whole = 2 * d + (section != s.section());  // the same section goes first where fields are as near
    if (whole < best) best = whole, found = &s;
  }
  const size_t letters = best / 2;
  if (letters > 0 || found->section() == "sft") {  // a name that only [sft] has means the run's setting elsewhere
    for (const Alias& alias : kAliases)
      if (choice_index(alias.names, field) >= 0 || choice_index(alias.names, joined) >= 0)
        return alias.setting ? ask(alias.key) : std::string(alias.key);
    if (const Setting* s = find_other_name(field)) return ask(s->key);
  }
  if (letters <= std::max<size_t>(1, field.size() / 3)) return ask(found->key);
  return "./dapo_train --settings lists them all";
}

std::string value_hint(std::string_view line) {
  const size_t equals = line.find('=');
  if (equals == std::string_view::npos) {
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return "";
    return fmt::format("; write {} = {}", trimmed(line.substr(0, colon)), trimmed(line.substr(colon + 1)));
  }
  const std::string_view key = trimmed(line.substr(0, equals));
  std::string_view value = line.substr(equals + 1);
  value = trimmed(value.substr(0, value.find('#')));
  if (value.empty()) return fmt::format("; {} has no value", key);
  if (std::string_view("\"'[{").find(value[0]) != std::string_view::npos) return "";
  if (value.ends_with(',')) return "; no comma at the end of a line";
  std::string lower(value);
  std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return std::tolower(c); });
  if (lower == "true" || lower == "false") return fmt::format("; write {} = {}", key, lower);
  if (choice_index("yes|no|on|off", lower) >= 0) return fmt::format("; write {} = true or {} = false", key, key);
  if (choice_index("none|null|nil", lower) >= 0) return fmt::format("; leave {} out for its default", key);
  if (value[0] == '.' && value.size() > 1 && std::isdigit(static_cast<unsigned char>(value[1])))
    return fmt::format("; write {} = 0{}", key, value);
  if (value[0] == '+' || value[0] == '-' || std::isdigit(static_cast<unsigned char>(value[0]))) {
    if (value.find_first_not_of("+-0123456789.eE_") == std::string_view::npos)
      return fmt::format("; {} is not how TOML writes a number (1.0, 1e-6, 1_000)", value);
  }
  return fmt::format("; text needs quotes: {} = \"{}\"", key, value);
}

}  // namespace dapo
