// Weights as users have them: other types, names and extra tensors, and folders with weights of another kind.
#include <filesystem>
#include <functional>

#include "model/folder.h"
#include "tests/model/folder_case.h"
#include "tests/model/rig.h"

namespace dapo {
namespace {

namespace fs = std::filesystem;

/// Writes a safetensors file with a model's tensors under other names or in another type, and with extra tensors.
class Load : public Folder {
 protected:
  struct Extra {
    const char *name, *dtype;
    size_t bytes;
  };
  using Naming = std::function<std::string(const std::string&)>;
  void write(
      const ModelConfig& config, const std::string& dtype, const std::function<void(std::string&, size_t)>& element,
      const Naming& naming = [](const std::string& n) { return n; }, std::vector<Extra> extras = {}) {
    std::string header = "{", data;
    const auto add = [&](const std::string& name, const std::string& type, const std::string& shape, size_t begin) {
      header += fmt::format("{}\"{}\":{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                            header.size() > 1 ? "," : "", name, type, shape, begin, data.size());
    };
    for (const Param& p : parameter_table(config).all)
      for (const ParamPart& part : p.parts) {
        if (naming(part.name).empty()) continue;
        const size_t begin = data.size();
        for (size_t i = 0; i < static_cast<size_t>(part.rows * p.columns); ++i) element(data, i);
        add(naming(part.name), dtype,
            p.matrix ? fmt::format("{},{}", part.rows, p.columns) : fmt::format("{}", part.rows), begin);
      }
    for (const Extra& e : extras) {
      const size_t begin = data.size();
      data.append(e.bytes, '\0');
      add(e.name, e.dtype, fmt::format("{}", e.dtype[0] == 'F' ? e.bytes / 4 : e.bytes), begin);
    }
    header += "}";
    const uint64_t length = header.size();
    put("model.safetensors", std::string(reinterpret_cast<const char*>(&length), 8) + header + data);
  }
  static void one(std::string& data, size_t) {
    const float v = 1;
    data.append(reinterpret_cast<const char*>(&v), 4);
  }
  static ModelConfig small() {
    ModelConfig c = toy_config();
    c.layers = 1;
    return c;
  }
  std::string note() {
    Rig rig(small());
    const std::string said = rig.weights->load(folder_);
    const auto w = to_host(*rig.backend, rig.weights->flat());
    for (size_t i = 0; i < 600; ++i) EXPECT_EQ(w[i], 1);
    return said;
  }
};

TEST_F(Load, HalfPrecisionFiles) {
  write(small(), "F16", [](std::string& data, size_t i) {
    static constexpr uint16_t kHalf[] = {0x3c00, 0xc000, 0x0001, 0x8001, 0x7bff, 0x3555};
    data.append(reinterpret_cast<const char*>(&kHalf[i % 6]), 2);
  });
  Rig rig(small());
  rig.weights->load(folder_);
  const auto w = to_host(*rig.backend, rig.weights->flat());
  const float want[] = {1.0f, -2.0f, 0x1p-24f, -0x1p-24f, 65504.0f, 0x1.554p-2f};
  for (size_t i = 0; i < 600; ++i) ASSERT_EQ(w[i], want[i % 6]);
}

TEST_F(Load, DoublePrecisionFiles) {
  write(small(), "F64", [](std::string& data, size_t i) {
    const double v = 1.0 / static_cast<double>(i + 1);
    data.append(reinterpret_cast<const char*>(&v), 8);
  });
  Rig rig(small());
  rig.weights->load(folder_);
  const auto w = to_host(*rig.backend, rig.weights->flat());
  for (size_t i = 0; i < 600; ++i) ASSERT_EQ(w[i], static_cast<float>(1.0 / static_cast<double>(i + 1)));
}

TEST_F(Load, ExtraTensorsAreIgnored) {
  const Naming same = [](const std::string& n) { return n; };
  write(small(), "F32", one, same);
  EXPECT_EQ(note(), "");
  write(small(), "F32", one, same, {{"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", 64}});
  EXPECT_EQ(note(), "");  // computed anew, as transformers does
  write(small(), "F32", one, same, {{"v_head.summary.weight", "F32", 192}, {"lm_head.weight", "F32", 4}});
  EXPECT_EQ(note(), "ignored, not part of the model: lm_head.weight, v_head.summary.weight");
  write(small(), "F32", one, same, {{"a", "U8", 1}, {"b", "U8", 1}, {"c", "U8", 1}, {"d", "U8", 1}, {"e", "U8", 1}});
  EXPECT_EQ(note(), "ignored, not part of the model: a, b, c, d and 1 more");
}

TEST_F(Load, NamesOfWrappedModels) {
  for (const std::string prefix : {"_orig_mod.", "module.", "base_model.model.", "model."}) {
    write(small(), "F32", one, [&](const std::string& n) { return prefix + n; });
    EXPECT_EQ(note(), "removed \"" + prefix + "\" from tensor names");
  }
  for (const std::string wrapper : {"_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module."}) {
    write(small(), "F32", one, [&](std::string n) {
      if (const size_t at = n.find("layers.0."); at != n.npos) n.insert(at + 9, wrapper);
      return n;
    });
    EXPECT_EQ(note(), "removed \"" + wrapper + "\" from tensor names");
  }
  write(small(), "F32", one, [](const std::string& n) { return "module._orig_mod." + n; });
  EXPECT_EQ(note(), "removed \"_orig_mod.\", \"module.\" from tensor names");
  const auto bare = [](const std::string& n) { return n.starts_with("model.") ? n.substr(6) : n; };
  write(small(), "F32", one, bare, {{"score.weight", "F32", 192}});  // a Qwen2Model, a classifier
  EXPECT_EQ(note(), "ignored, not part of the model: score.weight");
  ModelConfig untied = small();
  untied.tied = false;
  write(untied, "F32", one, bare);
  Rig rig(untied);
  EXPECT_EQ(rig.weights->load(folder_), "");
}

TEST_F(Load, AHeadOfItsOwnBesideTiedEmbeddings) {
  ModelConfig untied = small();
  untied.tied = false;
  write(untied, "F32", one);
  EXPECT_EQ(note(), "ignored, not part of the model: lm_head.weight");  // saved twice
  write(untied, "F32", [](std::string& data, size_t) {
    const auto v = static_cast<float>(data.size());
    data.append(reinterpret_cast<const char*>(&v), 4);
  });
  Rig rig(small());
  const std::string said = complaint([&] { rig.weights->load(folder_); });
  EXPECT_NE(said.find("tensor 'lm_head.weight' differs from 'model.embed_tokens.weight'"), std::string::npos) << said;
  EXPECT_EQ(complaint([&] { check_weights(folder_, small()); }), said);
}

TEST_F(Load, OtherArchitecturesAreRefused) {
  const Naming same = [](const std::string& n) { return n; };
  const auto verdict = [&] { return complaint([&] { note(); }); };
  const auto expect_refused = [&](const Extra& extra, const std::string& part) {
    write(small(), "F32", one, same, {extra});
    EXPECT_NE(verdict().find(part), std::string::npos) << verdict();
  };
  expect_refused({"model.layers.0.self_attn.q_norm.weight", "F32", 32},
                 "unknown tensor 'model.layers.0.self_attn.q_norm");
  expect_refused({"model.layers.0.mlp.up_proj.qweight", "I8", 32}, "belongs to a quantised checkpoint");
  expect_refused({"model.layers.0.mlp.up_proj.weight_scale_inv", "F32", 32}, "belongs to a quantised checkpoint");
  expect_refused({"model.layers.0.mlp.up_proj.lora_A.weight", "F32", 32}, "belongs to a LoRA adapter: merge it");
  write(small(), "U8", [](std::string& data, size_t) { data += '\1'; });
  EXPECT_NE(verdict().find("expected F32, BF16, F16 or F64; is the checkpoint quantised?"), std::string::npos);
  write(small(), "F32", one, [](const std::string& n) { return n == "model.norm.weight" ? "" : n; });
  EXPECT_NE(verdict().find("'model.norm.weight' is missing"), std::string::npos) << verdict();
}

TEST_F(Folder, ErrorsNameWeightsOfOtherKinds) {
  EXPECT_FALSE(has_weights(folder_));
  put("training_args.bin", "x");
  put("optimizer.pt", "x");
  EXPECT_FALSE(has_weights(folder_));
  const auto verdict = [&](const std::string& file) {
    put(file, "x");
    const std::string message = complaint([&] { has_weights(folder_); });
    fs::remove(folder_ + "/" + file);
    return message;
  };
  for (const auto& [file, part] : std::initializer_list<std::pair<const char*, const char*>>{
           {"pytorch_model.bin", "holds pytorch_model.bin, but only safetensors are read: convert it"},
           {"pytorch_model-00001-of-00002.bin", "only safetensors are read"},
           {"model_world_size_2_rank_0.pt", "only safetensors are read"},
           {"consolidated.00.pth", "only safetensors are read"},
           {"tf_model.h5", "only safetensors are read"},
           {"flax_model.msgpack", "only safetensors are read"},
           {"model-q4_0.gguf", "llama.cpp's format"},
           {"weights.safetensors", "rename it to model.safetensors"},
           {"adapter_model.safetensors", "a LoRA adapter, not a model: merge it"},
           {"adapter_config.json", "a LoRA adapter, not a model: merge it"},
           {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors is missing"},
           {"checkpoint-500/model.safetensors", "no weights in it, but in checkpoint-500: name that folder"}})
    EXPECT_NE(verdict(file).find(part), std::string::npos) << file << ": " << verdict(file);
  fs::create_symlink("nowhere", folder_ + "/model.safetensors");
  EXPECT_TRUE(has_weights(folder_));  // reading it gives the reason
}

TEST_F(Folder, ReasonsWhyItIsNotAModel) {
  put("m/config.json", "{}");
  put("m/tokenizer/tokenizer.json", "{}");
  put("m/model.safetensors", "x");
  put("hub/snapshots/0123/config.json", "{}");
  put("adapter/adapter_config.json", "{}");
  put("gguf/m.gguf", "x");
  put("empty/x", "");
  for (const auto& [path, part] : std::initializer_list<std::pair<const char*, const char*>>{
           {"m/model.safetensors", "a file: name the folder that holds it"},
           {"m/tokenizer", "but in the folder above it, "},
           {"m/tokenizer/", "but in the folder above it, "},
           {"hub", "no config.json in it, but in snapshots/0123: name that folder"},
           {"adapter", "a LoRA adapter, not a model"},
           {"gguf", "it holds m.gguf, weights in llama.cpp's format"},
           {"empty", "no config.json in it; a Hugging Face model folder"}})
    EXPECT_NE(why_no_model(folder_ + "/" + path).find(part), std::string::npos)
        << path << why_no_model(folder_ + "/" + path);
}

}  // namespace
}  // namespace dapo
