// tokenizer.json. The large parts (vocabulary, merges) are parsed by streaming; the small ones (normalizer,
// pre-tokenizer, ...) are parsed as separate documents.
#include "tokenizer/tokenizer_json.h"

#include <simdjson.h>

#include <algorithm>
#include <utility>

#include "core/check.h"
#include "core/json.h"
#include "tokenizer/byte_level.h"

namespace dapo {

namespace {

namespace dom = simdjson::dom;
namespace ondemand = simdjson::ondemand;

constexpr size_t kMaxFile = 32 << 20;       // the largest of the family, Qwen3's, has 11 MB
constexpr size_t kMaxComponent = 64 << 10;  // a normalizer, a pre-tokenizer, ...
constexpr size_t kMaxParts = 16;            // in a Sequence
constexpr size_t kMaxAdded = 1 << 16;
constexpr size_t kMaxMerges = Vocabulary::kMaxIds;  // each makes a token
constexpr size_t kMaxName = 1 << 12;

/// A key that may be absent or null.
template <class T>
T get_or(dom::object object, const char* key, T otherwise) {
  dom::element element;
  if (object[key].get(element) != simdjson::SUCCESS || element.is_null()) return otherwise;
  return T(element);
}

std::string_view type_of(dom::object object) {
  return get_or<std::string_view>(object, "type", "(no type)");
}

/// The parts of a component: those of a Sequence, or itself.
std::vector<dom::object> parts_of(dom::element component, const char* key) {
  if (component.is_null()) return {};
  const dom::object object = component;
  if (type_of(object) != "Sequence") return {object};
  std::vector<dom::object> parts;
  for (dom::object part : dom::array(object[key])) parts.push_back(part);
  if (parts.size() > kMaxParts) fail_input("a Sequence of {} parts; at most {} are supported", parts.size(), kMaxParts);
  return parts;
}

void refuse_flag(dom::object object, const char* flag, const char* where) {
  if (get_or(object, flag, false)) fail_input("{}: '{}' is not supported", where, flag);
}

void read_normalizer(dom::element component, ByteLevelModel& model) {
  for (const dom::object part : parts_of(component, "normalizers")) {
    if (type_of(part) != "NFC") fail_input("normalizer '{}' is not supported (NFC or none is)", type_of(part));
    model.nfc = true;
  }
}

void read_pre_tokenizer(dom::element component, ByteLevelModel& model) {
  bool byte_level = false;
  for (const dom::object part : parts_of(component, "pretokenizers")) {
    const std::string_view type = type_of(part);
    if (byte_level) fail_input("pre_tokenizer '{}' after ByteLevel is not supported", type);
    if (type == "ByteLevel") {
      refuse_flag(part, "add_prefix_space", "pre_tokenizer ByteLevel");
      if (get_or(part, "use_regex", true)) model.pre_tokenizer.add(make_gpt2_splitter());
      byte_level = true;
    } else if (type == "Digits") {
      model.pre_tokenizer.add(make_digits_splitter(get_or(part, "individual_digits", false)));
    } else if (type == "Split") {
      refuse_flag(part, "invert", "pre_tokenizer Split");
      const auto behavior = get_or<std::string_view>(part, "behavior", "");
      if (behavior != "Isolated")
        fail_input("pre_tokenizer Split: behavior '{}' is not supported (Isolated is)", behavior);
      const dom::object pattern = part["pattern"];
      std::string_view regex;
      if (pattern["Regex"].get(regex)) fail_input("pre_tokenizer Split: only a pattern of kind 'Regex' is supported");
      model.pre_tokenizer.add(make_pattern_splitter(regex));
    } else {
      fail_input("pre_tokenizer '{}' is not supported (ByteLevel, Digits, Split and a Sequence of them are)", type);
    }
  }
  if (!byte_level) fail_input("pre_tokenizer has no ByteLevel: only byte-level BPE is supported");
}

/// Ids of one special token of a TemplateProcessing.
void append_template_ids(dom::object processor, std::string_view name, std::vector<int32_t>& ids) {
  const dom::object token = processor["special_tokens"].at_key(name);
  for (const int64_t id : dom::array(token["ids"])) {
    if (id < 0 || id >= Vocabulary::kMaxIds) fail_input("post_processor: token '{}' has id {}", name, id);
    ids.push_back(static_cast<int32_t>(id));
  }
}

void read_post_processor(dom::element component, ByteLevelModel& model) {
  for (const dom::object part : parts_of(component, "processors")) {
    const std::string_view type = type_of(part);
    if (type == "ByteLevel") continue;  // moves offsets, not tokens
    if (type != "TemplateProcessing") {
      fail_input("post_processor '{}' is not supported (ByteLevel, TemplateProcessing or none is)", type);
    }
    bool behind = false;
    for (const dom::object item : dom::array(part["single"])) {
      dom::object special;
      if (item["SpecialToken"].get(special))
        behind = true;  // the text itself
      else
        append_template_ids(part, std::string_view(special["id"]), behind ? model.after : model.before);
    }
  }
}

void read_decoder(dom::element component) {
  if (component.is_null()) fail_input("decoder is absent: only ByteLevel is supported");
  const dom::object object = component;
  if (type_of(object) != "ByteLevel") fail_input("decoder '{}' is not supported (ByteLevel is)", type_of(object));
}

std::string_view checked_name(std::string_view name, const char* what) {
  if (name.empty()) fail_input("{} with an empty name", what);
  if (name.size() > kMaxName) fail_input("{} whose name has {} bytes, more than {}", what, name.size(), kMaxName);
  return name;
}

class Reader {
 public:
  std::unique_ptr<ByteLevelModel> read(const std::string& path) {
    const simdjson::padded_string text(read_text_file(path, kMaxFile));
    try {
      ondemand::document document = parser_.iterate(text);
      for (auto field : document.get_object()) read_field(field.unescaped_key().value(), field.value());
      if (document.current_location().error() != simdjson::OUT_OF_BOUNDS) fail_input("text after the JSON object");
      finish();
    } catch (const simdjson::simdjson_error& error) {
      fail_input("{}: not a tokenizer.json: {}; download it again", path, error.what());
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("{}: {}", path, error.what()));
    }
    return std::move(model_);
  }

