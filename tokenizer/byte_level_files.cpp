// Byte-level BPE from files other than tokenizer.json.
#include <algorithm>
#include <filesystem>

#include "core/check.h"
#include "core/json.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/tokenizer_json.h"

namespace dapo {

namespace {

namespace fs = std::filesystem;
constexpr size_t kMaxFile = 32 << 20;

/// vocab.json: {"token": id, ...}
void read_vocab(const std::string& path, Vocabulary& vocabulary) {
  const simdjson::padded_string text(read_text_file(path, kMaxFile));
  simdjson::ondemand::parser parser;
  try {
    simdjson::ondemand::document document = parser.iterate(text);
    for (auto field : document.get_object()) {
      const std::string_view name = field.unescaped_key();
      vocabulary.add(name, field.value().get_int64());
    }
  } catch (const simdjson::simdjson_error& error) {
    fail_input("{}: not a vocabulary ({{\"token\": id}}): {}; download it again", path, error.what());
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", path, error.what()));
  }
}

/// merges.txt: one "a b" per line, after a line "#version: ...".
void read_merges(const std::string& path, ByteLevelModel& model) {
  const std::string text = read_text_file(path, kMaxFile);
  std::vector<std::pair<std::string_view, std::string_view>> merges;
  size_t number = 0;
  for (std::string_view rest = text; !rest.empty();) {
    ++number;
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    const size_t space = line.find(' ');
    if (space == line.npos || space == 0 || space + 1 == line.size() || line.find(' ', space + 1) != line.npos)
      fail_input("{}:{}: not a merge: expected two tokens separated by a space", path, number);
    merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  try {
    resolve_merges(model, merges);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", path, error.what()));
  }
}

}  // namespace

std::unique_ptr<ByteLevelModel> read_vocab_and_merges(const std::string& folder, const TokenizerConfig& config) {
  std::string name = config.tokenizer_class;
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  auto model = std::make_unique<ByteLevelModel>();
  if (name.empty() || name == "Qwen2Tokenizer") {
    model->pre_tokenizer.add(make_qwen2_splitter());
    model->nfc = true;
  } else if (name == "GPT2Tokenizer") {
    model->pre_tokenizer.add(make_gpt2_splitter());
  } else {
    fail_input(
        "{}: vocab.json and merges.txt of a {} are not supported without tokenizer.json (those of Qwen2Tokenizer "
        "and GPT2Tokenizer are): save the tokenizer with transformers, which writes tokenizer.json",
        folder, name);
  }
  if (config.prefix_space.value_or(false))
    fail_input("{}/tokenizer_config.json: \"add_prefix_space\" is not supported", folder);
  read_vocab((fs::path(folder) / "vocab.json").string(), model->vocabulary);
  read_merges((fs::path(folder) / "merges.txt").string(), *model);
  return model;
}

void add_config_tokens(ByteLevelModel& model, const TokenizerConfig& config, const std::string& where) {
  const auto known = [&](const std::string& content) {
    return std::find_if(model.added.begin(), model.added.end(), [&](const auto& t) { return t.content == content; });
  };
  const auto add = [&](AddedToken token) {
    if (const auto old = known(token.content); old != model.added.end()) {
      token.id = old->id;
      token.special |= old->special;  // as in tokenizers: a special token stays special
      *old = token;
      return;
    }
    const int32_t id = model.vocabulary.find(token.content);
    if (id < 0 && token.id < 0) token.id = model.vocabulary.size();
    if (id >= 0) token.id = id;
    if (id < 0) {
      try {
        model.vocabulary.add(token.content, token.id);
      } catch (const Error& error) {
        throw Error(error.code(), fmt::format("{}: added tokens: {}", where, error.what()));
      }
    }
    model.added.push_back(token);
  };
  for (const AddedToken& token : config.added) add(token);
  config.each_special([&](const AddedToken& token, bool needed) {
    if (const auto old = known(token.content); old != model.added.end())
      old->special = true;
    else if (needed || model.vocabulary.find(token.content) >= 0)
      add(token);
  });
}

}  // namespace dapo
