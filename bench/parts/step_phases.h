// Decode by batch and context, training by length, and the least time that each can take on this device: the larger of
// its bytes over the memory's rate and its FLOPs over the product's rate.
#pragma once

#include <vector>

#include "bench/parts/peaks.h"
#include "bench/parts/random_model.h"

namespace dapo::bench {

struct DecodeRow {
  int batch, context;
  double seconds = 0;  ///< of one step: a token of every sequence, drawn
  double limit = 0;
};
/// Decode steps of `batches` x `contexts`, with sequences that share nothing and KV pages filled by prefill. Rows that
/// do not fit in memory are left out, and `note` reports it.
std::vector<DecodeRow> time_decode(Backend& backend, const ModelConfig& config, const Peaks& peaks,
                                   std::vector<int> batches, std::vector<int> contexts, int steps, std::string& note);

struct TrainRow {
  int length;
  int64_t tokens;      ///< of one pack
  double seconds = 0;  ///< forward, backward, head: of the pack
  double update = 0;   ///< AdamW, with the norm of the gradient
  double limit = 0, update_limit = 0;
};
/// A pack of at most `tokens` tokens in sequences of `length`, and an update; fewer tokens if memory is short, no row
/// if not even one sequence fits (`note` reports it).
std::vector<TrainRow> time_training(Backend& backend, const ModelConfig& config, const Peaks& peaks,
                                    const std::vector<int>& lengths, int64_t tokens, std::string& note);

/// Least seconds of one decode step of `batch` sequences of `context` tokens: the weights, and the keys and values of
/// `cached` tokens, are read once (a prompt that several sequences share counts once).
double decode_limit(const ModelConfig& config, DType t, const Peaks& peaks, double batch, double context,
                    double cached);
/// Forward and backward of `tokens` rows whose attention reads `pairs`.
double training_limit(const ModelConfig& config, DType t, const Peaks& peaks, double tokens, double pairs,
                      double head_rows);
/// AdamW over every parameter: weight, remainder, moments and gradient, read and written.
double update_limit(const ModelConfig& config, const Peaks& peaks);
/// Least seconds of a DAPO step: prompts x group responses of `response` tokens, at most `batch` decoded at
/// once; each prompt once; `updates` updates.
struct StepLimit {
  double rollout, update;
};
StepLimit step_limit(const ModelConfig& config, DType t, const Peaks& peaks, int prompts, int group, int prompt,
                     int response, int batch, int updates);

}  // namespace dapo::bench
