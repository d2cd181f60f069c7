// GPUs by name, for plans of machines that are not here.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "host/app/step_cost.h"

namespace dapo {

struct Gpu {
  std::string_view key, name;
  double bf16_flops, f32_flops;  ///< FLOP/s by the data sheet, dense; f32 without tensor cores, as the f32 kernels are
  double bytes_per_second;       ///< of memory, by the data sheet
  double memory;                 ///< bytes, as nvidia-smi shows them
  double link;                   ///< bytes/s to another card of the machine, one direction: NVLink, or PCIe
};
/// a100, h100, h200, rtx4090.
std::span<const Gpu> known_gpus();

struct Cards {
  int count = 1;
  const Gpu* gpu = nullptr;
};
/// "8xh100" or "h100". Error (exit 2) for a name that is not known and for a count outside 1 to 1024.
Cards parse_cards(std::string_view text);

/// What is taken as reachable of the data sheet: the shares that were measured on an H200.
Ceilings ceilings_of(const Gpu& gpu, DType t);

/// A card, or several with their memory together, as memory plans see it. The scratch of the ops is estimated from the
/// two that take the most, the logits of a chunk and the parts of attention's gradient.
DeviceSize size_of(const Gpu& gpu, DType t, double bytes);

}  // namespace dapo
