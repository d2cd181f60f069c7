#include "host/app/plan_cards.h"

#include <algorithm>

#include "core/sizes.h"
#include "host/app/grid_choice.h"
#include "host/app/plan.h"
#include "host/train/limits.h"
#include "host/train/step_text.h"
#include "model/shards.h"

namespace dapo {
namespace {

constexpr int kMostTensor = 8;               // cards of a machine, which NVLink joins
constexpr int kMostCards = 256;              // of the search for a number that fits
constexpr double kSpare = 4e9;               // bytes a card that a split should leave free
constexpr double kContext = 0.6e9;           // CUDA's context and cuBLASLt
constexpr double kCollectives = 0.9e9;       // buffers of NCCL
constexpr double kNetwork = 50e9;            // bytes/s a card between machines: one 400 Gbit/s adapter each
constexpr double kCollectiveSeconds = 7e-6;  // latency of a small one
constexpr int kSumsPerLayer = 2;             // after attention and after the MLP

DType type_of(const Config& config) {
  return config.model.dtype == DTypeChoice::f32 ? DType::f32 : DType::bf16;
}

/// The config that one of `data` copies runs.
Config share_of(const Config& config, int data) {
  Config c = config;
  c.data.train_batch_size = std::max(1, ceil_div(config.data.train_batch_size, data));
  c.actor.ppo_mini_batch_size = std::max(1, ceil_div(config.actor.ppo_mini_batch_size, data));
  return c;
}

CardPlan plan_split(const Config& config, const ModelConfig& model, DType t, const Cards& cards, int tensor,
                    int zero_stage) {
  CardPlan p;
  p.cards = cards;
  p.tensor = tensor;
  p.zero_stage = zero_stage;
  p.data = cards.count / tensor;
  p.other = kContext + (cards.count > 1 ? kCollectives : 0);
  Config c = share_of(config, p.data);
  c.parallel.tp = tensor;
  c.parallel.dp = p.data;
  c.parallel.zero_stage = zero_stage;
  const RunPlan plan = make_plan(c, model, size_of(*cards.gpu, t, cards.gpu->memory - p.other));
  p.limits = plan.limits;
  p.weights = static_cast<double>(plan.memory.weights + plan.memory.reference);
  p.optimizer = static_cast<double>(plan.memory.state);
  p.host = static_cast<double>(plan.memory.host);
  p.shared = static_cast<double>(std::max(plan.memory.rollout, plan.memory.update));
  p.workspace = static_cast<double>(plan.memory.workspace);
  return p;
}

/// What a card sends in a phase, and the seconds that it takes.
struct Wire {
  double bytes = 0, seconds = 0;
};
/// packs: of an update.
Wire wire_of(const CardPlan& p, const ModelConfig& m, DType t, const PhaseCost& cost, double packs) {
  const double T = p.tensor, size = static_cast<double>(dtype_size(t)), f = (T - 1) / T;
  const double link = p.cards.gpu->link, row = m.hidden * size;
  Wire w;
  const auto send = [&](double bytes, double bytes_per_second) {
    w.bytes += bytes;
    w.seconds += bytes / bytes_per_second;
  };
  if (T > 1 && cost.kind == PhaseCost::decode) {
    w.seconds += kSumsPerLayer * m.layers * cost.passes * kCollectiveSeconds;
    send(kSumsPerLayer * m.layers * 2 * f * cost.tokens * row, link);
  }
  if (T > 1 && cost.kind == PhaseCost::many_tokens) {
    const double crossings = cost.name == "forward, backward" ? (p.limits.recompute ? 11 : 10) : 4;
    send(crossings * f * cost.tokens * m.layers * row, link);
  }
  if (p.data > 1 && cost.kind == PhaseCost::update)  // gradients out, weights in T back
    send(cost.passes * update_wire_bytes(static_cast<double>(m.parameters()) / T, p.data, t, p.limits.reduce_dtype,
                                         p.zero_stage == 2 ? packs : 1),
         p.cards.count > kMostTensor ? std::min(kNetwork, link) : link);
  return w;
}

/// The work of one card of a copy. Collectives are added to the expected times alone, in place of a tail.
PhaseTable table_of(const CardPlan& p, const Config& config, const ModelConfig& model, DType t, int response,
                    Wire* wire = nullptr) {
  const Config c = share_of(config, p.data);
  const Ceilings card = ceilings_of(*p.cards.gpu, t);
  const Shares shares = measured_shares(Device::cuda, model);
  const Ceilings copy{card.flops * p.tensor, card.bytes_per_second * p.tensor};
  const StepShape kept = planned_shape(c, response, false), drawn = planned_shape(c, response, true);
  auto least = step_costs(c, model, p.limits, t, kept), expected = step_costs(c, model, p.limits, t, drawn);
  for (auto* costs : {&least, &expected})
    for (PhaseCost& cost : *costs)
      if (cost.kind == PhaseCost::update) cost.bytes /= p.data, cost.bus_bytes /= p.data * p.tensor;
  PhaseTable out =
      phase_table(least, expected, tail_seconds(c, model, t, drawn, copy, shares), copy, shares, model.layers);
  Wire sum;
  double packs = 0, updates = 0;
  for (const PhaseCost& cost : expected) {
    if (cost.name == "forward, backward") packs += cost.passes;
    if (cost.kind == PhaseCost::update) updates += cost.passes;
  }
  for (const PhaseCost& cost : expected) {
    const Wire w = wire_of(p, model, t, cost, packs / updates);
    sum.bytes += w.bytes;
    sum.seconds += w.seconds;
  }
  if (p.cards.count > 1)
    out.text += fmt::format("    {:<22} {:>9} {:>9} {:>9} {:>21} {:>11}\n", "collectives", "", "", si_text(sum.bytes),
                            "", duration_text(sum.seconds));
  out.expected += sum.seconds;
  if (wire != nullptr) *wire = sum;
  return out;
}

std::string refusal(const Config& config, const ModelConfig& model, DType t, const CardPlan& p) {
  const double room = p.tensor * p.cards.gpu->memory;
  std::string out = fmt::format("\n{} x {}: too small by {:.1f} GiB a card; what would fit\n", p.cards.count,
                                p.cards.gpu->name, gib(p.total() - p.cards.gpu->memory));
  Config whole = config;  // one device with the memory of the cards of a copy
  whole.parallel.dp = whole.parallel.tp = 1;
  if (p.data == 1)
    for (const std::string& s : settings_that_fit(whole, model, size_of(*p.cards.gpu, t, room - p.tensor * p.other)))
      out += fmt::format("  {}\n", s);
  return out + cards_that_fit_text(config, model);
}

}  // namespace

CardPlan plan_cards(const Config& config, const ModelConfig& model, DType t, const Cards& cards) {
  CardPlan best;
  bool found = false;
  for (int stage = config.parallel.zero_stage; stage <= 2 && !(found && best.fits()); ++stage)
    for (const int tensor : possible_splits(model, std::min(kMostTensor, cards.count))) {
      if (cards.count % tensor != 0) continue;
      const CardPlan p = plan_split(config, model, t, cards, tensor, stage);
      if (p.fits() && p.total() + kSpare <= cards.gpu->memory) return p;
      if (!found || !best.fits()) best = p, found = true;
    }
  return best;
}

std::string cards_that_fit_text(const Config& config, const ModelConfig& model) {
  std::string out;
  for (const Gpu& gpu : known_gpus()) {
    int count = 1;
    while (count <= kMostCards && !plan_cards(config, model, type_of(config), {count, &gpu}).fits()) count *= 2;
    if (count <= kMostCards)
      out += fmt::format("  --for {:<12} {} x {} of {:.0f} GiB\n",
                         count == 1 ? std::string(gpu.key) : fmt::format("{}x{}", count, gpu.key), count, gpu.name,
                         gib(gpu.memory));
  }
  return out;
}

CardStep card_step(const CardPlan& plan, const Config& config, const ModelConfig& model, DType t, int response) {
  Wire wire;
  const PhaseTable table = table_of(plan, config, model, t, response, &wire);
  return {table.expected, wire.bytes, wire.seconds};
}

CardsText plan_cards_text(const Config& config, const ModelConfig& model, const Cards& cards) {
  const DType t = type_of(config);
  const CardPlan p = plan_cards(config, model, t, cards);
  const Ceilings c = ceilings_of(*cards.gpu, t);
  std::string out;
  const auto line = [&]<class... A>(const char* name, fmt::format_string<A...> text, A&&... args) {
    out += fmt::format("  {:<24} {}\n", name, fmt::format(text, std::forward<A>(args)...));
  };
  line("for", "{} x {}, {:.1f} GiB each; {:.0f} TFLOP/s in products and {:.0f} GB/s of memory are taken as reachable",
       cards.count, cards.gpu->name, gib(cards.gpu->memory), c.flops / 1e12, c.bytes_per_second / 1e9);
  line("", "(72 % and 90 % of the data sheet, as measured on an H200)");
  line("", "{}", shares_text(Device::cuda));
  if (cards.count > 1)
    line(
        "",
        "Several GPUs were tested in the simulator only; collectives are taken at {:.0f} GB/s, {:.0f} between machines",
        cards.gpu->link / 1e9, kNetwork / 1e9);
  line("model", "{}: {:.2f} G parameters, {} layers, {}", config.model.path,
       static_cast<double>(model.parameters()) / 1e9, model.layers, dtype_name(t));
  line("split", "{} card{} a copy of the weights, {} cop{}{}", p.tensor, p.tensor == 1 ? "" : "s", p.data,
       p.data == 1 ? "y" : "ies",
       p.zero_stage == 2 && p.data > 1 ? ", gradients divided among them (parallel.zero_stage = 2)" : "");
  for (const auto& [name, bytes, more] :
       {std::tuple{"weights", p.weights, std::string()},
        {"optimizer", p.optimizer, ""},
        {"rollout or update", p.shared,
         fmt::format("{} sequences at once, {} KV pages of {} tokens; gradients, packs of {} tokens{}", p.limits.batch,
                     p.limits.kv_pages, p.limits.page_size, p.limits.pack_tokens,
                     p.limits.recompute ? ", recomputed" : "")},
        {"workspace", p.workspace, ""},
        {"CUDA, collectives", p.other, ""}})
    line(name, "{:9.2f} GiB  {:>21}{}", gib(bytes), bytes_text(bytes), more.empty() ? "" : "  " + more);
  if (p.host > 0)
    line("of the host's memory", "{:9.2f} GiB  {:>21}  optimizer of one card", gib(p.host), bytes_text(p.host));
  line("needs a card", "{:9.2f} GiB of {:.2f}{}", gib(p.total()), gib(cards.gpu->memory),
       p.fits() ? "" : ": DOES NOT FIT");
  if (!p.fits()) return {out + refusal(config, model, t, p), false};

  const int typical = std::max(1, config.data.max_response_length / 4);
  const PhaseTable table = table_of(p, config, model, t, typical);
  out += table.text;
  const double hours = table.expected * config.trainer.total_steps / 3600;
  line("a step takes", "at least {}, expected {}, with responses of {} tokens", duration_text(table.least),
       duration_text(table.expected), typical);
  const auto of_hours = [](double h) { return h < 10 ? fmt::format("{:.2g}", h) : fmt::format("{:.0f}", h); };
  line("the run takes", "{} hours expected, {} GPU hours: {} steps without evaluations", of_hours(hours),
       of_hours(hours * cards.count), config.trainer.total_steps);
  const int saves = config.trainer.save_every > 0 ? config.trainer.total_steps / config.trainer.save_every : 0;
  line("a checkpoint takes", "{:.4g} GB: weights, {}two moments, {} bytes a parameter; the run saves {}",
       checkpoint_bytes(model, t) / 1e9, t == DType::bf16 ? "remainders of the masters, " : "", 12,
       saves > 0 ? fmt::format("{} times, and one model of {:.4g} GB at its end", saves,
                               static_cast<double>(model.parameters()) * static_cast<double>(dtype_size(t)) / 1e9)
                 : "its last model only");
  return {out, true};
}

}  // namespace dapo
