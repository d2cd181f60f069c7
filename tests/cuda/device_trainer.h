// A toy trainer on a device by name.
#pragma once

#include "host/app/backends.h"
#include "host/train/trainer.h"
#include "tests/host/train/toy_run.h"

namespace dapo {

struct TrainerCase {
  Config config;
  Dataset data = questions("a");
  Toy toy;
  NoProgress progress;
  Trainer trainer;
  TrainerCase(const Config& c, const char* device, const char* dtype)
      : config(c),
        toy(weights_that_say("abcd"), make_backend(device, dtype).backend),
        trainer(config, toy.weights, byte_tokenizer(), data, progress) {}
  std::vector<std::vector<int32_t>> responses() const {
    std::vector<std::vector<int32_t>> ids;
    for (const Group& g : trainer.trained())
      for (const Sample& s : g.samples) ids.push_back(s.response.ids);
    return ids;
  }
};

}  // namespace dapo
