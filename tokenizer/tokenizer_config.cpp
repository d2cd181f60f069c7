#include "tokenizer/tokenizer_config.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/files.h"
#include "core/json.h"

namespace dapo {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr size_t kMaxFile = 8 << 20, kMaxTemplate = 1 << 20;
constexpr size_t kMaxAdded = 1 << 16;

Json read_object(const fs::path& path) {
  const std::string text = read_text_file(path.string(), kMaxFile);
  Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded() || !json.is_object()) fail_input("{}: not a JSON object; download it again", path.string());
  return json;
}

/// The token of an entry: text, or an object with flags. `plain`: the flags of a plain text.
AddedToken read_token(const Json& json, const std::string& where, AddedToken plain) {
  if (json.is_string()) {
    plain.content = json;
    return plain;
  }
  if (!json.is_object() || !json.contains("content") || !json["content"].is_string())
    fail_input("{}: expected a token (a string, or an object with \"content\"), got {}", where, json.type_name());
  plain.content = json["content"];
  const std::pair<const char*, bool AddedToken::*> flags[] = {{"single_word", &AddedToken::single_word},
                                                              {"lstrip", &AddedToken::lstrip},
                                                              {"rstrip", &AddedToken::rstrip},
                                                              {"normalized", &AddedToken::normalized},
                                                              {"special", &AddedToken::special}};
  for (const auto& [name, member] : flags) {
    const auto flag = json.find(name);
    if (flag == json.end() || flag->is_null()) continue;
    if (!flag->is_boolean()) fail_input("{}: \"{}\" is {}: expected true or false", where, name, flag->type_name());
    plain.*member = *flag;
  }
  return plain;
}

const AddedToken kSpecial{{}, -1, false, false, false, false, true};

int32_t read_id(const std::string& text, const std::string& where) {
  if (text.empty() || text.size() > 7 || text.find_first_not_of("0123456789") != text.npos)
    fail_input("{}: \"{}\" is not the id of a token", where, text);
  return std::stoi(text);
}

std::optional<bool> read_flag(const Json& json, const fs::path& path, const char* key) {
  const auto flag = json.find(key);
  if (flag == json.end() || flag->is_null()) return std::nullopt;
  if (!flag->is_boolean())
    fail_input("{}: \"{}\" is {}: expected true or false", path.string(), key, flag->type_name());
  return flag->get<bool>();
}

/// Special tokens of tokenizer_config.json or special_tokens_map.json; later files win.
void read_special(const Json& json, const fs::path& path, TokenizerConfig& out) {
  for (const auto& [key, value] : json.items()) {
    const std::string where = path.string() + ": \"" + key + '"';
    if (key == "additional_special_tokens" || key == "extra_special_tokens") {
      if (value.is_null()) continue;
      if (!value.is_array() && !value.is_object())
        fail_input("{} is {}: expected a list of tokens", where, value.type_name());
      for (const Json& token : value) out.extra.push_back(read_token(token, where, kSpecial));
    } else if (key.ends_with("_token") && (value.is_string() || value.is_object())) {
      out.named[key] = read_token(value, where, kSpecial);
      out.named[key].special = true;
    } else if (key == "eos_token" || key == "bos_token" || key == "pad_token" || key == "unk_token") {
      if (!value.is_null()) fail_input("{} is {}: expected a token", where, value.type_name());
      out.named[key] = {};  // none, and no default of the class either
    }
  }
}

void read_decoder(const Json& json, const fs::path& path, TokenizerConfig& out) {
  const std::string where = path.string() + ": \"added_tokens_decoder\"";
  if (!json.is_object()) fail_input("{} is {}: expected an object of ids", where, json.type_name());
  for (const auto& [id, token] : json.items()) {
    AddedToken added{};
    added.normalized = true;  // transformers' default if the object has no flag
    out.added.push_back(read_token(token, where, added));
    out.added.back().id = read_id(id, where);
  }
}

/// added_tokens.json: {"<|im_end|>": 32000}. Tokens are special where the configuration names them so.
void read_added_file(const fs::path& path, TokenizerConfig& out) {
  const Json json = read_object(path);
  for (const auto& [content, id] : json.items()) {
    if (!id.is_number_unsigned() && !(id.is_number_integer() && id.get<int64_t>() >= 0))
      fail_input("{}: \"{}\" is {}: expected the id of a token", path.string(), content, id.type_name());
    AddedToken token{content, read_id(std::to_string(id.get<uint64_t>()), path.string()), false, false, false, true,
                     false};
    for (const auto& [name, special] : out.named) token.special |= special.content == content;
    for (const AddedToken& special : out.extra) token.special |= special.content == content;
    token.normalized = !token.special;
    out.added.push_back(std::move(token));
  }
}

