// Shapes of a Qwen2.5-type model, as its Hugging Face folder states them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"

namespace dapo {

struct ModelConfig {
  std::string model_type = "qwen2";  ///< "qwen2" (qkv bias) or "llama" (none)
  int hidden = 0, ffn = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, vocab = 0;
  bool tied = true;  ///< head and embedding are one matrix
  bool qkv_bias = true;
  float rms_eps = 1e-6f;
  double rope_theta = 1e6;
  int max_position = 32768;
  std::vector<int32_t> eos;  ///< every end id: generation_config.json's, then those that config.json adds
  int32_t pad = -1;
  std::string config_json, generation_json;  ///< the texts that it was read from; empty where there were none

  AttentionDims attention() const { return {heads, kv_heads, head_dim}; }
  int64_t parameters() const;
  /// Flops of the products and attention of one forward pass over `tokens` rows whose attention reads `pairs` (query,
  /// key) pairs in all, with the head on `head_rows` rows; a multiply-add is 2. Backward is twice that.
  double forward_flops(double tokens, double pairs, double head_rows) const;
};

/// Reads config.json and generation_config.json. Error (exit 2) names the key and what is supported: unknown model
/// types, quantised weights, rope scaling, sliding windows in use, activations other than silu, heads that do not
/// divide.
ModelConfig load_model_config(const std::string& folder);
/// Writes config.json and generation_config.json so that transformers loads the folder; dtype f32 or bf16. Where the
/// config was read from a folder, they are that folder's texts but for the dtype and the architecture's name: training
/// changes no other key.
void save_model_config(const ModelConfig& config, DType dtype, const std::string& folder);
/// The shapes of the family: "qwen2.5-0.5b" ... "qwen2.5-72b".
ModelConfig qwen25_config(const std::string& name);

}  // namespace dapo