 private:
  void read_field(std::string_view key, ondemand::value value) {
    const auto is_new = [&](bool& seen) {
      if (std::exchange(seen, true)) fail_input("'{}' is duplicated", key);
    };
    if (key == "model")
      is_new(seen_model_), read_model(value.get_object());
    else if (key == "added_tokens")
      is_new(seen_added_), read_added(value);
    else if (key == "normalizer")
      with_component(value, key, [&](auto e) { read_normalizer(e, *model_); });
    else if (key == "pre_tokenizer")
      is_new(seen_split_), with_component(value, key, [&](auto e) { read_pre_tokenizer(e, *model_); });
    else if (key == "post_processor")
      with_component(value, key, [&](auto e) { read_post_processor(e, *model_); });
    else if (key == "decoder")
      is_new(seen_decoder_), with_component(value, key, [&](auto e) { read_decoder(e); });
    else if (key != "version" && key != "truncation" && key != "padding")
      fail_input("unknown part '{}'", key);
    // truncation and padding are left to the code that builds batches
  }

  template <class F>
  void with_component(ondemand::value value, std::string_view key, F read) {
    const std::string_view raw = simdjson::to_json_string(value);
    if (raw.size() > kMaxComponent) fail_input("{} of {} bytes, more than {}", key, raw.size(), kMaxComponent);
    dom::parser parser;
    const simdjson::padded_string copy(raw);
    try {
      read(parser.parse(copy).value());
    } catch (const simdjson::simdjson_error& error) {
      fail_input("{} is malformed: {}", key, error.what());
    }
  }

