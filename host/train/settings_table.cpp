#include "host/train/settings_table.h"

#include <algorithm>
#include <utility>

#include "host/verify/verify.h"

namespace dapo {
namespace {

constexpr Rule any() {
  return {};
}
constexpr Rule one_of(std::string_view choices) {
  return {choices};
}
constexpr Rule at_least(double low) {
  return {{}, low};
}
constexpr Rule above(double low) {
  return {{}, low, std::numeric_limits<double>::infinity(), true};
}
constexpr Rule within(double low, double high) {
  return {{}, low, high};
}
constexpr Rule or_word(std::string_view word, Rule rule) {
  rule.zero = word;
  return rule;
}
constexpr Rule fraction_above_0() {
  return {{}, 0, 1, true};
}
constexpr Rule seconds() {
  return {{}, 0, 86400, true};
}
constexpr double kMostTokens = 1 << 24;  // and prompts
constexpr double kMostResponses = 1 << 16;

template <class T>
constexpr std::string_view kEnumList = {};
template <class E>
requires std::is_enum_v<E>
constexpr std::string_view kEnumList<E> = choices(E{});

// clang-format off
#define ROW(section, field, ...)                                                                                  \
  {#section "." #field, [](Config& c) -> Member { return &c.section.field; },                                    \
   kEnumList<decltype(std::declval<Config>().section.field)>, __VA_ARGS__}
// clang-format on

// To add a setting: 1. the field with its default, in settings.h; 2. here its row: rule, help (what it does, its unit),
// and its name in verl and TRL if that differs; 3. make docs. For a new enum also name its words with choices() beside
// it, and list it in Member (settings_table.h). Tests fail for a field without a row and for stale docs/settings.md.
constexpr Setting kSettings[] = {
    ROW(model, path, any(), "a Hugging Face folder with config.json, weights and tokenizer",
        {.trl = "model_name_or_path"}),
    ROW(model, reference, any(),
        "a Hugging Face folder: the frozen model of the KL (actor.kl_loss_coef), of the same shapes; empty: that of "
        "model.path"),
    ROW(model, device, any(), "where to compute; auto: a GPU if there is one"),
    ROW(model, dtype, any(),
        "type of weights and activations (sums, master weights and moments are fp32); auto: bf16 if the device "
        "multiplies it natively, else f32"),
    ROW(model, threads, within(0, 4096), "CPU threads; 0: all cores"),
    ROW(model, recompute, any(),
        "keep only the input of each layer and run its forward pass again in the backward pass: less memory, more "
        "time, the same bits",
        {.verl = "model.enable_gradient_checkpointing", .trl = "gradient_checkpointing"}),
    ROW(model, offload_optimizer, any(),
        "keep AdamW's moments and the low halves of the masters in the host's memory, pinned: 10 bytes a parameter "
        "less "
        "on the GPU, and an update reads and writes them over the bus; the same bits. No effect on a CPU",
        {.verl = "actor.fsdp_config.optimizer_offload"}),

    ROW(data, train_files, any(),
        "JSONL or Parquet files of prompts with answers, folders of them or patterns (docs/data.md)"),
    ROW(data, val_files, any(),
        "sets of problems to evaluate on, each reported apart: aime-2024, aime-2025, amc23, gsm8k, math-500 (as "
        "data/download.sh fetches them), JSONL or Parquet files, folders, patterns; empty: no evaluation"),
    ROW(data, format, any(),
        "layout of a row; auto: recognised by its fields (docs/data.md); countdown: {\"input\": \"30,100,93\", "
        "\"output\": \"23\"}"),
    ROW(data, prompt_key, any(), "field of the prompt, a.b for b inside a; empty: found by its usual names"),
    ROW(data, answer_key, any(), "field of the ground truth; empty: found by its usual names"),
    ROW(data, response_key, any(), "field of the response that dapo sft imitates; empty: found by its usual names"),
    ROW(data, prompt_template, any(),
        "how a prompt becomes text (docs/prompts.md); auto: chatml if the model has a chat template, else raw; raw: as "
        "it is; chatml: through the model's chat template; dapo: in the wrapper of the DAPO paper, then as auto"),
    ROW(data, prompt_format, any(),
        "plain text around the prompt, such as \"Q: {question}\\nA:\", for models without a chat template"),
    ROW(data, system_prompt, any(), "system message in place of the chat template's default"),
    ROW(data, prompt_suffix, any(), "appended to the user's text"),
    ROW(data, max_prompt_length, within(1, kMostTokens), "tokens of a prompt; for longer ones see overlong_prompts"),
    ROW(data, max_response_length, within(1, kMostTokens), "tokens of a response, its end token included",
        {.trl = "max_completion_length"}),
    ROW(data, overlong_prompts, any(),
        "prompts longer than max_prompt_length; drop: they are left out and counted; error: stop",
        {.verl = "data.filter_overlong_prompts"}),
    ROW(data, unique, any(), "train on each problem once an epoch: further rows with the same prompt are left out"),
    ROW(data, shuffle, any(), "a new order of the prompts in each epoch", {.trl = "shuffle_dataset"}),
    ROW(data, train_batch_size, within(1, kMostTokens), "prompts that a step trains on"),
    ROW(data, gen_batch_size, within(0, kMostTokens),
        "prompts of one generation batch; 0: as many as should yield the groups still missing (docs/dapo.md)"),

    ROW(rollout, n, within(1, kMostResponses), "responses per prompt (G)", {.trl = "num_generations"}),
    ROW(rollout, temperature, at_least(kLeastTemperature), "sampling temperature"),
    ROW(rollout, top_k, at_least(0), "sample among the k most probable tokens; 0: off"),
    ROW(rollout, top_p, fraction_above_0(),
        "sample among the fewest tokens whose probabilities sum to at least this; 1: off"),
    ROW(rollout, min_p, within(0, 1),
        "sample among tokens at least this times as probable as the most probable one; 0: off"),
    ROW(rollout, max_num_seqs, within(1, 1 << 20), "sequences decoded at once"),
    ROW(rollout, max_num_batched_tokens, within(0, kMostTokens),
        "tokens of one prefill call; 0: 4096 on a GPU, 512 on a CPU, where a signal waits for the call to end"),
    ROW(rollout, page_size, within(64, 1 << 20), "tokens per KV page, a multiple of 64"),
    ROW(rollout, kv_memory_gb, at_least(0),
        "GB (1e9 bytes) of KV pages; 0: what the sequences of a batch need, as far as memory allows",
        {.verl = "rollout.gpu_memory_utilization", .trl = "vllm_gpu_memory_utilization"}),
    ROW(rollout, ignore_eos, any(), "every response runs to max_response_length (for benchmarks)"),
    ROW(rollout, partial, any(),
        "once the batch is full, leave unfinished responses for the next step, which goes on with them (each token "
        "keeps "
        "the log-prob of the weights that drew it): no step waits for its longest response, but short ones come first, "
        "and results depend on the batching; algorithm.max_age limits the age"),
    ROW(rollout, collect_every, within(0, 65536),
        "decode steps between host synchronizations (finished sequences are noticed only then); 0: 1 on a CPU, 16 on "
        "a GPU"),

    ROW(actor, ppo_mini_batch_size, at_least(1), "prompts per update; must divide data.train_batch_size"),
    ROW(actor, ppo_epochs, at_least(1), "times that a step trains on its prompts", {.trl = "num_iterations"}),
    ROW(actor, lr, above(0), "learning rate of AdamW, reached after the warm-up",
        {.verl = "actor.optim.lr", .trl = "learning_rate"}),
    ROW(actor, weight_decay, at_least(0), "decoupled weight decay of AdamW (times the learning rate)",
        {.verl = "actor.optim.weight_decay"}),
    ROW(actor, beta1, within(0, 1), "decay of AdamW's first moment", {.trl = "adam_beta1"}),
    ROW(actor, beta2, within(0, 1), "decay of AdamW's second moment", {.trl = "adam_beta2"}),
    ROW(actor, eps, above(0), "AdamW's epsilon", {.trl = "adam_epsilon"}),
    ROW(actor, grad_clip, at_least(0), "largest global norm of the gradient, which is scaled down to it; 0: off",
        {.trl = "max_grad_norm"}),
    ROW(actor, lr_warmup_steps, at_least(0),
        "rollout steps (not updates) of linear warm-up; the first step's rate is above 0",
        {.verl = "actor.optim.lr_warmup_steps", .trl = "warmup_steps"}),
    ROW(actor, lr_schedule, any(), "rate after the warm-up; cosine, linear: down to 0 at trainer.total_steps",
        {.verl = "actor.optim.warmup_style", .trl = "lr_scheduler_type"}),
    ROW(actor, clip_ratio_low, within(0, 1), "the ratio is clipped at 1 - this", {.trl = "epsilon"}),
    ROW(actor, clip_ratio_high, at_least(0), "the ratio is clipped at 1 + this (Clip-Higher)", {.trl = "epsilon_high"}),
    ROW(actor, clip_ratio_c, at_least(0),
        "dual clip (arXiv 1912.09729): for an advantage A < 0 the loss of a token is at most -A times this, more than "
        "1; 0: off",
        {.trl = "delta"}),
    ROW(actor, policy_loss, any(),
        "loss of a token (docs/objectives.md); clip: its ratio, clipped; gspo: the ratio of its response, clipped; "
        "cispo: log-prob times the clipped ratio, held constant; reinforce: log-prob, no ratio",
        {.verl = "actor.policy_loss.loss_mode", .trl = "importance_sampling_level"}),
    ROW(actor, loss_agg_mode, any(),
        "weight of a token in the loss (docs/dapo.md); token-mean: DAPO; seq-mean-token-mean: GRPO; "
        "seq-mean-token-sum-norm: Dr. GRPO; token-mean-per-micro-batch: as in the published run",
        {.trl = "loss_type"}),
    ROW(actor, kl_loss_coef, at_least(0),
        "factor of the KL to the reference (model.reference) in the loss of a token; 0: no KL, no reference in memory",
        {.trl = "beta"}),
    ROW(actor, kl_loss_type, any(),
        "estimate of the KL, d = log-prob - the reference's; k1: d, whose expected gradient is 0; k2: d^2 / 2; k3: "
        "exp(-d) - 1 + d"),
    ROW(actor, entropy_coeff, at_least(0), "factor of the entropy bonus of a token: its entropy is taken off its loss",
        {.trl = "entropy_coef"}),
    ROW(actor, ppo_max_token_len, at_least(0),
        "tokens of a pack (micro-batch), at least those of one prompt with its response; 0: as memory allows",
        {.verl = "actor.ppo_max_token_len_per_gpu"}),
    ROW(actor, old_logprobs, any(),
        "old log-probabilities; rollout: those that the tokens were sampled with; recompute: those of a forward pass "
        "before the updates, which measures the mismatch"),

    ROW(algorithm, preset, any(),
        "an objective by name: values for several settings, over which the single ones go wherever they are written "
        "(docs/objectives.md)"),
    ROW(algorithm, adv_estimator, any(),
        "advantage of a response of reward R; grpo: R - mean of its group (see norm_adv_by_std); rloo: R - mean of the "
        "other responses; reinforce_plus_plus: R, normalised over the tokens of the step; "
        "reinforce_plus_plus_baseline: R - mean of its group, normalised likewise"),
    ROW(algorithm, norm_adv_by_std, any(),
        "adv_estimator = grpo: divide advantages by the group's standard deviation; false: Dr. GRPO (its loss: "
        "actor.loss_agg_mode = seq-mean-token-sum-norm)",
        {.verl = "algorithm.norm_adv_by_std_in_grpo", .trl = "scale_rewards"}),
    ROW(algorithm, filter_groups, any(),
        "dynamic sampling: train only on groups with right and wrong responses, and draw until there are enough",
        {.verl = "algorithm.filter_groups.enable"}),
    ROW(algorithm, max_num_gen_batches, at_least(1),
        "generation batches of data.gen_batch_size prompts (0: of 3 x data.train_batch_size, as in the paper) that a "
        "step may draw; then it trains on the groups it has",
        {.verl = "algorithm.filter_groups.max_num_gen_batches"}),
    ROW(algorithm, stop_when_solved, within(0, 1),
        "once a step has drawn a batch of prompts, and more than this share of its groups are all right, it draws no "
        "more and trains on the groups it has, and the next one begins with no more than a batch; 1: never"),
    ROW(algorithm, skip_solved, at_least(0),
        "a prompt whose last visits, this many, were all right or all wrong is visited in one epoch of four; 0: off"),
    ROW(algorithm, surplus, any(),
        "groups finished beyond the batch; bank: they open the next step; drop: as verl does; auto: bank if "
        "data.gen_batch_size = 0, so that they are few, else drop"),
    ROW(algorithm, max_age, within(0, 1 << 20),
        "steps after which a banked group is dropped; 0: train on this step's groups only"),
    ROW(algorithm, overlong_filtering, any(), "mask truncated responses in the loss",
        {.trl = "mask_truncated_completions"}),

    ROW(reward, verifier, one_of(kVerifierNames),
        "judges responses; math_dapo: the paper's, the last line \"Answer: ...\"; gsm8k: what follows the last "
        "\"####\"; boxed: the last \\boxed{}, compared as mathematics (docs/verifiers.md); math: the same for an "
        "answer that may stand outside a box; countdown: an expression "
        "that reaches the target; exact: the whole response; format: reward.pattern; command: reward.command",
        {.verl = "reward_model.reward_manager", .trl = "reward_funcs"}),
    ROW(reward, correct, any(), "reward of a right response"),
    ROW(reward, incorrect, any(), "reward of a wrong response"),
    ROW(reward, command, any(),
        "program of verifier \"command\", with its arguments: one text, cut at blanks outside quotes, or a list "
        "(docs/verifiers.md); no shell"),
    ROW(reward, timeout, seconds(),
        "seconds that the program has for one answer, 10 times as many for its first; then it is killed, the response "
        "counts as an error, and the program is started again"),
    ROW(reward, pattern, any(),
        "form of a response for verifier \"format\": \"<think>*</think>*\"; each * stands for any text, each fixed "
        "piece occurs once"),
    ROW(reward, terms, any(),
        "further rewards, added to the verifier's, which alone decides what is right: a list of tables {name, "
        "verifier, "
        "weight, pattern, command}; a term gives 1 for right and 0 for wrong, or the score of its command, times its "
        "weight (docs/verifiers.md)",
        {.trl = "reward_weights"}),
    ROW(reward, overlong_buffer, any(), "soft overlong punishment, added to the reward",
        {.verl = "reward_model.overlong_buffer.enable"}),
    ROW(reward, overlong_buffer_len, at_least(1),
        "last tokens before data.max_response_length, over which the punishment grows linearly",
        {.verl = "reward_model.overlong_buffer.len"}),
    ROW(reward, overlong_penalty_factor, at_least(0), "punishment at data.max_response_length",
        {.verl = "reward_model.overlong_buffer.penalty_factor"}),
    ROW(reward, workers, within(1, 1024), "verifier threads, and processes of each command"),

    ROW(sft, files, any(), "JSONL or Parquet files of prompts with responses (docs/data.md)"),
    ROW(sft, steps, at_least(1), "updates"),
    ROW(sft, batch_size, at_least(1), "rows per update"),
    ROW(sft, lr, above(0), "learning rate of AdamW, reached after the warm-up"),
    ROW(sft, lr_warmup_steps, at_least(0), "updates of linear warm-up"),
    ROW(sft, lr_decay_fraction, within(0, 1), "last part of the steps, over which the rate falls linearly to 0"),
    ROW(sft, weight_decay, at_least(0), "decoupled weight decay of AdamW (times the learning rate)"),
    ROW(sft, beta1, within(0, 1), "decay of AdamW's first moment"),
    ROW(sft, beta2, within(0, 1), "decay of AdamW's second moment"),
    ROW(sft, eps, above(0), "AdamW's epsilon"),
    ROW(sft, grad_clip, at_least(0), "largest global norm of the gradient, which is scaled down to it; 0: off"),
    ROW(sft, init_std, above(0), "standard deviation of the random weights of a model folder that has none"),
    ROW(sft, out, any(), "the folder that the trained model goes to"),

    ROW(eval, every, at_least(0), "steps between evaluations; 0: never",
        {.verl = "trainer.test_freq", .trl = "eval_steps"}),
    ROW(eval, before_train, any(), "evaluate before the first step too",
        {.verl = "trainer.val_before_train", .trl = "eval_on_start"}),
    ROW(eval, n, within(1, kMostResponses), "responses per problem: avg@n, maj@n",
        {.verl = "rollout.val_kwargs.n", .trl = "num_generations_eval"}),
    ROW(eval, pass_k, at_least(1), "values k of pass@k, each at most n; those between 1 and n also of maj@k"),
    ROW(eval, temperature, at_least(0), "sampling temperature, at least 0.0001; 0: the most probable token",
        {.verl = "rollout.val_kwargs.temperature"}),
    ROW(eval, top_p, fraction_above_0(),
        "sample among the fewest tokens whose probabilities sum to at least this; 1: off",
        {.verl = "rollout.val_kwargs.top_p"}),
    ROW(eval, top_k, at_least(0), "sample among the k most probable tokens; 0: off",
        {.verl = "rollout.val_kwargs.top_k"}),
    ROW(eval, max_problems, at_least(0), "problems of each set to evaluate on, from the first; 0: all"),
    ROW(eval, dedupe, any(), "evaluate on each problem once, even if the set repeats it"),

    ROW(trainer, total_steps, at_least(0),
        "rollout steps of the run, each of data.train_batch_size / actor.ppo_mini_batch_size updates",
        {.verl = "trainer.total_training_steps"}),
    ROW(trainer, seed, any(), "of every draw: prompts, tokens, random weights"),
    ROW(trainer, run_dir, any(), "the folder that results go to",
        {.verl = "trainer.default_local_dir", .trl = "output_dir"}),
    ROW(trainer, save_every, at_least(0),
        "steps between checkpoints, from which a run goes on bit for bit; each has a Hugging Face folder; one is also "
        "written at the end and on a signal; 0: only then",
        {.verl = "trainer.save_freq", .trl = "save_steps"}),
    ROW(trainer, keep, at_least(0), "newest checkpoints that stay; 0: all",
        {.verl = "trainer.max_actor_ckpt_to_keep", .trl = "save_total_limit"}),
    ROW(trainer, keep_best, any(),
        "metric of metrics.jsonl; at its largest value so far a checkpoint is written, and stays; \"\": none",
        {.trl = "metric_for_best_model"}),
    ROW(trainer, log_rollouts, any(),
        "write every response with its verdict to rollouts/step_N.jsonl, and those of evaluations to "
        "eval/step_N.jsonl"),
    ROW(trainer, nonfinite_patience, at_least(1),
        "updates refused in a row, because a number was not finite, before exit code 4"),
    ROW(trainer, stuck_patience, at_least(0),
        "steps in a row without any group of right and wrong responses before exit code 4; 0: never"),

    ROW(parallel, dp, or_word("auto", within(1, 4096)),
        "copies of the weights, each of which draws and trains on a part of the prompts; dapo_train starts dp x tp "
        "ranks by mpirun if that is above 1 (docs/parallel.md); auto: all GPUs of this machine, or all ranks that "
        "mpirun or srun has started",
        {.verl = "trainer.n_gpus_per_node", .trl = "num_processes"}),
    ROW(parallel, tp, or_word("auto", within(1, 1024)),
        "ranks that share one copy of the weights; auto: the fewest with which a rank's part fits its memory, and dp "
        "counts all ranks",
        {.verl = "rollout.tensor_model_parallel_size", .trl = "vllm_tensor_parallel_size"}),
    ROW(parallel, transport, any(),
        "what carries tensors between ranks on GPUs; host: copies to the host's memory and MPI, which is slow, needs "
        "no "
        "NCCL, and lets ranks share a GPU"),
    ROW(parallel, zero_stage, within(1, 2),
        "what the copies divide among them: 1: moments and masters; 2: gradients as well, which takes memory from 4 to "
        "about 4 / dp bytes a parameter, and sends gradients once a pack instead of once a mini-batch"),
    ROW(parallel, reduce_dtype, any(),
        "type in which gradients travel between the copies; bf16: half of the bytes, and each copy's part of a sum is "
        "rounded to 8 bits, relative error 0.002; the sum is f32"),
    ROW(parallel, overlap, any(),
        "sum gradients over the copies while the backward of a mini-batch's last pack still runs, instead of after it; "
        "the same bits. false: where the exchange slows the products down by more than it hides, and to compare"),
    ROW(parallel, hang_seconds, seconds(),
        "a rank that others wait for, and that shows no sign of life for so many seconds, ends the run (exit code 5)"),
};
#undef ROW

constexpr Section kSections[] = {
    {"model", "The model and the device it runs on"},
    {"data", "Training and test sets, and how their rows become prompts"},
    {"rollout", "Sampling of the responses to train on, and its memory"},
    {"actor", "The update: optimizer, loss, mini-batches"},
    {"algorithm", "Advantages and dynamic sampling"},
    {"reward", "Verifier and reward"},
    {"sft", "Fine-tuning on given responses (dapo sft)"},
    {"eval", "Evaluation, during training and by dapo eval"},
    {"trainer", "The run: its length, seed and folder, when to save, when to give up"},
    {"parallel", "Several ranks: processes that train together"},
};

}  // namespace

std::span<const Setting> all_settings() {
  return kSettings;
}
std::span<const Section> all_sections() {
  return kSections;
}

const Setting* find_setting(std::string_view key) {
  const auto s = std::ranges::find(kSettings, key, &Setting::key);
  return s == std::end(kSettings) ? nullptr : &*s;
}

}  // namespace dapo
