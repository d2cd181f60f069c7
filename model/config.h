// Shapes of a Qwen2.5-type model, as in its Hugging Face folder.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"

namespace dapo {

inline constexpr int32_t kNoToken = -1;

struct ModelConfig {
  std::string model_type = "qwen2";  ///< "qwen2" (qkv bias) or "llama" (none)
  int hidden = 0, ffn = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, vocab = 0;
  bool tied = true;  ///< head and embedding share one matrix
  bool qkv_bias = true;
  float rms_eps = 1e-6f;
  double rope_theta = 1e6;
  int max_position = 32768;
  std::vector<int32_t> eos;  ///< every end id: those of generation_config.json, then those that config.json adds
  int32_t pad = kNoToken;
  std::string config_json, generation_json;  ///< the texts that it was read from; "" if there was no such file

  AttentionDims attention() const { return {heads, kv_heads, head_dim}; }
  int64_t parameters() const;
  /// FLOPs of the matrix products and attention of one forward pass: `tokens` tokens whose attention reads `pairs`
  /// (query, key) pairs in all, and the head on `head_rows` of them. A multiply-add counts 2. Backward costs twice
  /// this.
  double forward_flops(double tokens, double pairs, double head_rows) const;
};

/// Reads config.json and generation_config.json. Error (exit 2) names the key and what is supported instead: unknown
/// model types, quantised weights, rope scaling, sliding windows in use, activations other than silu, head counts that
/// do not divide.
ModelConfig load_model_config(const std::string& folder);
/// Writes config.json and generation_config.json so that transformers loads the folder; dtype f32 or bf16. A config
/// that was read from a folder is written as it was read, with only dtype and architectures changed. Error (exit 3) if
/// the disk refuses.
void save_model_config(const ModelConfig& config, DType dtype, const std::string& folder);
/// The shapes of "qwen2.5-0.5b" ... "qwen2.5-72b". Error (exit 2) on other names.
ModelConfig qwen25_config(const std::string& name);

}  // namespace dapo