  void read_model(ondemand::object object) {
    for (auto field : object) {
      const std::string_view key = field.unescaped_key();
      ondemand::value value = field.value();
      if (key == "vocab")
        read_vocabulary(value, model_->vocabulary);
      else if (key == "merges")
        read_merges(value, merges_), seen_merges_ = true;
      else if (key == "ignore_merges")
        model_->ignore_merges = value.get_bool();
      else if (key == "type")
        expect_text(key, value, "BPE");
      else if (key == "continuing_subword_prefix" || key == "end_of_word_suffix")
        expect_text(key, value, "");
      else if (key == "dropout" || key == "unk_token")
        expect_null(key, value);
      else if (key == "byte_fallback")
        expect_false(key, value);
      else if (key != "fuse_unk")
        fail_input("model: unknown part '{}'", key);  // no byte is unknown
    }
  }

  static void expect_text(std::string_view key, ondemand::value value, std::string_view wanted) {
    if (wanted.empty() && value.is_null()) return;
    const std::string_view text = value.get_string();
    if (text != wanted) fail_input("model: {} '{}' is not supported ('{}' is)", key, text, wanted);
  }
  static void expect_null(std::string_view key, ondemand::value value) {
    if (!value.is_null()) fail_input("model: '{}' is not supported (only null)", key);
  }
  static void expect_false(std::string_view key, ondemand::value value) {
    if (!value.is_null() && value.get_bool()) fail_input("model: '{}' is not supported here", key);
  }

  void read_added(ondemand::value value) {
    for (ondemand::object entry : value.get_array()) {
      model_->added.push_back(read_added_token(entry));
      if (model_->added.size() > kMaxAdded) fail_input("more than {} added tokens", kMaxAdded);
    }
  }

  /// Steps that need all parts: merges by id, added tokens that the vocabulary may already have.
  void finish() {
    if (!seen_model_) fail_input("'model' is absent");
    if (!seen_split_) fail_input("'pre_tokenizer' is absent");
    if (!seen_decoder_) fail_input("'decoder' is absent");
    if (!seen_merges_) fail_input("model: 'merges' is absent");
    Vocabulary& vocabulary = model_->vocabulary;
    if (vocabulary.size() == 0) fail_input("model: 'vocab' is absent or empty");
    resolve_merges(*model_, merges_);
    place_added_tokens(*model_);
    for (const auto* ids : {&model_->before, &model_->after}) {
      for (const int32_t id : *ids)
        if (!vocabulary.has(id)) fail_input("post_processor: id {} is not a token", id);
    }
  }

  ondemand::parser parser_;  // owns the strings that merges_ views
  std::unique_ptr<ByteLevelModel> model_ = std::make_unique<ByteLevelModel>();
  MergeNames merges_;
  bool seen_model_ = false, seen_added_ = false, seen_split_ = false, seen_decoder_ = false, seen_merges_ = false;
};

}  // namespace

AddedToken read_added_token(ondemand::object entry) {
  AddedToken token;
  int64_t id = -1;
  for (auto field : entry) {
    const std::string_view key = field.unescaped_key();
    ondemand::value v = field.value();
    if (key == "content")
      token.content = checked_name(v.get_string(), "an added token");
    else if (key == "id")
      id = v.get_int64();
    else if (key == "single_word")
      token.single_word = v.get_bool();
    else if (key == "lstrip")
      token.lstrip = v.get_bool();
    else if (key == "rstrip")
      token.rstrip = v.get_bool();
    else if (key == "normalized")
      token.normalized = v.get_bool();
    else if (key == "special")
      token.special = v.get_bool();
    else
      fail_input("added_tokens: unknown flag '{}'", key);
  }
  if (token.content.empty()) fail_input("added_tokens: the entry with id {} has no content", id);
  if (id < 0 || id >= Vocabulary::kMaxIds) {
    fail_input("added token '{}' has id {}, outside 0..{}", token.content, id, Vocabulary::kMaxIds - 1);
  }
  token.id = static_cast<int32_t>(id);
  return token;
}

