// A trainer on the toy model with its data.
#pragma once

#include <cstring>

#include "host/train/trainer.h"
#include "tests/host/train/toy_run.h"

namespace dapo {

struct Case {
  Config config;
  Dataset data;
  Toy toy;
  NoProgress progress;
  Trainer trainer;
  Case(const Config& c, Dataset d, const std::vector<float>& weights)
      : config(c), data(std::move(d)), toy(weights), trainer(config, toy.weights, byte_tokenizer(), data, progress) {}
  std::vector<float> weights() { return toy.get(toy.weights.flat()); }
};

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Answers a, b, c or d, each about as often.
inline const std::vector<float>& guesser() {
  return weights_that_say("abcd");
}

}  // namespace dapo
