#include "model/config.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "core/checked.h"
#include "core/files.h"
#include "core/json.h"
#include "model/params.h"

namespace dapo {
namespace {

namespace fs = std::filesystem;

int read_size(JsonReader& json, const std::string& path, const std::string& key) {
  const int64_t v = json.integer();
  if (v < 1 || v > (1 << 24)) fail_input("{}: {} is {}, expected 1 to {}", path, key, v, 1 << 24);
  return static_cast<int>(v);
}

int32_t read_id(JsonReader& json, const std::string& path, const std::string& key) {
  return checked_cast<int32_t>(json.integer(), path + ": " + key);
}

std::vector<int32_t> read_ids(JsonReader& json, const std::string& path, const std::string& key) {
  std::vector<int32_t> ids;
  if (json.peek() == JsonReader::Kind::null) {
    json.null();
  } else if (json.peek() == JsonReader::Kind::array) {
    for (json.array(); json.item();) ids.push_back(read_id(json, path, key));
  } else {
    ids.push_back(read_id(json, path, key));
  }
  return ids;
}

/// partial_rotary_factor: an Error unless all of a head is rotated.
void refuse_partial(JsonReader& json, const std::string& path) {
  if (const double part = json.number(); part != 1)
    fail_input("{}: partial_rotary_factor {} is not supported, expected 1", path, part);
}

/// layer_types: an Error unless every layer attends to everything before.
void refuse_layer_types(JsonReader& json, const std::string& path) {
  for (json.array(); json.item();)
    if (const std::string type = json.string(); type != "full_attention")
      fail_input("{}: layer_types has '{}', which is not supported, expected full_attention", path, type);
}

struct Rope {
  bool present = false;
  std::optional<double> theta;
};

/// rope_scaling (rope_parameters in transformers 5): only plain rotary embedding is supported, which linear scaling by 1 is.
Rope read_rope(JsonReader& json, const std::string& path, const std::string& key) {
  Rope rope;
  std::string name, type = "default";
  double factor = 0;
  for (json.object(); json.key(name); rope.present = true) {
    const JsonReader::Kind kind = json.peek();
    if (kind == JsonReader::Kind::object)
      fail_input("{}: {} has parameters for each kind of layer ('{}'), which is not supported", path, key, name);
    if (kind == JsonReader::Kind::null) {
      json.null();  // as if absent
    } else if (name == "rope_theta") {
      rope.theta = json.number();
    } else if (name == "partial_rotary_factor") {
      refuse_partial(json, path);
    } else if (name == "rope_type" || name == "type") {
      type = json.string();
    } else if (name == "factor" && kind == JsonReader::Kind::number) {
      factor = json.number();
    } else {
      json.skip();
    }
  }
  if (type != "default" && !(type == "linear" && factor == 1))
    fail_input("{}: {} '{}' is not supported, only plain rotary embedding; use a model without scaling", path, key,
               type);
  return rope;
}

/// A flag that must be off.
void refuse_true(JsonReader& json, const std::string& path, const std::string& key) {
  if (json.boolean()) fail_input("{}: {} is not supported, expected false", path, key);
}

/// quantization_config: an Error.
void refuse_quantised(JsonReader& json, const std::string& path) {
  std::string name, method = "unknown method";
  for (json.object(); json.key(name);)
    if (name == "quant_method" && json.peek() == JsonReader::Kind::string)
      method = json.string();
    else
      json.skip();
  fail_input(
      "{}: a quantised checkpoint (quantization_config: {}), but weights are trained as F32 or BF16: use the model "
      "that "
      "it was made from",
      path, method);
}

struct Raw {
  int hidden = 0, ffn = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, vocab = 0, max_position = 0;
  int window = 4096, full_layers = 28;  // of sliding attention: transformers' defaults
  std::string type, activation = "silu";
  std::optional<double> theta;
  Rope scaling, rope;
  double eps = 1e-6;
  bool tied = false, attention_bias = false, sliding = false, layer_types = false;
  std::vector<int32_t> eos, pad;
};

Raw read_config(const std::string& text, const std::string& path) {
  JsonReader json(text, path);
  Raw r;
  const std::pair<const char*, int Raw::*> sizes[] = {{"hidden_size", &Raw::hidden},
                                                      {"intermediate_size", &Raw::ffn},
                                                      {"num_hidden_layers", &Raw::layers},
                                                      {"num_attention_heads", &Raw::heads},
                                                      {"num_key_value_heads", &Raw::kv_heads},
                                                      {"head_dim", &Raw::head_dim},
                                                      {"vocab_size", &Raw::vocab},
                                                      {"max_position_embeddings", &Raw::max_position}};
  std::string key;
  for (json.object(); json.key(key);) {
    const auto size = std::find_if(std::begin(sizes), std::end(sizes), [&](const auto& s) { return key == s.first; });
    if (json.peek() == JsonReader::Kind::null) {
      json.null();  // as if absent
      if (key == "sliding_window") r.window = 0;
    } else if (size != std::end(sizes)) {
      r.*(size->second) = read_size(json, path, key);
    } else if (key == "model_type") {
      r.type = json.string();
    } else if (key == "hidden_act") {
      r.activation = json.string();
    } else if (key == "rms_norm_eps") {
      r.eps = json.number();
    } else if (key == "rope_theta") {
      r.theta = json.number();
    } else if (key == "tie_word_embeddings") {
      r.tied = json.boolean();
    } else if (key == "rope_scaling") {
      r.scaling = read_rope(json, path, key);
    } else if (key == "rope_parameters") {
      r.rope = read_rope(json, path, key);
    } else if (key == "attention_bias") {
      r.attention_bias = json.boolean();
    } else if (key == "use_sliding_window") {
      r.sliding = json.boolean();
    } else if (key == "sliding_window") {
      r.window = read_id(json, path, key);
    } else if (key == "max_window_layers") {
      r.full_layers = read_id(json, path, key);
    } else if (key == "mlp_bias") {
      refuse_true(json, path, key);
    } else if (key == "partial_rotary_factor") {
      refuse_partial(json, path);
    } else if (key == "layer_types") {
      refuse_layer_types(json, path);
      r.layer_types = true;
    } else if (key == "quantization_config") {
      refuse_quantised(json, path);
    } else if (key == "eos_token_id") {
      r.eos = read_ids(json, path, key);
    } else if (key == "pad_token_id") {
      r.pad = read_ids(json, path, key);
    } else {
      json.skip();
    }
  }
  json.end();
  // As in transformers, whatever the order of the keys: one object replaces the other, and both the key beside them.
  if (const Rope& rope = r.scaling.present ? r.scaling : r.rope; rope.theta) r.theta = rope.theta;
  return r;
}

void check(const Raw& r, const std::string& path) {
  if (r.type != "qwen2" && r.type != "llama")
    fail_input("{}: model_type '{}' is not supported; use a Qwen2, Qwen2.5 or Llama-type model", path, r.type);
  if (r.attention_bias && r.type == "llama")  // Qwen2 always has the bias, whatever this key says
    fail_input("{}: attention_bias is not supported, expected false", path);
  if (r.sliding && !r.layer_types && r.window > 0 && r.layers > r.full_layers)
    fail_input("{}: use_sliding_window is not supported ({} of {} layers have a window), expected false", path,
               r.layers - r.full_layers, r.layers);
  if (r.activation != "silu" && r.activation != "swish")  // two names of one function
    fail_input("{}: hidden_act '{}' is not supported, expected silu", path, r.activation);
  const std::pair<const char*, int> needed[] = {{"hidden_size", r.hidden},
                                                {"intermediate_size", r.ffn},
                                                {"num_hidden_layers", r.layers},
                                                {"num_attention_heads", r.heads},
                                                {"vocab_size", r.vocab}};
  for (const auto& [key, value] : needed)
    if (value == 0) fail_input("{}: {} is missing; download the model again", path, key);
  const int kv = r.kv_heads ? r.kv_heads : r.heads;
  if (r.heads % kv != 0)
    fail_input("{}: num_attention_heads {} is not a multiple of num_key_value_heads {}", path, r.heads, kv);
  if (r.head_dim == 0 && r.hidden % r.heads != 0)
    fail_input("{}: hidden_size {} is not a multiple of num_attention_heads {}", path, r.hidden, r.heads);
  const int dim = r.head_dim ? r.head_dim : r.hidden / r.heads;
  if (dim % 2 != 0) fail_input("{}: head_dim {} is odd, expected an even number", path, dim);
  if (!(r.eps > 0 && r.eps < 1)) fail_input("{}: rms_norm_eps is {}, expected between 0 and 1", path, r.eps);
  if (r.theta && !(*r.theta >= 1 && *r.theta < 1e12))
    fail_input("{}: rope_theta is {}, expected 1 to 1e12", path, *r.theta);
}

}  // namespace

int64_t ModelConfig::parameters() const {
  const ParamTable table = parameter_table(*this);
  int64_t n = 0;
  for (const Param& p : table.all) n += p.numel();
  return n;
}

double ModelConfig::forward_flops(double tokens, double pairs, double head_rows) const {
  const AttentionDims a = attention();
  const double c = hidden, f = ffn;
  const double products = c * static_cast<double>(a.qkv_width()) + static_cast<double>(a.q_width()) * c + 3 * c * f;
  return layers * (2 * tokens * products + 4 * pairs * static_cast<double>(a.q_width())) + 2 * head_rows * c * vocab;
}

ModelConfig load_model_config(const std::string& folder) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored))
    fail_input("{}: no such model folder; give the path of a Hugging Face folder", folder);
  const std::string path = (fs::path(folder) / "config.json").string();
  ModelConfig c;
  c.config_json = read_text_file(path);
  const Raw r = read_config(c.config_json, path);
  check(r, path);
  c.model_type = r.type;
  c.hidden = r.hidden, c.ffn = r.ffn, c.layers = r.layers, c.heads = r.heads, c.vocab = r.vocab;
  c.kv_heads = r.kv_heads ? r.kv_heads : r.heads;
  c.head_dim = r.head_dim ? r.head_dim : r.hidden / r.heads;
  c.tied = r.tied;
  c.qkv_bias = r.type == "qwen2";
  c.rms_eps = static_cast<float>(r.eps);
  c.rope_theta = r.theta.value_or(1e4);
  if (r.max_position) c.max_position = r.max_position;
  c.eos = r.eos;
  if (!r.pad.empty()) c.pad = r.pad[0];
  const std::string generation = (fs::path(folder) / "generation_config.json").string();
  if (has_entry(generation)) {
    c.generation_json = read_text_file(generation);
    JsonReader json(c.generation_json, generation);
    std::string key;
    for (json.object(); json.key(key);) {
      if (key == "eos_token_id") {
        const std::vector<int32_t> own = std::exchange(c.eos, {});
        for (const auto& ids : {read_ids(json, generation, key), own})
          for (const int32_t id : ids)
            if (std::find(c.eos.begin(), c.eos.end(), id) == c.eos.end()) c.eos.push_back(id);
      } else if (key == "pad_token_id" && c.pad < 0) {
        if (auto ids = read_ids(json, generation, key); !ids.empty()) c.pad = ids[0];
      } else {
        json.skip();
      }
    }
    json.end();
  }
  for (int32_t id : c.eos)
    if (id < 0 || id >= c.vocab) fail_input("{}: eos_token_id {} is outside the vocabulary of {}", folder, id, c.vocab);
  return c;
}