void read_vocabulary(ondemand::value value, Vocabulary& vocabulary) {
  if (vocabulary.size() > 0) fail_input("model: 'vocab' is duplicated");
  for (auto field : value.get_object()) {
    const std::string_view name = checked_name(field.unescaped_key(), "a token");
    vocabulary.add(name, field.value().get_int64());
  }
}

void read_merges(ondemand::value value, MergeNames& merges) {
  if (!merges.empty()) fail_input("model: 'merges' is duplicated");
  for (ondemand::value merge : value.get_array()) {
    if (merges.size() == kMaxMerges) fail_input("more than {} merges", kMaxMerges);
    if (merge.type() == ondemand::json_type::string) {
      const std::string_view text = merge.get_string();
      const size_t space = text.find(' ');
      if (space == text.npos || text.find(' ', space + 1) != text.npos) {
        fail_input("merge {} is '{}', not two tokens separated by a space", merges.size(), text.substr(0, 80));
      }
      merges.emplace_back(text.substr(0, space), text.substr(space + 1));
      continue;
    }
    size_t n = 0;
    std::pair<std::string_view, std::string_view> pair;
    for (ondemand::value part : merge.get_array()) {
      const std::string_view text = part.get_string();
      (n == 0 ? pair.first : pair.second) = text;
      if (++n > 2) break;
    }
    if (n != 2) fail_input("merge {} does not have two tokens", merges.size());
    merges.push_back(pair);
  }
}

void place_added_tokens(ByteLevelModel& model) {
  std::vector<bool> taken(Vocabulary::kMaxIds);
  for (const AddedToken& token : model.added) {
    if (taken[static_cast<size_t>(token.id)]) fail_input("two added tokens have the id {}", token.id);
    taken[static_cast<size_t>(token.id)] = true;
    if (model.vocabulary.find(token.content) != token.id) model.vocabulary.add(token.content, token.id);
  }
}

void resolve_merges(ByteLevelModel& model, const MergeNames& merges) {
  const Vocabulary& vocabulary = model.vocabulary;
  std::array<int32_t, 256> bytes;
  for (size_t b = 0; b < 256; ++b) bytes[b] = vocabulary.find(byte_name(static_cast<uint8_t>(b)));
  if (std::all_of(bytes.begin(), bytes.end(), [](int32_t id) { return id < 0; })) {
    fail_input("model: the vocabulary has no byte tokens: only byte-level BPE is supported");
  }
  model.merges.set_bytes(bytes);
  add_merges(model, merges);
}

void add_merges(ByteLevelModel& model, const MergeNames& merges) {
  const Vocabulary& vocabulary = model.vocabulary;
  std::string joined;
  for (size_t i = 0; i < merges.size(); ++i) {
    const auto& [left, right] = merges[i];
    joined.assign(left).append(right);
    const std::array<int32_t, 3> ids = {vocabulary.find(left), vocabulary.find(right), vocabulary.find(joined)};
    if (const auto absent = std::find(ids.begin(), ids.end(), -1); absent != ids.end()) {
      const std::string_view which = absent == ids.begin() ? left : absent == ids.begin() + 1 ? right : joined;
      fail_input("merge {} ('{}' '{}') needs the token '{}', which the vocabulary lacks", i, left.substr(0, 80),
                 right.substr(0, 80), which.substr(0, 160));
    }
    if (left.empty() || right.empty()) fail_input("merge {} has an empty token", i);
    model.merges.add(ids[0], ids[1], static_cast<int32_t>(i), ids[2]);
  }
}

std::unique_ptr<ByteLevelModel> read_tokenizer_json(const std::string& path) {
  return Reader().read(path);
}

}  // namespace dapo