/// "chat_template" of a JSON file: text, or a list of {"name", "template"}.
void read_templates(const Json& json, const fs::path& path, TokenizerConfig& out) {
  const auto found = json.find("chat_template");
  if (found == json.end() || found->is_null()) return;
  const std::string where = path.string() + ": \"chat_template\"";
  out.templates_from = path.string();
  const auto add = [&](const std::string& name, const Json& text) {
    if (!text.is_string()) fail_input("{}: the template \"{}\" is {}: expected text", where, name, text.type_name());
    out.templates[name] = text;
  };
  if (found->is_string()) {
    if (!found->get_ref<const std::string&>().empty()) add("default", *found);
  } else if (found->is_object()) {
    for (const auto& [name, text] : found->items()) add(name, text);
  } else if (found->is_array()) {
    for (const Json& one : *found) {
      if (!one.is_object() || !one.contains("name") || !one["name"].is_string() || !one.contains("template"))
        fail_input("{}: an entry of the list is not {{\"name\", \"template\"}}", where);
      add(one["name"], one["template"]);
    }
  } else {
    fail_input("{} is {}: expected text, or a list of {{\"name\", \"template\"}}", where, found->type_name());
  }
  if (out.templates.empty()) fail_input("{} is empty: remove the key if the model has no template", where);
}

/// Template files take precedence over tokenizer_config.json.
void read_template_files(const fs::path& folder, TokenizerConfig& out) {
  std::map<std::string, std::string> files;
  const fs::path main = folder / "chat_template.jinja", more = folder / "additional_chat_templates";
  std::error_code ignored;
  if (has_entry(main)) files["default"] = read_text_file(main.string(), kMaxTemplate);
  if (has_entry(main) && files["default"].empty())
    fail_input("{}: is empty: download it again, or remove it if the model has no template", main.string());
  if (fs::is_directory(more, ignored))
    for (const auto& entry : fs::directory_iterator(more))
      if (entry.path().extension() == ".jinja")
        files[entry.path().stem().string()] = read_text_file(entry.path().string(), kMaxTemplate);
  if (!files.empty()) {
    out.templates = std::move(files);
    out.templates_from = (has_entry(main) ? main : more).string();
  }
  const fs::path json = folder / "chat_template.json";
  if (out.templates.empty() && has_entry(json)) read_templates(read_object(json), json, out);
}

/// Default special tokens of transformers' classes, for configurations that omit them.
void add_defaults(TokenizerConfig& out) {
  std::string name = out.tokenizer_class;
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  const bool llama = name == "LlamaTokenizer" || name == "CodeLlamaTokenizer";
  if (!llama && name != "Qwen2Tokenizer" && name != "GPT2Tokenizer") return;
  const auto add = [&](const char* key, const char* content) {
    AddedToken token = kSpecial;
    token.content = content;
    out.defaults.emplace(key, token);
  };
  add("eos_token", llama ? "</s>" : "<|endoftext|>");
  if (llama || name == "GPT2Tokenizer") add("bos_token", llama ? "<s>" : "<|endoftext|>");
  add("unk_token", llama ? "<unk>" : "<|endoftext|>");
}

}  // namespace

std::string TokenizerConfig::special(const std::string& name) const {
  if (const auto found = named.find(name); found != named.end()) return found->second.content;
  const auto otherwise = defaults.find(name);
  return otherwise == defaults.end() ? "" : otherwise->second.content;
}

TokenizerConfig TokenizerConfig::load(const std::string& folder, bool with_templates) {
  TokenizerConfig out;
  const fs::path path = fs::path(folder) / "tokenizer_config.json", map = fs::path(folder) / "special_tokens_map.json",
                 added = fs::path(folder) / "added_tokens.json";
  bool decoder = false;
  if (has_entry(path)) {
    const Json json = read_object(path);
    out.present = true;
    if (const auto name = json.find("tokenizer_class"); name != json.end() && name->is_string())
      out.tokenizer_class = *name;
    out.add_bos = read_flag(json, path, "add_bos_token");
    out.add_eos = read_flag(json, path, "add_eos_token");
    out.prefix_space = read_flag(json, path, "add_prefix_space");
    out.legacy = read_flag(json, path, "legacy").value_or(false);
    read_special(json, path, out);
    if (with_templates) read_templates(json, path, out);
    if (decoder = json.contains("added_tokens_decoder"); decoder) read_decoder(json["added_tokens_decoder"], path, out);
  }
  // Folders of older versions of transformers: these two files count where the configuration lists no added tokens.
  if (!decoder && has_entry(map)) read_special(read_object(map), map, out);
  if (!decoder && has_entry(added)) read_added_file(added, out);
  if (out.added.size() + out.extra.size() > kMaxAdded) fail_input("{}: more than {} added tokens", folder, kMaxAdded);
  std::stable_sort(out.added.begin(), out.added.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  for (size_t i = 0; i < out.added.size(); ++i) {
    if (out.added[i].content.empty()) fail_input("{}: the added token {} has no text", folder, out.added[i].id);
    if (i > 0 && out.added[i].id == out.added[i - 1].id)
      fail_input("{}: two added tokens have the id {}", folder, out.added[i].id);
  }
  std::erase_if(out.extra, [](const AddedToken& t) { return t.content.empty(); });
  add_defaults(out);
  if (with_templates) read_template_files(folder, out);
  return out;
}

}  // namespace dapo
