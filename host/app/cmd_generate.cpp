#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "core/check.h"
#include "core/choices.h"
#include "host/app/commands.h"
#include "host/app/interrupt.h"
#include "host/app/json_lines.h"
#include "host/app/session.h"
#include "host/app/streams.h"
#include "host/rollout/rollout.h"
#include "host/train/limits.h"
#include "host/train/prompts.h"
#include "model/decode.h"

namespace dapo {
namespace {

struct Prompt {
  std::string id;
  std::vector<int32_t> ids;
};

void check_options(const GenerateOptions& o) {
  const auto require = [](bool holds, const char* flag, double value, const char* what) {
    if (!holds) fail_input("{} {:.6g}: {}", flag, value, what);
  };
  if (o.has_prompt != o.prompts.empty()) fail_input("give one of --prompt TEXT and --prompts FILE");
  require(o.n >= 1 && o.n <= 65536, "-n", o.n, "1 to 65536 responses");
  require(o.max_new_tokens >= 1 && o.max_new_tokens <= 1 << 24, "--max-new-tokens", o.max_new_tokens, "at least 1");
  require(o.batch >= 1 && o.batch <= 65536, "--batch", o.batch, "1 to 65536 sequences");
  require(o.temperature == 0 || o.temperature >= static_cast<float>(kLeastTemperature), "--temperature", o.temperature,
          "at least 0.0001, or 0: the most probable token");
  require(o.top_p > 0 && o.top_p <= 1, "--top-p", o.top_p, "above 0, at most 1");
  require(o.min_p >= 0 && o.min_p <= 1, "--min-p", o.min_p, "0 to 1");
  require(o.top_k >= 0, "--top-k", o.top_k, "at least 0 (0: off)");
}

/// {"ids"}, {"prompt"} as text or messages, or {"messages"}; with messages, "tools" and "chat_template_kwargs"; an "id"
/// is copied to the output.
Prompt read_prompt(const JsonRow& row, const PromptEncoder* encoder, size_t number) {
  Prompt p{row.text_or("id", std::to_string(number)), {}};
  if (row.has("ids")) {
    p.ids = row.ids("ids");
  } else if (encoder == nullptr) {
    row.fail_here("a text prompt needs a tokenizer, and the model's folder has none: give \"ids\"");
  } else if (const char* field = row.has("messages") ? "messages" : "prompt"; row.is_text(field)) {
    p.ids = encoder->encode(row.text(field));
  } else {
    Example e;
    e.messages = row.messages(field);
    e.tools = row.tools();
    e.variables = row.variables();
    p.ids = encoder->encode(e);
  }
  if (p.ids.empty()) row.fail_here("the prompt has no tokens");
  return p;
}

void write_group(LineWriter& out, const Prompt& prompt, const Completion& group, const Tokenizer* tokenizer) {
  for (size_t i = 0; i < group.responses.size(); ++i) {
    const Response& r = group.responses[i];
    JsonLine line;
    line.add("id", prompt.id).add("sample", static_cast<int64_t>(i));
    if (tokenizer != nullptr) line.add("text", tokenizer->decode(r.shown()));
    line.add("prompt_ids", prompt.ids).add("ids", r.ids).add("log_probs", r.log_prob);
    out.line(line.add("finish_reason", finish_name(r.finish)).str());
  }
  out.flush();
}

/// Draws what `rollout` holds and writes it: each prompt's responses as they become complete, in the order of the prompts;
/// one response to one prompt as it grows, if standard output is a terminal.
void draw_and_write(const GenerateOptions& o, const std::vector<Prompt>& prompts, Rollout& rollout,
                    const std::vector<int32_t>& stop, const Tokenizer* tokenizer) {
  const bool stream = o.has_prompt && o.n == 1 && o.out.empty() && isatty(STDOUT_FILENO) != 0;
  std::optional<StreamDecoder> text;
  if (stream) {
    text.emplace(*tokenizer);
    rollout.on_token = [&](int64_t, int, int32_t token) {
      if (std::find(stop.begin(), stop.end(), token) == stop.end()) print_out(text->push(token));
    };
  }
  LineWriter out(o.out);
  std::vector<Completion> groups(prompts.size());  // written in prompt order
  size_t written = 0;
  catch_interrupts();
  while (rollout.busy() && !interrupted()) {
    for (Completion& g : rollout.advance()) groups[static_cast<size_t>(g.id)] = std::move(g);
    for (; !stream && written < groups.size() && !groups[written].responses.empty(); ++written) {
      write_group(out, prompts[written], groups[written], tokenizer);
      groups[written] = {};
    }
  }
  if (text) print_out(std::string(text->finish()) + "\n");
  if (rollout.busy()) {  // interrupted: complete groups are kept, in prompt order
    size_t complete = written;
    for (size_t i = written; !stream && i < groups.size(); ++i)
      if (!groups[i].responses.empty()) write_group(out, prompts[i], groups[i], tokenizer), ++complete;
    throw Interrupted(fmt::format("interrupted: {} of {} prompts are complete, in {}", complete, prompts.size(),
                                  out.commit_partial()));
  }
  out.commit();
}

}  // namespace

int run_generate_command(const GenerateOptions& o) {
  check_options(o);
  check_output(o.out, {o.prompts});
  Session s =
      open_session(o.model, make_backend(o.on.device, o.on.dtype, o.on.threads), Start::folder, 1, 0, Tokens::maybe);
  const ModelConfig& model = s.weights->config();
  Config config;
  config.data.prompt_template = parse_choice<PromptStyle>("--template", o.prompt_template);
  config.data.prompt_format = o.format;
  config.data.system_prompt = o.system;
  config.data.prompt_suffix = o.suffix;
  config.rollout.max_num_seqs = std::max(o.batch, o.n);  // the samples of a prompt start together
  std::optional<PromptEncoder> encoder;
  if (s.tokenizer) encoder.emplace(config.data, o.model, *s.tokenizer);

  std::vector<Prompt> prompts;
  if (o.has_prompt) {
    if (!encoder) fail_input("--prompt: {} has no tokenizer; give --prompts with \"ids\"", o.model);
    prompts.push_back({"0", encoder->encode(o.prompt)});
  } else {
    read_rows(o.prompts, [&](const JsonRow& row) {
      prompts.push_back(read_prompt(row, encoder ? &*encoder : nullptr, prompts.size()));
    });
  }
  size_t longest = 0;
  for (const Prompt& p : prompts) {
    longest = std::max(longest, p.ids.size());
    if (p.ids.empty()) fail_input("--prompt: has no tokens");
    for (const int32_t id : p.ids)
      if (id >= model.vocab)
        fail_input("prompt {}: id {} is outside the model's vocabulary of {}", p.id, id, model.vocab);
  }
  if (longest + static_cast<size_t>(o.max_new_tokens) > static_cast<size_t>(model.max_position))
    fail_input("{} prompt tokens + --max-new-tokens {} exceed the {} positions of {}", longest, o.max_new_tokens,
               model.max_position, o.model);

  const int sequences =
      static_cast<int>(std::min<int64_t>(config.rollout.max_num_seqs, static_cast<int64_t>(prompts.size()) * o.n));
  ModelMemory memory(*s.weights, generation_limits(config, model, *s.backend,
                                                   static_cast<int>(longest) + o.max_new_tokens, sequences));
  if (prompts.empty()) fail_input("{}: no prompts", o.prompts);
  const std::vector<int32_t> stop = encoder ? encoder->stop_ids(model, prompts[0].ids) : model.eos;
  if (encoder) fmt::print(stderr, "{}\n", stop_text(stop, *s.tokenizer));
  if (const std::string date = encoder ? encoder->date_text() : ""; !date.empty()) fmt::print(stderr, "{}\n", date);
  Decoder decoder(memory);
  Rollout rollout(decoder, stop);
  rollout.begin({o.temperature, o.top_k, o.top_p, o.min_p, o.on.seed});
  for (size_t i = 0; i < prompts.size(); ++i) {
    Request r;
    r.id = static_cast<int64_t>(i);
    r.prompt = prompts[i].ids;
    r.samples = o.n;
    r.max_new = o.max_new_tokens;
    r.prompt_key = static_cast<int32_t>(i);
    rollout.add(std::move(r));
  }

  draw_and_write(o, prompts, rollout, stop, s.tokenizer.get());
  return kExitOk;
}

}  // namespace dapo
