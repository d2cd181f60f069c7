// Plans for machines that are not here: `--plan --for 8xh100`.
#pragma once

#include <string>

#include "host/app/gpus.h"
#include "host/train/settings.h"

namespace dapo {

/// One way to run on several cards: `tensor` cards share a copy of the weights, `data` such copies share the prompts.
/// Moments and masters are divided among the copies too (ZeRO stage 1), and gradients in stage 2.
struct CardPlan {
  Cards cards;
  int tensor = 1, data = 1, zero_stage = 1;
  ModelLimits limits;                             ///< of one copy
  double weights = 0, optimizer = 0, shared = 0;  ///< bytes a card; shared: KV pages, or gradients and activations
  double workspace = 0, other = 0;                ///< other: CUDA's context, libraries, buffers of collectives
  double host = 0;  ///< bytes of the host's memory for a card: the optimizer, if it is offloaded
  double total() const { return weights + optimizer + shared + workspace + other; }
  bool fits() const { return total() <= cards.gpu->memory; }
};
/// The fewest cards a copy that leave some memory free, else the fewest that fit; where none does, the same in ZeRO stage
/// 2; the largest split if none fits.
CardPlan plan_cards(const Config& config, const ModelConfig& model, DType t, const Cards& cards);

/// A step with responses of `response` tokens.
struct CardStep {
  double seconds;                   ///< expected
  double wire_bytes, wire_seconds;  ///< that a card sends, and the part of `seconds` that this takes
};
CardStep card_step(const CardPlan& plan, const Config& config, const ModelConfig& model, DType t, int response);

struct CardsText {
  std::string text;
  bool fits;
};
/// Memory a card, the phases of a step, GPU hours of the run, and disk for checkpoints.
CardsText plan_cards_text(const Config& config, const ModelConfig& model, const Cards& cards);

/// The smallest number of each known card that holds the run, one per line.
std::string cards_that_fit_text(const Config& config, const ModelConfig& model);

}  // namespace dapo
