// The toy model's tokenizer, data, settings and starting weights, for tests of whole steps.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "host/train/limits.h"
#include "host/train/sft.h"
#include "tests/host/toy.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

inline const Tokenizer& byte_tokenizer() {
  static const std::unique_ptr<const Tokenizer> t = [] {
    write_byte_tokenizer(temp_folder() + "/bytes");
    return Tokenizer::load(temp_folder() + "/bytes");
  }();
  return *t;
}

inline Dataset dataset_of(const std::string& lines) {
  static int number = 0;
  const std::string path = temp_folder() + "/set" + std::to_string(number++) + ".jsonl";
  std::ofstream(path) << lines;
  return Dataset::load(path);
}

inline Config toy_config() {
  Config c;
  c.data.prompt_template = PromptStyle::raw;
  c.data.max_prompt_length = 8;
  c.data.max_response_length = 4;
  c.data.train_batch_size = 4;
  c.rollout.n = 8;
  c.rollout.max_num_seqs = 64;
  c.rollout.max_num_batched_tokens = 256;
  c.actor.ppo_mini_batch_size = 2;
  c.actor.lr = 3e-3;
  c.actor.lr_warmup_steps = 1;
  c.actor.ppo_max_token_len = 512;
  c.reward.verifier = "exact";
  c.reward.overlong_buffer = false;
  c.reward.workers = 1;
  c.algorithm.stop_when_solved = 1;  // toys are soon all right
  c.eval.pass_k = {1, 4};
  c.eval.top_p = 1.0f;
  return c;
}

/// Weights of a toy that answers any prompt with one of `letters`, each about as often, and ends; fine-tuned once a
/// program.
inline const std::vector<float>& weights_that_say(std::string_view letters) {
  static std::map<std::string, std::vector<float>> known;
  static std::mutex mutex;  // ranks that are threads may ask at the same time
  const std::lock_guard lock(mutex);
  std::vector<float>& weights = known[std::string(letters)];
  if (!weights.empty()) return weights;
  std::string lines;
  for (char prompt : std::string("stuvwxyz"))
    for (char c : letters) lines += fmt::format("{{\"prompt\":\"{}?\",\"response\":\"{}\"}}\n", prompt, c);
  Config config = toy_config();
  config.sft.steps = 60;
  config.sft.batch_size = 32;
  config.sft.lr = 1e-2;
  config.sft.lr_warmup_steps = 5;
  Toy toy;
  NoProgress progress;
  const SftMetrics m = run_sft(config, toy.weights, byte_tokenizer(), dataset_of(lines), progress);
  // a letter costs log(letters) and the end id nothing, half of that a token
  EXPECT_NEAR(m.loss, std::log(letters.size()) / 2, 0.2);
  weights = toy.get(toy.weights.flat());
  return weights;
}

/// Rows "s?" ... "z?" with this answer.
inline Dataset questions(const std::string& answer) {
  std::string lines;
  for (char prompt : std::string("stuvwxyz"))
    lines += fmt::format("{{\"prompt\":\"{}?\",\"answer\":\"{}\"}}\n", prompt, answer);
  return dataset_of(lines);
}

/// Whether a metric measures time, so that it differs between equal runs.
inline bool of_time(const std::string& name) {
  for (const char* part : {"seconds", "hidden", "_per_s", "flops", "verifier_slow"})
    if (name.find(part) != name.npos) return true;
  return false;
}

}  // namespace dapo
