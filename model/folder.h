// What a model folder holds: weights that can be read, none, or weights of another kind, with how to convert them.
#pragma once

#include <string>

#include "model/config.h"

namespace dapo {

/// True if the folder has weights in safetensors (model.safetensors, its index, or shards), false if it has no weights
/// at all. Error (exit 2) if it has weights in another format, a LoRA adapter, or checkpoints in subfolders.
bool has_weights(const std::string& folder);

/// Checks that the folder's weights have the names and shapes that `config` asks for, without reading them. Errors and
/// the returned note are those of Weights::load.
std::string check_weights(const std::string& folder, const ModelConfig& config);

/// Reason why `path` is not a model folder (config.json is missing or cannot be read), and what to do, as a clause for
/// an error message.
std::string why_no_model(const std::string& path);

}  // namespace dapo
