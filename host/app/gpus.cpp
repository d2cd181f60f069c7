#include "host/app/gpus.h"

#include <algorithm>
#include <charconv>

#include "core/check.h"

namespace dapo {
namespace {

constexpr double kMiB = 1 << 20;
// Data sheets: A100 80 GB SXM, H100 SXM, H200 SXM, GeForce RTX 4090 (its bf16 with f32 sums; PCIe 4.0 x16).
constexpr Gpu kGpus[] = {
    {"a100", "A100 80 GB SXM", 312e12, 19.5e12, 2.039e12, 81920 * kMiB, 300e9},
    {"h100", "H100 SXM", 989e12, 67e12, 3.35e12, 81559 * kMiB, 450e9},
    {"h200", "H200 SXM", 989e12, 67e12, 4.8e12, 143771 * kMiB, 450e9},
    {"rtx4090", "RTX 4090", 165.2e12, 82.6e12, 1.008e12, 24564 * kMiB, 25e9},
};

// bench/results/h200-2026-11-26.md: 711 TFLOP/s of 989, 4,318 GB/s of 4,800.
constexpr double kReachedFlops = 711.0 / 989, kReachedBytes = 4318.0 / 4800;

/// cuda/head_chunks.h and cuda/attention_backward.cuh.
constexpr double kTrainedLogits = 2560 * kMiB;
constexpr int kGradientParts = 8;

}  // namespace

std::span<const Gpu> known_gpus() {
  return kGpus;
}

Cards parse_cards(std::string_view text) {
  Cards cards;
  std::string name(text);
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
  if (const size_t x = name.find('x'); x != std::string::npos && x > 0 && name.find_first_not_of("0123456789") == x) {
    const auto [end, error] = std::from_chars(name.data(), name.data() + x, cards.count);
    if (error != std::errc{} || cards.count < 1 || cards.count > 1024)
      fail_input("--for {}: {} cards; 1 to 1024 are planned for", text, text.substr(0, x));
    name.erase(0, x + 1);
  }
  std::string known;
  for (const Gpu& g : kGpus) {
    if (g.key == name) cards.gpu = &g;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", g.key);
  }
  if (cards.gpu == nullptr)
    fail_input("--for {}: unknown card \"{}\"; known: {}, alone or with a count, such as 8xh100", text, name, known);
  return cards;
}

Ceilings ceilings_of(const Gpu& gpu, DType t) {
  return {(t == DType::bf16 ? gpu.bf16_flops : gpu.f32_flops) * kReachedFlops, gpu.bytes_per_second * kReachedBytes};
}

DeviceSize size_of(const Gpu&, DType t, double bytes) {
  return {Device::cuda, t, static_cast<size_t>(bytes), [t](const WorkspaceNeeds& n) {
            const double rows = static_cast<double>(std::max(n.max_head_rows, n.max_batch));
            const double logits = std::min(rows * 4 * static_cast<double>(n.vocab), kTrainedLogits);
            const double parts = t == DType::bf16 ? 4.0 * kGradientParts * static_cast<double>(n.max_tokens) *
                                                        static_cast<double>(2 * n.attention.kv_width())
                                                  : 0;
            return static_cast<size_t>(std::max(logits, parts));
          }};
}

}  // namespace dapo
