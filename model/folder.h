// What a model's folder holds: weights that can be read, none, or others, which are named with the way out.
#pragma once

#include <string>

namespace dapo {

/// Whether a folder has weights in safetensors (model.safetensors, its index, or shards). False: it has none of any
/// kind. Error (exit 2) where it has weights of another format, a LoRA adapter, or checkpoints in subfolders.
bool has_weights(const std::string& folder);

/// Why `path` is no model folder, as a clause with the way out: for errors where its config.json is missing.
std::string why_no_model(const std::string& path);

}  // namespace dapo
