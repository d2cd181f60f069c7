// Shapes, the parameter table, FLOP counts, memory plans; folders saved and loaded, broken folders.
#include "model/config.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/model/folder_case.h"
#include "tests/model/rig.h"

namespace dapo {
namespace {

namespace fs = std::filesystem;

nlohmann::json read_json(const std::string& path) {
  std::ifstream in(path);
  return nlohmann::json::parse(in);
}

void expect_table(const std::string& path) {
  SCOPED_TRACE(path);
  const auto table = read_json(path);
  for (const char* size : {"0.5B", "1.5B", "3B", "7B", "14B", "32B"}) {
    const auto& row = table[size];
    std::string name = std::string("qwen2.5-") + size;
    name.back() = 'b';
    const ModelConfig c = qwen25_config(name);
    EXPECT_EQ(c.parameters(), row["params"].get<int64_t>()) << name;
    EXPECT_EQ(c.head_dim, row["head_dim"].get<int>());
    EXPECT_EQ(c.tied, row["tie_word_embeddings"].get<bool>());
    EXPECT_EQ(c.max_position, row["max_position_embeddings"]["base"].get<int>()) << name;
    EXPECT_EQ(c.rms_eps, row["rms_norm_eps"]["base"].get<float>()) << name;
    size_t tensors = 0;
    for (const Param& p : parameter_table(c).all) tensors += p.parts.size();
    EXPECT_EQ(tensors, row["safetensors_tensors"].get<size_t>()) << name;
  }
}

TEST(Config, TheFamilysShapes) {
  for (const std::string& path : golden_files("config/table.json", "config/gen_qwen2.5_config_table.json"))
    expect_table(path);
  EXPECT_EQ(qwen25_config("qwen2.5-72b").parameters(), 72706203648);  // as the hub's model card counts
  EXPECT_THROW(qwen25_config("qwen2.5-8b"), Error);
}

void expect_shapes(const std::string& path, const std::string& model) {
  SCOPED_TRACE(path);
  auto want = read_json(path);
  const ParamTable table = parameter_table(qwen25_config(model));
  int64_t end = 0;
  for (const Param& p : table.all) {
    EXPECT_EQ(p.offset % 64, 0);
    EXPECT_GE(p.offset, end);
    end = p.offset + p.numel();
    int64_t rows = 0;
    for (const ParamPart& part : p.parts) {
      EXPECT_EQ(part.row_begin, rows) << part.name;
      rows += part.rows;
      std::vector<int64_t> shape{part.rows};
      if (p.matrix) shape.push_back(p.columns);
      EXPECT_EQ(want[part.name].get<std::vector<int64_t>>(), shape) << part.name;
      want.erase(part.name);
    }
    EXPECT_EQ(rows, p.rows) << p.name;
  }
  EXPECT_GE(table.size, end);
  for (const auto& [name, shape] : want.items())
    EXPECT_TRUE(shape.is_null() || !shape.is_array()) << name << " is not in the table";
}

TEST(Config, EveryTensorsNameAndShape) {
  for (const auto& [size, model] : {std::pair{"0.5B", "qwen2.5-0.5b"}, {"7B", "qwen2.5-7b"}})
    for (const std::string& path : golden_files(fmt::format("config/shapes_{}.json", size),
                                                fmt::format("config/derived_tensor_shapes_Qwen2.5-{}.json", size)))
      expect_shapes(path, model);
}

TEST(Config, FlopsByHand) {
  const ModelConfig c = qwen25_config("qwen2.5-0.5b");
  // One token that attends to itself: every weight of the layers once, and of the head.
  const double layer = 896.0 * 896 + 2 * 128 * 896 + 896.0 * 896 + 3 * 896.0 * 4864;
  EXPECT_EQ(c.forward_flops(1, 0, 0), 2 * 24 * layer);
  EXPECT_EQ(c.forward_flops(0, 0, 1), 2 * 896.0 * 151936);
  EXPECT_EQ(c.forward_flops(0, 1, 0), 24 * 14 * (2 * 64 + 2 * 64));  // q . k, and p v
  EXPECT_EQ(c.forward_flops(10, 55, 3), 10 * c.forward_flops(1, 0, 0) + 55 * 24 * 14 * 256 + 3 * 2 * 896.0 * 151936);
}

void expect_instruct_7b(const std::string& path, const std::string& generation) {
  SCOPED_TRACE(path);
  const ScratchFolder scratch;
  const fs::path folder = scratch.path();
  fs::copy_file(path, folder / "config.json", fs::copy_options::overwrite_existing);
  const ModelConfig one = load_model_config(folder.string());
  EXPECT_EQ(one.eos, std::vector<int32_t>{151645});
  fs::copy_file(generation, folder / "generation_config.json", fs::copy_options::overwrite_existing);
  const ModelConfig c = load_model_config(folder.string());
  EXPECT_EQ(c.eos, (std::vector<int32_t>{151645, 151643}));
  EXPECT_EQ(c.pad, 151643);
  EXPECT_EQ(c.parameters(), qwen25_config("qwen2.5-7b").parameters());
  EXPECT_TRUE(c.qkv_bias);
  EXPECT_FALSE(c.tied);
}

TEST(Config, ConfigsOfAnInstructModel) {
  const auto generations =
      golden_files("config/instruct_7B/generation_config.json", "config/Qwen2.5-7B-Instruct_generation_config.json");
  const auto configs = golden_files("config/instruct_7B/config.json", "config/Qwen2.5-7B-Instruct_config.json");
  for (size_t i = 0; i < configs.size(); ++i) expect_instruct_7b(configs[i], generations.at(i));
}

TEST_F(Folder, EndIdsOfBothFiles) {
  const auto ends = [&](const std::string& config, const std::string& generation) {
    put("config.json",
        R"({"model_type":"qwen2","hidden_size":64,"intermediate_size":96,"num_hidden_layers":1,"num_attention_heads":4,)"
        R"("vocab_size":32,"eos_token_id":)" +
            config + "}");
    put("generation_config.json", R"({"eos_token_id":)" + generation + "}");
    return load_model_config(folder_).eos;
  };
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(ends("3", "[5, 3]"), (Ids{5, 3}));
  EXPECT_EQ(ends("3", "5"), (Ids{5, 3})) << "generation_config.json's first";
  EXPECT_EQ(ends("[3, 4]", "null"), (Ids{3, 4}));
  EXPECT_EQ(ends("null", "null"), Ids{});
}

TEST_F(Folder, ErrorsNameWhatIsNotSupported) {
  const std::string base =
      R"("hidden_size":64,"intermediate_size":96,"num_hidden_layers":1,"num_attention_heads":4,"vocab_size":32)";
  const auto verdict = [&](const std::string& more) {
    put("config.json", "{" + base + "," + more + "}");
    return complaint([&] { load_model_config(folder_); });
  };
  EXPECT_EQ(verdict(R"("model_type":"llama")"), "");
  EXPECT_EQ(
      verdict(R"("model_type":"qwen2","rope_scaling":null,"rope_parameters":{"rope_type":"default","rope_theta":5e5})"),
      "");
  EXPECT_EQ(load_model_config(folder_).rope_theta, 5e5);
  EXPECT_EQ(verdict(R"("model_type":"qwen2","attention_bias":true,"layer_types":["full_attention"])"), "");
  EXPECT_EQ(verdict(R"("model_type":"llama","partial_rotary_factor":1.0,"tie_word_embeddings":null)"), "");
  EXPECT_EQ(verdict(R"("model_type":"llama","rope_theta":null,"layer_types":null,"rms_norm_eps":null)"), "");
  EXPECT_EQ(verdict(R"("model_type":"llama","rope_scaling":{"factor":1.0,"type":"linear"})"), "") << "scales nothing";
  const std::pair<const char*, const char*> cases[] = {
      {R"("model_type":"gpt2")", "model_type 'gpt2'"},
      {R"("model_type":"llama","rope_scaling":{"factor":2.0,"type":"linear"})", "'linear' is not supported"},
      {R"("model_type":"llama","rope_scaling":{"rope_type":"llama3"})", "'llama3' is not supported"},
      {R"("model_type":"qwen2","rope_scaling":{"type":"yarn","factor":4.0})", "'yarn' is not supported"},
      {R"("model_type":"qwen2","use_sliding_window":true,"max_window_layers":0)", "use_sliding_window"},
      {R"("model_type":"qwen2","rope_parameters":{"full_attention":{"rope_theta":5e5}})", "('full_attention')"},
      {R"("model_type":"llama","attention_bias":true)", "attention_bias"},
      {R"("model_type":"qwen2","layer_types":["full_attention","sliding_attention"])", "'sliding_attention'"},
      {R"("model_type":"llama","partial_rotary_factor":0.5)", "partial_rotary_factor 0.5"},
      {R"("model_type":"llama","rope_parameters":{"partial_rotary_factor":0.5})", "partial_rotary_factor 0.5"},
      {R"("model_type":"llama","hidden_act":"gelu")", "'gelu'"},
      {R"("model_type":"llama","num_key_value_heads":3)", "not a multiple of num_key_value_heads"},
      {R"("model_type":"llama","head_dim":15)", "odd"},
      {R"("model_type":"llama","hidden_size":65)", "not a multiple of num_attention_heads"},
      {R"("model_type":"llama","num_hidden_layers":-1)", "num_hidden_layers is -1"},
      {R"("model_type":"llama","num_hidden_layers":99999999999)", "num_hidden_layers is 99999999999"},
      {R"("model_type":"llama","quantization_config":{"bits":4,"quant_method":"gptq"})", "quantised checkpoint"},
      {R"("model_type":"llama","quantization_config":{})", "quantised checkpoint"},
      {R"("model_type":"llama","eos_token_id":32)", "outside the vocabulary"},
      {R"("model_type":"llama","rope_theta":0)", "rope_theta"},
      {R"("model_type":"llama","rms_norm_eps":"x")", "expected a number"},
  };
  for (const auto& [more, want] : cases)
    EXPECT_NE(verdict(more).find(want), std::string::npos) << more << ": " << verdict(more);
  put("config.json", "{\"model_type\":\"llama\"}");
  EXPECT_NE(complaint([&] { load_model_config(folder_); }).find("hidden_size is missing"), std::string::npos);
  put("config.json", "{");
  EXPECT_NE(complaint([&] { load_model_config(folder_); }).find("config.json: JSON"), std::string::npos);
  put("config.json", "{\n \"vocab_size\": 1,\n \"hidden_size\": \"64\"}");
  EXPECT_NE(complaint([&] { load_model_config(folder_); }).find("(line 3): expected a number"), std::string::npos);
  put("config.json", "");
  EXPECT_NE(complaint([&] { load_model_config(folder_); }).find("an empty file"), std::string::npos);
  EXPECT_NE(complaint([&] { load_model_config(folder_ + "/absent"); }).find("no such model folder"), std::string::npos);
}

/// Configs as transformers 4, transformers 5 and hands that knew both have left them; each value is transformers'.
TEST_F(Folder, RotaryBaseWhateverTheOrderOfKeys) {
  const std::string base =
      R"({"model_type":"qwen2","hidden_size":64,"intermediate_size":96,"num_hidden_layers":1,"num_attention_heads":4,)";
  const auto theta = [&](const std::string& more) {
    put("config.json", base + R"("vocab_size":32)" + more + "}");
    return load_model_config(folder_).rope_theta;
  };
  const std::string outer = R"(,"rope_theta":50)",
                    inner = R"(,"rope_parameters":{"rope_type":"default","rope_theta":7e5})",
                    scaling = R"(,"rope_scaling":{"rope_theta":600})";
  EXPECT_EQ(theta(""), 1e4);
  EXPECT_EQ(theta(outer), 50);
  EXPECT_EQ(theta(outer + inner), 7e5);
  EXPECT_EQ(theta(inner + outer), 7e5);
  EXPECT_EQ(theta(scaling + inner + outer), 600);
  EXPECT_EQ(theta(outer + inner + scaling), 600);
  EXPECT_EQ(theta(inner + R"(,"rope_scaling":{})"), 7e5);
  EXPECT_EQ(theta(inner + outer + R"(,"rope_scaling":{"type":"default"})"), 50);
  EXPECT_EQ(theta(outer + R"(,"rope_parameters":{"rope_type":null,"rope_theta":null})"), 50);
}

TEST_F(Folder, WindowsThatNoLayerHas) {
  const std::string base =
      R"({"model_type":"qwen2","hidden_size":64,"intermediate_size":96,"num_hidden_layers":4,"num_attention_heads":4,)"
      R"("vocab_size":32,"use_sliding_window":true)";
  const auto verdict = [&](const std::string& more) {
    put("config.json", base + more + "}");
    return complaint([&] { load_model_config(folder_); });
  };
  EXPECT_EQ(verdict(R"(,"sliding_window":16,"max_window_layers":4)"), "");
  EXPECT_EQ(verdict(R"(,"sliding_window":null,"max_window_layers":0)"), "");
  EXPECT_EQ(verdict(R"(,"sliding_window":16,"max_window_layers":0,"layer_types":["full_attention"])"), "");
  EXPECT_NE(verdict(R"(,"sliding_window":16,"max_window_layers":3)").find("(1 of 4 layers"), std::string::npos);
  EXPECT_NE(verdict(R"(,"max_window_layers":0)").find("(4 of 4 layers"), std::string::npos);
}

TEST_F(Folder, NumbersThatOnlyPythonWrites) {
  put("config.json",
      R"({"model_type":"llama","hidden_size":64,"intermediate_size":96,"num_hidden_layers":1,"num_attention_heads":4,)"
      R"("hidden_act":"swish","vocab_size":32,"initializer_range":NaN,"a":Infinity,"b":-Infinity,"c":[NaN]})");
  EXPECT_EQ(complaint([&] { load_model_config(folder_); }), "");
}

/// Keys that training does not change are saved as they were read, byte for byte.
TEST_F(Folder, OtherKeysAreKept) {
  const std::string config =
      "{\n \"architectures\": [\n  \"Qwen2ForCausalLM\"\n ],\n \"hidden_size\": 64, \"intermediate_size\": 96, "
      "\"num_hidden_layers\": 1,\n \"num_attention_heads\": 4, \"vocab_size\": 32, \"model_type\": \"qwen2\",\n "
      "\"torch_dtype\": \"float16\", \"bos_token_id\": 5, \"eos_token_id\": 6, \"sliding_window\": 512,\n "
      "\"initializer_range\": 0.020, \"quantization_config\": null, \"auto_map\": {\"x\": [NaN]}\n}\n";
  const std::string generation =
      "{\"do_sample\": true, \"temperature\": 0.70, \"top_k\": 20, \"eos_token_id\": [6, 7]}";
  const auto saved = [&](const std::string& text, DType dtype) {
    put("config.json", text);
    put("out/x", "");
    save_model_config(load_model_config(folder_), dtype, folder_ + "/out");
    return slurp(folder_ + "/out/config.json");
  };
  const auto with = [&](std::string from, const std::string& to, std::string text) {
    return text.replace(text.find(from), from.size(), to);
  };
  put("generation_config.json", generation);
  EXPECT_EQ(saved(config, DType::bf16), with("float16", "bfloat16", config));
  EXPECT_EQ(slurp(folder_ + "/out/generation_config.json"), generation);
  EXPECT_EQ(load_model_config(folder_ + "/out").eos, load_model_config(folder_).eos);
  const std::string newer = with("torch_dtype", "dtype", config);
  EXPECT_EQ(saved("\xEF\xBB\xBF" + newer, DType::f32), with("float16", "float32", newer));
  // a classifier's head is ignored, so the architecture's name changes
  EXPECT_EQ(saved(with("CausalLM", "SequenceClassification", config), DType::bf16),
            with("[\n  \"Qwen2ForCausalLM\"\n ]", "[\"Qwen2ForCausalLM\"]", with("float16", "bfloat16", config)));
  fs::remove(folder_ + "/generation_config.json");
  saved(config, DType::bf16);
  EXPECT_EQ(read_json(folder_ + "/out/generation_config.json")["eos_token_id"], nlohmann::json({6}));
}

TEST_F(Folder, SavedAndLoadedAgain) {
  for (DType dtype : rig_types()) {
    for (bool tied : {true, false}) {
      ModelConfig config = toy_config();
      config.tied = tied, config.eos = {1, 2}, config.pad = 3, config.rms_eps = 1e-5f;
      const auto rig = toy_rig(config, dtype);
      rig->weights->save(folder_);
      const ModelConfig back = load_model_config(folder_);
      EXPECT_EQ(back.eos, config.eos);
      EXPECT_EQ(back.pad, 3);
      EXPECT_EQ(back.rms_eps, config.rms_eps);
      EXPECT_EQ(back.tied, tied);
      EXPECT_EQ(back.rope_theta, config.rope_theta);
      const Rig again(folder_, dtype);
      EXPECT_EQ(to_host(*again.backend, again.weights->flat()), to_host(*rig->backend, rig->weights->flat()));
      const Rig other(folder_, dtype == DType::f32 ? rig_types().back() : DType::f32);
      const auto want = to_host(*rig->backend, rig->weights->flat()),
                 got = to_host(*other.backend, other.weights->flat());
      const bool rounded = rig_types().size() == 2;
      for (size_t i = 0; i < want.size(); ++i) ASSERT_EQ(got[i], rounded ? to_float(to_bf16(want[i])) : want[i]);
    }
  }
}

TEST_F(Folder, FilesThatContradictTheConfig) {
  const auto rig = toy_rig();
  rig->weights->save(folder_);
  const auto verdict = [&](ModelConfig c) {
    Rig r(c);
    return complaint([&] { r.weights->load(folder_); });
  };
  ModelConfig c = toy_config();
  EXPECT_EQ(verdict(c), "");
  c.ffn = 81;
  EXPECT_NE(
      verdict(c).find("'model.layers.0.mlp.gate_proj.weight' is F32 [80, 48], but config.json asks for F32 [81, 48]"),
      std::string::npos)
      << verdict(c);
  c = toy_config(), c.layers = 4;
  EXPECT_NE(verdict(c).find("'model.layers.3.input_layernorm.weight' is missing"), std::string::npos) << verdict(c);
  c = toy_config(), c.layers = 2;
  EXPECT_NE(verdict(c).find("unknown tensor 'model.layers.2."), std::string::npos) << verdict(c);
  c = toy_config(), c.tied = false;
  EXPECT_NE(verdict(c).find("'lm_head.weight' is missing"), std::string::npos) << verdict(c);
  fs::resize_file(folder_ + "/model.safetensors", fs::file_size(folder_ + "/model.safetensors") - 1);
  EXPECT_NE(verdict(toy_config()).find("truncated"), std::string::npos);
}

TEST(Init, IsNormalAndKeyed) {
  ModelConfig config = toy_config();
  config.vocab = 4000;
  Rig a(config), b(config), c(config);
  a.weights->init(1, 0.1f), b.weights->init(1, 0.1f), c.weights->init(2, 0.1f);
  const auto wa = to_host(*a.backend, a.weights->flat());
  EXPECT_EQ(wa, to_host(*b.backend, b.weights->flat()));
  EXPECT_NE(wa, to_host(*c.backend, c.weights->flat()));
  const size_t n = 4000 * 48;
  double sum = 0, squares = 0, fourth = 0;
  for (size_t i = 0; i < n; ++i) {
    const double x = static_cast<double>(wa[i]) / 0.1;
    sum += x, squares += x * x, fourth += x * x * x * x;
  }
  const double scale = 1 / std::sqrt(static_cast<double>(n));  // five standard errors of each moment
  EXPECT_NEAR(sum / static_cast<double>(n), 0, 5 * scale);
  EXPECT_NEAR(squares / static_cast<double>(n), 1, 5 * scale * std::sqrt(2.0));
  EXPECT_NEAR(fourth / static_cast<double>(n), 3, 5 * scale * std::sqrt(96.0));
}

TEST(Plan, EqualsTheLayout) {
  for (DType dtype : rig_types())
    for (bool recompute : {false, true}) {
      Rig rig(toy_config(), dtype);
      ModelLimits limits;
      limits.max_length = 200, limits.pack_tokens = 300, limits.pack_segments = 9, limits.pack_head_rows = 120;
      limits.batch = 5, limits.prefill_tokens = 64, limits.kv_pages = 20, limits.train = true,
      limits.recompute = recompute;
      const MemoryPlan plan = plan_memory(*rig.backend, toy_config(), limits);
      rig.reserve(limits);
      rig.decoder->begin();  // both CHECK that the layout takes the planned bytes
      rig.learner->begin();
      EXPECT_EQ(plan.weights / Arena::kAlign, (rig.weights->flat().bytes() + Arena::kAlign - 1) / Arena::kAlign);
      EXPECT_GE(plan.state, rig.learner->gradients().bytes() * 2 + rig.learner->remainders().bytes());
      EXPECT_GE(plan.update, rig.learner->gradients().bytes());
    }
  Rig rig(toy_config());
  ModelLimits limits;
  limits.max_length = 200, limits.batch = 5, limits.prefill_tokens = 64, limits.kv_pages = 20;
  EXPECT_EQ(plan_memory(*rig.backend, toy_config(), limits).state, 0u) << "inference keeps no state";
  limits.kv_pages = int64_t{1} << 40;
  const std::string message = error_of(kExitResources, [&] { rig.reserve(limits); });
  EXPECT_NE(message.find("KV pages"), std::string::npos) << message;
}

/// Both use the shared arena, so whoever lost it must begin again.
TEST(Memory, IsUsedInTurn) {
  Rig rig(toy_config());
  Pack pack = make_pack({{random_ids(1, 5, 101), {random_ids(2, 4, 101)}}});
  ModelLimits limits = training_limits(pack);
  limits.batch = 1, limits.prefill_tokens = 8, limits.kv_pages = 2;
  rig.weights->init(1, 0.1f);
  rig.reserve(limits);
  PagedBatch batch;
  batch.ids = {1}, batch.row_begin = {0, 1}, batch.prefix_length = {0}, batch.own_length = {1};
  batch.pages = {0}, batch.max_pages = 1;
  const auto prefill = [&] { rig.decoder->prefill(batch, {}, {}, {}); };
  const auto score = [&] { rig.learner->score(pack, 1.0f); };
  EXPECT_NE(error_of(kExitInternal, prefill).find("begin() comes before prefill"), std::string::npos);
  rig.decoder->begin();
  prefill();
  EXPECT_NE(error_of(kExitInternal, score).find("begin() comes before packs"), std::string::npos);
  rig.learner->begin();
  score();
  EXPECT_NE(error_of(kExitInternal, prefill).find("begin() comes before prefill"), std::string::npos);
  EXPECT_NE(error_of(kExitInternal, [&] { rig.decoder->decode(batch, 1, {}, {}, {}); }).find("before decode"),
            std::string::npos);
}

/// A memory has room for what its limits ask for, no more.
TEST(Memory, HasNoRoomForOtherCalls) {
  Rig rig(toy_config());
  Pack pack = make_pack({{random_ids(1, 5, 101), {random_ids(2, 4, 101)}}});
  ModelLimits limits = training_limits(pack);
  limits.train = false;
  rig.learner_for(limits).score(pack, 1.0f);
  EXPECT_NE(error_of(kExitInternal, [&] { rig.learner->train(pack, 1.0f, {}); }).find("no room for training"),
            std::string::npos);
  EXPECT_NE(error_of(kExitInternal, [&] { rig.learner->update({}); }).find("no room for training"), std::string::npos);
  EXPECT_NE(error_of(kExitInternal, [&] { Decoder decoder(*rig.memory); }).find("no room for decoding"),
            std::string::npos);
}

}  // namespace
}  // namespace dapo
