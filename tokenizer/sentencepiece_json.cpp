// tokenizer.json of a SentencePiece model: added tokens, and where a space goes.
#include <optional>

#include "core/check.h"
#include "core/json.h"
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

void read_prefix(dom::object part, Prefix& prefix) {
  const std::string_view type = text_of(part, "type");
  if (type == "Prepend") prefix = Prefix::doubled;
  if (type != "Metaspace") return;
  const std::string_view scheme = text_of(part, "prepend_scheme");
  bool old = true;  // before there were schemes
  if (part["add_prefix_space"].get(old) != simdjson::SUCCESS) old = true;
  prefix = scheme == "never" || (scheme.empty() && !old) ? Prefix::never
           : scheme == "first"                           ? Prefix::first
                                                         : Prefix::always;
}

void read_template(dom::object part, SentencePieceJson& out) {
  if (text_of(part, "type") != "TemplateProcessing") return;
  bool behind = false;
  for (const dom::element item : dom::array(part["single"])) {
    dom::object special;
    if (item["SpecialToken"].get(special) != simdjson::SUCCESS)
      behind = true;  // the text itself
    else
      (behind ? out.ends : out.begins) = true;
  }
}

}  // namespace

std::optional<SentencePieceJson> read_sentencepiece_json(const std::string& path) {
  const simdjson::padded_string text(read_text_file(path, kMaxFile));
  SentencePieceJson out;
  bool fallback = false;
  try {
    ondemand::parser parser;
    ondemand::document document = parser.iterate(text);
    for (auto field : document.get_object()) {
      const std::string_view key = field.unescaped_key();
      ondemand::value value = field.value();
      if (key == "model") {
        for (auto inner : value.get_object()) {
          const std::string_view name = inner.unescaped_key();
          bool set = false;
          if (name == "byte_fallback" && inner.value().get_bool().get(set) == simdjson::SUCCESS) fallback = set;
        }
      } else if (key == "added_tokens") {
        for (ondemand::object entry : value.get_array()) out.added.push_back(read_added_token(entry));
      } else if (key == "normalizer" || key == "pre_tokenizer") {
        each_part(value, key == "normalizer" ? "normalizers" : "pretokenizers",
                  [&](dom::object part) { read_prefix(part, out.prefix); });
      } else if (key == "post_processor") {
        each_part(value, "processors", [&](dom::object part) { read_template(part, out); });
      }
    }
  } catch (const simdjson::simdjson_error&) {
    return std::nullopt;  // the reader of byte-level BPE says what is wrong
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", path, error.what()));
  }
  return fallback ? std::optional(std::move(out)) : std::nullopt;
}

}  // namespace dapo
