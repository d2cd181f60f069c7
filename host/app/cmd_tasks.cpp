#include <fmt/format.h>

#include <filesystem>

#include "core/check.h"
#include "data/synthetic.h"
#include "host/app/commands.h"
#include "host/app/streams.h"
#include "model/config.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

namespace {
void refuse_existing(const std::string& file, bool overwrite) {
  if (!overwrite && std::filesystem::exists(file))
    fail_input("{}: exists; name another path, or give --overwrite to replace it", file);
}
}  // namespace

int run_countdown_command(const CountdownOptions& o) {
  if (o.rows < 1 || o.rows > 1'000'000) fail_input("--rows {}: must be 1 to 1000000", o.rows);
  refuse_existing(o.file, o.overwrite);
  write_countdown(o.file, static_cast<size_t>(o.rows), o.seed);
  print_out(fmt::format("{}: {} problems; train with reward.verifier = \"countdown\"\n", o.file, o.rows));
  return 0;
}

int run_chain_command(const ChainOptions& o) {
  for (const char* file :
       {"data/train.jsonl", "data/test.jsonl", "data/skill.jsonl", "data/crowd.jsonl", "model/config.json",
        "model/generation_config.json", "model/tokenizer.json", "model/tokenizer_config.json",
        "model/model.safetensors", "model/model.safetensors.index.json"})
    refuse_existing(o.folder + "/" + file, o.overwrite);
  write_chain(o.folder + "/data", o.seed);
  const std::string model = o.folder + "/model";
  write_byte_tokenizer(model);
  ModelConfig c;  // 0.8 M parameters
  c.hidden = 128;
  c.ffn = 384;
  c.layers = 4;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 32;
  c.vocab = 264;
  c.rope_theta = 1e4;
  c.max_position = 512;
  c.eos = {256};
  c.pad = 257;
  save_model_config(c, DType::f32, model);
  print_out(fmt::format(
      "{0}/data: train, test, skill and crowd .jsonl\n{0}/model: config and tokenizer of {1:.1f} M parameters\n",
      o.folder, static_cast<double>(c.parameters()) / 1e6));
  return 0;
}

}  // namespace dapo
