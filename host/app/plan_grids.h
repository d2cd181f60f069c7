// `--plan --grids h100`: the smallest grid of every known model on 1 to 128 cards.
#pragma once

#include <string>

#include "host/app/gpus.h"
#include "host/train/settings.h"

namespace dapo {

/// Two Markdown tables for the models of the Qwen2.5 family, trained as the config says: by number of cards the grid that
/// plan_cards() chooses with the memory of a card, and the expected seconds of a step with what a card sends in it.
std::string plan_grids_text(const Config& config, const Gpu& gpu);

}  // namespace dapo
