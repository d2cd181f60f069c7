#include <fmt/format.h>

#include "core/check.h"
#include "data/synthetic.h"
#include "host/commands.h"
#include "model/config.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

int run_countdown_command(const CountdownOptions& o) {
  if (o.rows < 1 || o.rows > 1'000'000) fail_input("--rows {}: 1 to 1000000", o.rows);
  write_countdown(o.file, static_cast<size_t>(o.rows), o.seed);
  fmt::print("{}: {} problems; train with reward.verifier = \"countdown\"\n", o.file, o.rows);
  return 0;
}

int run_chain_command(const ChainOptions& o) {
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
  fmt::print("{0}/data: train, test, skill and crowd .jsonl\n{0}/model: config and tokenizer of {1:.1f} M parameters\n",
             o.folder, static_cast<double>(c.parameters()) / 1e6);
  return 0;
}

}  // namespace dapo
