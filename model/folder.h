// What a model folder holds: weights that can be read, none, or weights of another kind, with how to convert them.
#pragma once

#include <string>

namespace dapo {

/// True if the folder has weights in safetensors (model.safetensors, its index, or shards), false if it has no weights
/// at all. Error (exit 2) if it has weights in another format, a LoRA adapter, or checkpoints in subfolders.
bool has_weights(const std::string& folder);

/// Reason why `path` is not a model folder (config.json is missing or cannot be read), and what to do, as a clause for
/// an error message.
std::string why_no_model(const std::string& path);

}  // namespace dapo
