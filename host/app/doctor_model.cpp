// The model folder: its parts, and whether they belong together.
#include <algorithm>
#include <filesystem>
#include <map>

#include "core/check.h"
#include "core/files.h"
#include "core/safetensors.h"
#include "core/sizes.h"
#include "host/app/doctor.h"
#include "host/train/prompts.h"
#include "model/folder.h"
#include "tokenizer/chat.h"
#include "tokenizer/tokenizer_config.h"

namespace dapo {
namespace fs = std::filesystem;
namespace {

/// Runs a check; its Error becomes a finding.
template <class F>
bool checked(Diagnosis& out, std::string todo, F&& f) {
  try {
    f();
    return true;
  } catch (const Error& e) {
    out.add(Severity::error, std::move(todo), "{}", e.what());
    return false;
  }
}

void check_weight_files(Diagnosis& out, const std::string& folder, const ModelConfig& config, Rows use) {
  checked(out, "", [&] {
    const bool there = has_weights(folder);
    if (!there && use == Rows::fine_tune) {
      out.add(Severity::note, "", "no weights in the folder: fine-tuning starts at random");
      return;
    }
    if (!there) {
      out.add(Severity::error,
              "download them (data/download.sh), or train some: dapo sft starts such a folder at random",
              "no weights in the folder");
      return;
    }
    const std::string note = check_weights(folder, config);
    std::map<std::string, uint64_t> types;
    uint64_t bytes = 0;
    const SafetensorsReader files(folder);
    for (const TensorInfo& t : files.tensors()) types[t.dtype] += t.bytes(), bytes += t.bytes();
    std::string names;
    for (const auto& [type, size] : types) names += (names.empty() ? "" : ", ") + type;
    out.add(Severity::ok, "", "weights: every tensor of config.json with its shape, {}, {:.3g} GB", names,
            gb(static_cast<double>(bytes)));
    if (!note.empty()) out.add(Severity::note, "", "weights: {}", note);
    if (fs::exists(fs::path(folder) / "adapter_config.json"))
      out.add(Severity::warning, "merge it first (peft: merge_and_unload) if it is meant to count",
              "adapter_config.json: the LoRA adapter beside the weights is not applied");
  });
}

void check_vocabulary(Diagnosis& out, const Tokenizer& tokenizer, const ModelConfig& config) {
  const int32_t tokens = tokenizer.vocab_size();
  if (tokens > config.vocab)
    out.add(Severity::error, "use the tokenizer files that came with these weights",
            "the tokenizer has {} tokens, the model's vocab_size is {}", tokens, config.vocab);
  else if (config.vocab - tokens > 1024)
    out.add(Severity::warning, "use the tokenizer files that came with these weights",
            "the tokenizer has {} tokens, the model's vocab_size is {}: more than padding explains", tokens,
            config.vocab);
  else
    out.add(Severity::ok, "", "tokenizer: {} tokens, vocab_size {}", tokens, config.vocab);
  // Every tokenizer must keep the spelling: what a response says is what the verifier reads.
  constexpr std::string_view kText = "x = 12.5 \\frac{1}{2} \xc3\xbc\n  \\boxed{3}";
  const std::vector<int32_t> ids = tokenizer.encode(kText);
  if (const std::string back = tokenizer.decode(ids); back != kText)
    out.add(Severity::warning, "check tokenizer.json: answers with such characters may never be judged right",
            "the tokenizer does not give back what it was given: \"{}\" became \"{}\"", kText, back);
}

void check_stops(Diagnosis& out, const std::string& folder, const Tokenizer& tokenizer, const ModelConfig& config,
                 const PromptEncoder& encoder) {
  checked(out, "", [&] {
    const std::vector<int32_t> stops = encoder.stop_ids(config);
    out.add(Severity::ok, "", "{}", stop_text(stops, tokenizer));
    for (const int32_t id : stops)
      if (tokenizer.token(id).empty())
        out.add(Severity::warning, "correct eos_token_id: fine-tuning would teach the model an id without a text",
                "stop id {} has no token", id);
  });
  if (config.generation_json.empty())
    out.add(Severity::note, "copy it from the model's page: instruct models name a second stop id there",
            "no generation_config.json");
  const std::string eos = TokenizerConfig::load(folder).special("eos_token");
  if (const int32_t id = eos.empty() ? -1 : tokenizer.id_of(eos);
      id >= 0 && std::ranges::find(config.eos, id) == config.eos.end())
    out.add(Severity::note, "", "the tokenizer's eos_token {} ({}) is not among eos_token_id: it stops a response too",
            eos, id);
}

void check_template(Diagnosis& out, const std::string& folder, const Tokenizer& tokenizer,
                    const PromptEncoder& encoder) {
  checked(out, "", [&] {
    const ChatTemplate chat = ChatTemplate::load(folder);
    if (!chat) {
      out.add(Severity::note, "for a base model set data.prompt_format, such as \"Q: {question}\\nA:\"",
              "no chat template: prompts are used as they are");
      return;
    }
    const std::vector<int32_t> ids = encoder.encode("A question?");
    out.add(Severity::ok, "", "chat template: a question of 11 characters becomes {} tokens", ids.size());
    if (ids.size() > 1 && ids[0] == ids[1] && tokenizer.is_special(ids[0]))
      out.add(Severity::warning,
              "remove it from the chat template or set add_bos_token = false in tokenizer_config.json",
              "prompts begin with {} twice", tokenizer.token(ids[0]));
    const std::string text = tokenizer.decode(ids, false);
    size_t split = 0;
    for (const std::string marker :
         {"<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|endoftext|>"})
      if (text.find(marker) != text.npos && tokenizer.id_of(marker) < 0) ++split;
    if (split > 0)
      out.add(Severity::warning, "use the template and the tokenizer of one model",
              "the chat template writes markers that are not tokens of this tokenizer");
    if (const std::string date = encoder.date_text(); !date.empty()) out.add(Severity::note, "", "{}", date);
  });
}

}  // namespace

Diagnosis diagnose_model(const std::string& folder, std::unique_ptr<const Tokenizer>& tokenizer,
                         const DataSection& data, Rows use) {
  Diagnosis out{.subject = "model " + folder};
  std::error_code ignored;
  if (!fs::exists(fs::path(folder) / "config.json", ignored)) {
    const bool there = has_entry(folder);
    out.add(Severity::error, there ? "" : "data/download.sh fetches models; data/download.sh --list names them", "{}",
            there ? why_no_model(folder) : "no such folder");
    return out;
  }
  ModelConfig config;
  if (!checked(out, "", [&] { config = load_model_config(folder); })) return out;
  out.add(Severity::ok, "", "config.json: {}, {:.3g} M parameters, {} layers, {} positions", config.model_type,
          static_cast<double>(config.parameters()) / 1e6, config.layers, config.max_position);
  check_weight_files(out, folder, config, use);
  if (!checked(out, "copy the tokenizer's files beside the weights", [&] { tokenizer = Tokenizer::load(folder); }))
    return out;
  check_vocabulary(out, *tokenizer, config);
  checked(out, "", [&] {
    const PromptEncoder encoder(data, folder, *tokenizer);
    check_stops(out, folder, *tokenizer, config, encoder);
    if (data.prompt_format.empty()) check_template(out, folder, *tokenizer, encoder);
  });
  return out;
}

}  // namespace dapo
