// The JSON files that accompany a tokenizer: tokenizer_config.json, special_tokens_map.json, added_tokens.json, and
// the chat templates in any of their places.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tokenizer/added_tokens.h"

namespace dapo {

struct TokenizerConfig {
  std::string tokenizer_class;                         ///< "Qwen2Tokenizer"; "" if none is named
  bool present = false;                                ///< tokenizer_config.json exists
  std::optional<bool> add_bos, add_eos, prefix_space;  ///< add_bos_token, add_eos_token, add_prefix_space
  bool legacy = false;                           ///< SentencePiece: a space before every text between added tokens
  std::map<std::string, AddedToken> named;       ///< "eos_token", "bos_token", ... without ids
  std::map<std::string, AddedToken> defaults;    ///< of the class, for keys that are not there; may not be tokens
  std::vector<AddedToken> extra;                 ///< additional special tokens, without ids
  std::vector<AddedToken> added;                 ///< tokens with ids, in the order of ids
  std::map<std::string, std::string> templates;  ///< chat templates by name; one alone is "default"
  std::string templates_from;                    ///< the file they are in

  /// Text of a special token such as "eos_token"; "" if the model has none.
  std::string special(const std::string& name) const;
  /// Every special token without an id: `f(token, needed)`; those not needed count only if the vocabulary has them
  /// (defaults of the class, and padding and the like, which should not occur in text).
  template <class F>
  void each_special(F f) const {
    for (const auto& [name, token] : named)
      if (!token.content.empty()) f(token, !is_filler(name));
    for (const auto& [name, token] : defaults)
      if (!named.contains(name)) f(token, false);
    for (const AddedToken& token : extra) f(token, true);
  }

  static bool is_filler(const std::string& name) {
    return name == "pad_token" || name == "unk_token" || name == "mask_token" || name == "sep_token" ||
           name == "cls_token";
  }

  /// Reads the folder as transformers does; chat templates only on request. Error (exit 2) names the file and the
  /// invalid key.
  static TokenizerConfig load(const std::string& folder, bool with_templates = false);
};

}  // namespace dapo
