#include "host/train/settings_table.h"

#include <fmt/format.h>

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
constexpr Rule fraction_above_0() {
  return {{}, 0, 1, true};
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char ch : text) {
    const auto byte = static_cast<unsigned char>(ch);
    if (ch == '"' || ch == '\\')
      (out += '\\') += ch;
    else if (byte < 0x20 || byte == 0x7f)
      out += fmt::format("\\u{:04x}", byte);
    else
      out += ch;
  }
  return out + '"';
}

struct Writer {
  std::string operator()(const std::string* v) const { return quoted(*v); }
  std::string operator()(const bool* v) const { return *v ? "true" : "false"; }
  template <class T>
  std::string operator()(const T* v) const {
    return fmt::format("{}", *v);
  }
  template <class T>
  std::string operator()(const std::vector<T>* v) const {
    std::string out;
    for (const T& one : *v) (out += out.empty() ? "" : ", ") += (*this)(&one);
    return "[" + out + "]";
  }
};

/// One line a setting under its section; `show_rule` adds what a value may be.
std::string written(const Config& config, bool show_rule) {
  Config copy = config;
  std::string out, section;
  for (const Setting& s : settings_of(copy)) {
    if (s.section() != section) out += fmt::format("{}[{}]\n", section.empty() ? "" : "\n", s.section());
    section = s.section();
    out += fmt::format("{} = {}", s.field(), std::visit(Writer{}, s.member));
    if (show_rule && !s.rule.choices.empty()) out += fmt::format("  # {}", s.rule.choices);
    if (show_rule && s.rule.low > -std::numeric_limits<double>::infinity())
      out += fmt::format(
          "  # {} {}{}", s.rule.above_low ? "more than" : "at least", s.rule.low,
          s.rule.high < std::numeric_limits<double>::infinity() ? fmt::format(", at most {}", s.rule.high) : "");
    out += '\n';
  }
  return out;
}

}  // namespace

std::vector<Setting> settings_of(Config& c) {
#define AT(section, field) #section "." #field, &c.section.field
  return {
      {AT(model, path), any()},
      {AT(model, device), one_of("auto|cpu|cuda")},
      {AT(model, dtype), one_of("auto|bf16|f32")},
      {AT(model, threads), within(0, 4096)},
      {AT(model, recompute), any()},
      {AT(data, train_files), any()},
      {AT(data, val_files), any()},
      {AT(data, format), one_of("auto|countdown")},
      {AT(data, prompt_key), any()},
      {AT(data, answer_key), any()},
      {AT(data, response_key), any()},
      {AT(data, prompt_template), one_of("auto|raw|chatml|dapo")},
      {AT(data, prompt_format), any()},
      {AT(data, system_prompt), any()},
      {AT(data, prompt_suffix), any()},
      {AT(data, max_prompt_length), within(1, 1 << 24)},
      {AT(data, max_response_length), within(1, 1 << 24)},
      {AT(data, overlong_prompts), one_of("drop|error")},
      {AT(data, unique), any()},
      {AT(data, shuffle), any()},
      {AT(data, train_batch_size), within(1, 1 << 24)},
      {AT(data, gen_batch_size), within(0, 1 << 24)},
      {AT(rollout, n), within(1, 65536)},
      {AT(rollout, temperature), at_least(1e-4)},
      {AT(rollout, top_k), at_least(0)},
      {AT(rollout, top_p), fraction_above_0()},
      {AT(rollout, min_p), within(0, 1)},
      {AT(rollout, max_num_seqs), within(1, 1 << 20)},
      {AT(rollout, max_num_batched_tokens), within(1, 1 << 24)},
      {AT(rollout, page_size), within(64, 1 << 20)},
      {AT(rollout, kv_memory_gb), at_least(0)},
      {AT(rollout, ignore_eos), any()},
      {AT(rollout, collect_every), within(0, 65536)},
      {AT(actor, ppo_mini_batch_size), at_least(1)},
      {AT(actor, ppo_epochs), at_least(1)},
      {AT(actor, lr), above(0)},
      {AT(actor, weight_decay), at_least(0)},
      {AT(actor, beta1), within(0, 1)},
      {AT(actor, beta2), within(0, 1)},
      {AT(actor, eps), above(0)},
      {AT(actor, grad_clip), at_least(0)},
      {AT(actor, lr_warmup_steps), at_least(0)},
      {AT(actor, lr_schedule), one_of("constant|cosine|linear")},
      {AT(actor, clip_ratio_low), within(0, 1)},
      {AT(actor, clip_ratio_high), at_least(0)},
      {AT(actor, clip_ratio_c), above(1)},
      {AT(actor, loss_agg_mode),
       one_of("token-mean|seq-mean-token-mean|seq-mean-token-sum|seq-mean-token-sum-norm|token-mean-per-micro-batch")},
      {AT(actor, ppo_max_token_len), at_least(0)},
      {AT(actor, old_logprobs), one_of("rollout|recompute")},
      {AT(algorithm, norm_adv_by_std), any()},
      {AT(algorithm, filter_groups), any()},
      {AT(algorithm, max_num_gen_batches), at_least(1)},
      {AT(algorithm, surplus), one_of("auto|bank|drop")},
      {AT(algorithm, max_age), within(0, 1 << 20)},
      {AT(algorithm, overlong_filtering), any()},
      {AT(reward, verifier), one_of("math_dapo|gsm8k|boxed|countdown|exact")},
      {AT(reward, correct), any()},
      {AT(reward, incorrect), any()},
      {AT(reward, overlong_buffer), any()},
      {AT(reward, overlong_buffer_len), at_least(1)},
      {AT(reward, overlong_penalty_factor), at_least(0)},
      {AT(reward, workers), within(1, 1024)},
      {AT(sft, files), any()},
      {AT(sft, steps), at_least(1)},
      {AT(sft, batch_size), at_least(1)},
      {AT(sft, lr), above(0)},
      {AT(sft, lr_warmup_steps), at_least(0)},
      {AT(sft, lr_decay_fraction), within(0, 1)},
      {AT(sft, weight_decay), at_least(0)},
      {AT(sft, beta1), within(0, 1)},
      {AT(sft, beta2), within(0, 1)},
      {AT(sft, eps), above(0)},
      {AT(sft, grad_clip), at_least(0)},
      {AT(sft, init_std), above(0)},
      {AT(sft, out), any()},
      {AT(eval, every), at_least(0)},
      {AT(eval, before_train), any()},
      {AT(eval, n), within(1, 65536)},
      {AT(eval, pass_k), at_least(1)},
      {AT(eval, temperature), at_least(0)},
      {AT(eval, top_p), fraction_above_0()},
      {AT(eval, top_k), at_least(0)},
      {AT(eval, max_problems), at_least(0)},
      {AT(eval, dedupe), any()},
      {AT(trainer, total_steps), at_least(0)},
      {AT(trainer, seed), any()},
      {AT(trainer, run_dir), any()},
      {AT(trainer, save_every), at_least(0)},
      {AT(trainer, log_rollouts), any()},
      {AT(trainer, nonfinite_patience), at_least(1)},
      {AT(trainer, stuck_patience), at_least(0)},
      {AT(parallel, tensor), at_least(1)},
      {AT(parallel, data), at_least(1)},
  };
#undef AT
}

std::string config_text(const Config& config) {
  return written(config, false);
}
std::string settings_help() {
  return written(Config(), true);
}

}  // namespace dapo