namespace {
/// config.json of a model that was not read from a folder.
std::string fresh_config(const ModelConfig& c, const std::string& architectures, const std::string& dtype) {
  // The shortest decimal that rounds to the float: 1e-6, not 9.99999997e-07.
  const double eps = std::stod(fmt::format("{}", c.rms_eps));
  const auto id = [](int32_t v) { return v < 0 ? nlohmann::ordered_json() : nlohmann::ordered_json(v); };
  nlohmann::ordered_json json = {
      {"architectures", nlohmann::json::parse(architectures)},
      {"model_type", c.model_type},
      {"hidden_size", c.hidden},
      {"intermediate_size", c.ffn},
      {"num_hidden_layers", c.layers},
      {"num_attention_heads", c.heads},
      {"num_key_value_heads", c.kv_heads},
      {"vocab_size", c.vocab},
      {"tie_word_embeddings", c.tied},
      {"max_position_embeddings", c.max_position},
      {"rope_theta", c.rope_theta},
      {"rms_norm_eps", eps},
      {"hidden_act", "silu"},
      {"torch_dtype", nlohmann::json::parse(dtype)},
      {"bos_token_id", nullptr},
      {"eos_token_id", id(c.eos.empty() ? -1 : c.eos[0])},
      {"pad_token_id", id(c.pad)},
  };
  if (c.head_dim * c.heads != c.hidden) json["head_dim"] = c.head_dim;
  if (c.model_type == "llama") json["attention_bias"] = json["mlp_bias"] = false;
  return json.dump(2) + "\n";
}

/// The folder's config.json with the new dtype, and the architecture's name corrected if it named another head (a
/// classifier's), whose weights were ignored.
std::string kept_config(const std::string& text, const std::string& architectures, const std::string& dtype) {
  JsonReader json(text, "config.json");
  std::string key;
  bool same = false, newer = false, older = false;
  for (json.object(); json.key(key);) {
    const size_t begin = json.position();
    json.skip();
    std::string value = text.substr(begin, json.position() - begin);
    std::erase_if(value, [](char ch) { return std::isspace(static_cast<unsigned char>(ch)); });
    same |= key == "architectures" && value == architectures;
    newer |= key == "dtype";  // transformers 5's name
    older |= key == "torch_dtype";
  }
  std::vector<std::pair<std::string, std::string>> members;
  if (!same) members.emplace_back("architectures", architectures);
  if (newer) members.emplace_back("dtype", dtype);
  if (older || !newer) members.emplace_back("torch_dtype", dtype);
  return with_members(text, "config.json", members);
}
}  // namespace

