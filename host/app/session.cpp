#include "host/app/session.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "core/check.h"
#include "core/files.h"
#include "core/sizes.h"
#include "model/learner.h"
#include "model/whole_model.h"

namespace dapo {
namespace fs = std::filesystem;
namespace {

/// A folder with any of these files has a tokenizer.
constexpr std::array kTokenizerFiles = {"tokenizer.json", "tokenizer.model", "vocab.json"};

/// "Qwen/Qwen2.5-32B-Instruct" -> "qwen2.5-32b"; "" if the name is not of this family.
std::string family_name(const std::string& path) {
  std::string name = fs::path(path).filename().string();
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char ch) { return std::tolower(ch); });
  if (name.ends_with("-instruct")) name.resize(name.size() - 9);
  for (const char* size : {"0.5b", "1.5b", "3b", "7b", "14b", "32b", "72b"})
    if (name == std::string("qwen2.5-") + size) return name;
  return "";
}

}  // namespace

FoundModel find_model(const std::string& path) {
  std::error_code ignored;
  if (fs::exists(fs::path(path) / "config.json", ignored)) return {load_model_config(path), true};
  const std::string name = family_name(path);
  if (!name.empty() && !fs::exists(path, ignored)) return {qwen25_config(name), false};
  if (has_entry(path)) fail_input("{}: {}", path, why_no_model(path));
  fail_input("{}: no such folder; data/download.sh fetches models, or name a folder with config.json and weights",
             path);
}

Session open_session(const std::string& folder, ChosenBackend chosen, Start start, uint64_t seed, float init_std,
                     Tokens tokens, const std::string& weights_from) {
  Session s;
  const auto [config, downloaded] = find_model(folder);
  if (!downloaded)
    fail_input("{}: no such folder; fetch it with data/download.sh {}", folder, fs::path(folder).filename().string());
  s.folder = folder;
  s.device = chosen.why;
  s.backend = std::move(chosen.backend);
  s.tensor = chosen.tensor ? std::move(chosen.tensor) : make_single_comm(*s.backend);
  s.data = std::move(chosen.data);
  const std::string& weights = weights_from.empty() ? folder : weights_from;
  const bool loads = has_weights(weights);
  if (!loads && start == Start::folder)
    fail_input("{}: no model.safetensors in it; the download is not complete, or train weights with dapo sft", weights);
  const bool tokenizer = std::any_of(kTokenizerFiles.begin(), kTokenizerFiles.end(),
                                     [&](const char* name) { return has_entry(fs::path(folder) / name); });
  if (tokenizer || tokens == Tokens::need) s.tokenizer = Tokenizer::load(folder);
  if (s.tokenizer && s.tokenizer->vocab_size() > config.vocab)
    fail_input("{}: the tokenizer has {} tokens, the model's vocab_size is {}: they do not match", folder,
               s.tokenizer->vocab_size(), config.vocab);
  for (const int32_t id : config.eos)
    if (id < 0 || id >= config.vocab)
      fail_input("{}: eos_token_id {} is outside the vocabulary of {}", folder, id, config.vocab);

  const ParamTable table = parameter_table(config, {s.tensor->size(), s.tensor->rank()});
  const size_t bytes = static_cast<size_t>(table.size) * dtype_size(s.backend->dtype());
  if (const size_t there = s.backend->memory_available(); bytes > there)
    fail(kExitResources, "{}: weights take {:.1f} GiB as {}, {:.1f} GiB are free; use a smaller model", folder,
         gib(bytes), dtype_name(s.backend->dtype()), gib(there));
  s.weights = std::make_unique<Weights>(*s.backend, *s.tensor, config);
  if (!loads)
    s.weights->init(seed, init_std);
  else if (const std::string note = s.weights->load(weights); !note.empty())
    fmt::print(stderr, "{}: {}\n", weights, note);
  if (loads && fs::exists(fs::path(folder) / "adapter_config.json"))
    fmt::print(stderr, "{}: adapter_config.json, a LoRA adapter beside the weights, is not applied\n", folder);
  return s;
}

std::unique_ptr<Weights> open_reference(const std::string& folder, const Session& session) {
  if (folder.empty()) return nullptr;
  const ModelConfig shapes = find_model(folder).config;
  check_same_shapes(shapes, session.weights->config(), folder);
  if (!has_weights(folder)) fail_input("{}: no model.safetensors in it; a reference needs weights", folder);
  auto weights = std::make_unique<Weights>(*session.backend, *session.tensor, shapes);
  if (const std::string note = weights->load(folder); !note.empty()) fmt::print(stderr, "{}: {}\n", folder, note);
  return weights;
}

void copy_tokenizer(const std::string& from, const std::string& to) {
  try {
    for (const char* name : {"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt",
                             "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
                             "chat_template.json", "additional_chat_templates"})
      if (fs::exists(fs::path(from) / name)) fs::copy(fs::path(from) / name, fs::path(to) / name);
  } catch (const fs::filesystem_error& e) {
    fail(kExitResources, "{}: the model cannot be written: {}", to, e.code().message());
  }
}

void write_model_folder(const Weights& weights, const std::string& from, const std::string& to, Comm* tensor) {
  if (tensor != nullptr)
    save_whole(weights, *tensor, to);
  else
    weights.save(to);
  copy_tokenizer(from, to);
}

}  // namespace dapo
