// From a row of a dataset to the ids that the model sees.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/dataset.h"
#include "host/train/settings.h"
#include "model/config.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

/// How config.data says that rows with answers (training, evaluation) are to be read.
DatasetOptions question_options(const DataSection& data);

/// Renders prompts as config.data says: template or format, system prompt, suffix. Safe to share between threads.
class PromptEncoder {
 public:
  /// `model_folder`: its chat template ("auto": where it has one) and the tokenizer's end token.
  /// Error (exit 2) on an unknown template, chatml where the model has none, a template that cannot be read.
  PromptEncoder(const DataSection& data, const std::string& model_folder, const Tokenizer& tokenizer);
  ~PromptEncoder();

  /// A last message of the assistant is the beginning of the answer: the prompt ends inside it.
  std::vector<int32_t> encode(const Example& example) const;
  std::vector<int32_t> encode(std::string_view text) const;

  /// Ids that end a response: those of generation_config.json and config.json, the tokenizer's eos_token, and what
  /// ends a turn in the chat template in use; <|im_end|> as well where `prompt` (ids of one, if there is one at hand)
  /// ends in a turn that <|im_start|> opened. The first is the model's own, with which fine-tuning ends a response.
  /// Error (exit 2) where there is none.
  std::vector<int32_t> stop_ids(const ModelConfig& model, std::span<const int32_t> prompt = {}) const;

  /// Says that prompts hold a date, and which; "" where they do not.
  std::string date_text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Tokens for a person: "NAME, 47 tokens:", the text (special tokens included) in lines that begin with "  | ", the
/// ids.
std::string shown_tokens(const std::string& name, const Tokenizer& tokenizer, const std::vector<int32_t>& ids);
/// "stops at 151645 <|im_end|>, 151643 <|endoftext|>"
std::string stop_text(std::span<const int32_t> ids, const Tokenizer& tokenizer);

}  // namespace dapo
