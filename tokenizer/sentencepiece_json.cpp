// tokenizer.json of a SentencePiece model: added tokens, and the placement of spaces.
#include <fmt/format.h>

#include <optional>

#include "core/check.h"
#include "core/json.h"
#include "tokenizer/sentencepiece.h"
#include "tokenizer/tokenizer_json.h"

namespace dapo {

namespace {

namespace dom = simdjson::dom;
namespace ondemand = simdjson::ondemand;
using Prefix = SentencePieceJson::Prefix;

constexpr size_t kMaxFile = 32 << 20, kMaxComponent = 64 << 10;

/// Calls `use` with each part of a component: those of a Sequence, or itself.
template <class F>
void each_part(ondemand::value value, const char* key, F use) {
  const std::string_view raw = simdjson::to_json_string(value);
  if (raw.size() > kMaxComponent) fail_input("a component of {} bytes, more than {}", raw.size(), kMaxComponent);
  dom::parser parser;
  const simdjson::padded_string copy(raw);
  const dom::element component = parser.parse(copy);
  if (component.is_null()) return;
  dom::array parts;
  if (component[key].get(parts) != simdjson::SUCCESS) return use(dom::object(component));
  for (const dom::object part : parts) use(part);
}

std::string_view text_of(dom::object part, const char* key) {
  std::string_view text;
  return part[key].get(text) == simdjson::SUCCESS ? text : "";
}

/// {"String": text} of a pattern.
std::string_view pattern_of(dom::object part) {
  dom::object pattern;
  return part["pattern"].get(pattern) == simdjson::SUCCESS ? text_of(pattern, "String") : "";
}

bool flag_of(dom::object part, const char* key, bool otherwise) {
  bool value = otherwise;
  return part[key].get(value) == simdjson::SUCCESS ? value : otherwise;
}

void note_odd(SentencePieceJson& out, const char* kind, std::string_view type) {
  if (out.odd.empty()) out.odd = fmt::format("{} '{}'", kind, type);
}

void read_normalizer(dom::object part, SentencePieceJson& out) {
  const std::string_view type = text_of(part, "type");
  if (type == "Prepend" && text_of(part, "prepend") == kSpaceMark && !out.replaces)
    out.prefix = Prefix::doubled;
  else if (type == "Replace" && pattern_of(part) == " " && text_of(part, "content") == kSpaceMark)
    out.replaces = true;
  else
    note_odd(out, "normalizer", type);
}

void read_pre_tokenizer(dom::object part, SentencePieceJson& out) {
  const std::string_view type = text_of(part, "type");
  if (type == "Split" && pattern_of(part) == " " && out.replaces) return;  // no space is left
  if (type != "Metaspace" || text_of(part, "replacement") != kSpaceMark) return note_odd(out, "pre_tokenizer", type);
  const std::string_view scheme = text_of(part, "prepend_scheme");
  const bool old = flag_of(part, "add_prefix_space", true);  // older files, without schemes
  out.prefix = scheme == "never" || (scheme.empty() && !old) ? Prefix::never
               : scheme == "first"                           ? Prefix::first
                                                             : Prefix::always;
  out.metaspace = true;
  out.splits = flag_of(part, "split", true);
}

void read_decoder(dom::object part, SentencePieceJson& out) {
  const std::string_view type = text_of(part, "type");
  int64_t start = 0, stop = 0;
  if (type == "Strip" && text_of(part, "content") == " " && part["start"].get(start) == simdjson::SUCCESS &&
      part["stop"].get(stop) == simdjson::SUCCESS && start <= 1 && stop == 0)
    out.strips = start == 1;
  else if (type == "Metaspace")
    out.strips = text_of(part, "prepend_scheme") != "never" && flag_of(part, "add_prefix_space", true);
  else if (type != "ByteFallback" && type != "Fuse" &&
           !(type == "Replace" && pattern_of(part) == kSpaceMark && text_of(part, "content") == " "))
    note_odd(out, "decoder", type);
}

void read_post_processor(dom::object part, SentencePieceJson& out) {
  if (text_of(part, "type") != "TemplateProcessing") return note_odd(out, "post_processor", text_of(part, "type"));
  bool behind = false;
  for (const dom::element item : dom::array(part["single"])) {
    dom::object special;
    if (item["SpecialToken"].get(special) != simdjson::SUCCESS) {
      behind = true;  // the text itself
      continue;
    }
    (behind ? out.ends : out.begins) = true;
    dom::array ids;
    if (part["special_tokens"].at_key(text_of(special, "id"))["ids"].get(ids) != simdjson::SUCCESS)
      note_odd(out, "post_processor without the id of", text_of(special, "id"));
    else
      for (const int64_t id : ids)
        (behind ? out.after : out.before)
            .push_back(id < 0 || id >= Vocabulary::kMaxIds ? -1
                                                           : static_cast<int32_t>(id));  // -1: not a token, rejected
  }
}

/// Reads all of the model except the pieces; returns its type, and whether it has byte fallback.
std::pair<std::string, bool> read_model(ondemand::object model, SentencePieceJson& out) {
  std::pair<std::string, bool> found;
  for (auto field : model) {
    const std::string_view key = field.unescaped_key();
    ondemand::value value = field.value();
    bool set = false;
    if (key == "byte_fallback" && value.get_bool().get(set) == simdjson::SUCCESS) found.second = set;
    if (key == "type") found.first = std::string_view(value.get_string());
    std::string_view affix;
    const bool affixes = key == "continuing_subword_prefix" || key == "end_of_word_suffix";
    if (affixes && value.get_string().get(affix) == simdjson::SUCCESS && !affix.empty()) note_odd(out, "model's", key);
    if (key == "dropout" && !value.is_null()) note_odd(out, "model's", key);
  }
  return found;
}

}  // namespace

std::optional<SentencePieceJson> read_sentencepiece_json(const std::string& path) {
  const simdjson::padded_string text(read_text_file(path, kMaxFile));
  SentencePieceJson out;
  std::pair<std::string, bool> model;
  try {
    ondemand::parser parser;
    ondemand::document document = parser.iterate(text);
    for (auto field : document.get_object()) {
      const std::string_view key = field.unescaped_key();
      ondemand::value value = field.value();
      if (key == "model")
        model = read_model(value.get_object(), out);
      else if (key == "added_tokens")
        for (ondemand::object entry : value.get_array()) out.added.push_back(read_added_token(entry));
      else if (key == "normalizer")
        each_part(value, "normalizers", [&](dom::object part) { read_normalizer(part, out); });
      else if (key == "pre_tokenizer")
        each_part(value, "pretokenizers", [&](dom::object part) { read_pre_tokenizer(part, out); });
      else if (key == "post_processor")
        each_part(value, "processors", [&](dom::object part) { read_post_processor(part, out); });
      else if (key == "decoder")
        each_part(value, "decoders", [&](dom::object part) { read_decoder(part, out); });
    }
  } catch (const simdjson::simdjson_error&) {
    return std::nullopt;  // the reader of byte-level BPE reports the error
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", path, error.what()));
  }
  if (model.first == "Unigram") out.odd = "model of the type 'Unigram'";
  if (out.odd.empty() && !out.replaces && !out.metaspace) out.odd = "pre_tokenizer that leaves spaces as they are";
  return model.second || model.first == "Unigram" ? std::optional(std::move(out)) : std::nullopt;
}

}  // namespace dapo