void save_model_config(const ModelConfig& c, DType dtype, const std::string& folder) {
  const auto write = [&](const char* name, const std::string& text) {
    const std::string path = (fs::path(folder) / name).string();
    std::ofstream out(path, std::ios::binary);
    out << text;
    out.close();
    if (!out) fail(kExitResources, "{}: cannot write; is the disk full?", path);
  };
  const std::string type = dtype == DType::bf16 ? "\"bfloat16\"" : "\"float32\"",
                    architectures = c.model_type == "llama" ? "[\"LlamaForCausalLM\"]" : "[\"Qwen2ForCausalLM\"]";
  write("config.json",
        c.config_json.empty() ? fresh_config(c, architectures, type) : kept_config(c.config_json, architectures, type));
  nlohmann::ordered_json generation = {{"eos_token_id", c.eos}};
  if (c.pad >= 0) generation["pad_token_id"] = c.pad;
  write("generation_config.json", c.generation_json.empty() ? generation.dump(2) + "\n" : c.generation_json);
}

ModelConfig qwen25_config(const std::string& name) {
  struct Row {
    const char* name;
    int hidden, ffn, layers, heads, kv_heads, vocab;
    bool tied;
    float eps;
    int max_position;
  };
  static constexpr Row kRows[] = {
      // the base models' config.json
      {"qwen2.5-0.5b", 896, 4864, 24, 14, 2, 151936, true, 1e-6f, 32768},
      {"qwen2.5-1.5b", 1536, 8960, 28, 12, 2, 151936, true, 1e-6f, 131072},
      {"qwen2.5-3b", 2048, 11008, 36, 16, 2, 151936, true, 1e-6f, 32768},
      {"qwen2.5-7b", 3584, 18944, 28, 28, 4, 152064, false, 1e-6f, 131072},
      {"qwen2.5-14b", 5120, 13824, 48, 40, 8, 152064, false, 1e-5f, 131072},
      {"qwen2.5-32b", 5120, 27648, 64, 40, 8, 152064, false, 1e-5f, 131072},
      {"qwen2.5-72b", 8192, 29568, 80, 64, 8, 152064, false, 1e-5f, 131072},
  };
  for (const Row& r : kRows)
    if (name == r.name) {
      ModelConfig c;
      c.hidden = r.hidden, c.ffn = r.ffn, c.layers = r.layers, c.heads = r.heads, c.kv_heads = r.kv_heads;
      c.head_dim = r.hidden / r.heads;
      c.vocab = r.vocab, c.tied = r.tied, c.rms_eps = r.eps, c.max_position = r.max_position;
      c.eos = {151643, 151645};
      c.pad = 151643;
      return c;
    }
  std::string known;
  for (const Row& r : kRows) known += std::string(known.empty() ? "" : ", ") + r.name;
  fail_input("'{}' is not a known model; known: {}", name, known);
}

}  // namespace dapo
