// The prompts of a dataset as token ids, for training, evaluation and fine-tuning.
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "data/dataset.h"
#include "host/train/prompts.h"

namespace dapo {

struct EncodedPrompts {
  std::vector<int32_t> examples;          ///< indices into the dataset of the examples that are kept
  std::vector<std::vector<int32_t>> ids;  ///< their prompts
  size_t dropped = 0;                     ///< examples whose prompt is empty or longer than data.max_prompt_length
};

/// Encodes the examples of `data` until `most` prompts are kept. What is too long is dropped and counted, or an error,
/// as overlong_prompts says. Error (exit 2) if none is left. `purpose`: "training", ..., for errors.
EncodedPrompts encode_prompts(const DataSection& section, const PromptEncoder& encoder, const Dataset& data,
                              std::string_view purpose, size_t most = std::numeric_limits<size_t>::max());

}  // namespace dapo
