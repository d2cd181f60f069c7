// From a row of a dataset to the ids that the model sees.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/dataset.h"
#include "host/config.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

/// How config.data says that rows with answers (training, evaluation) are to be read.
DatasetOptions question_options(const DataSection& data);

/// Renders prompts as config.data says: template, system prompt, suffix. Safe to share between threads.
class PromptEncoder {
 public:
  /// `model_folder`: tokenizer_config.json says whether the model has a chat template ("auto") and its defaults.
  /// Error (exit 2) on an unknown template, or chatml where the tokenizer lacks its tokens.
  PromptEncoder(const DataSection& data, const std::string& model_folder, const Tokenizer& tokenizer);
  ~PromptEncoder();

  std::vector<int32_t> encode(const Example& example) const;
  std::vector<int32_t> encode(std::string_view text) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Tokens for a person: "NAME, 47 tokens:", the text (special tokens included) in lines that begin with "  | ", the
/// ids.
std::string shown_tokens(const std::string& name, const Tokenizer& tokenizer, const std::vector<int32_t>& ids);

}  // namespace dapo
