#include "host/app/plan.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <vector>

#include "core/check.h"
#include "core/sizes.h"
#include "data/dataset.h"
#include "host/app/grid_choice.h"
#include "host/app/plan_cards.h"
#include "host/app/save.h"
#include "host/app/session.h"
#include "host/app/terminal.h"
#include "host/train/eval_sets.h"
#include "host/train/limits.h"
#include "host/train/step_text.h"

namespace dapo {
namespace fs = std::filesystem;
namespace {

/// The command that downloads a model of this name.
std::string how_to_get(const std::string& model) {
  std::string name = fs::path(model).filename().string();
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char ch) { return std::tolower(ch); });
  return "data/download.sh " + name;
}

/// Bytes of this process that are in memory now: program, libraries, threads.
size_t resident_bytes() {
  std::ifstream in("/proc/self/statm");
  size_t whole = 0, resident = 0;
  in >> whole >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

class Lines {
 public:
  template <class... A>
  void add(std::string_view name, fmt::format_string<A...> text, A&&... args) {
    text_ += fmt::format("  {:<24} {}\n", name, fmt::format(text, std::forward<A>(args)...));
  }
  void append(const std::string& text) { text_ += text; }
  std::string text_;
};

/// An arena, then its pieces where it has several.
void add_arena(Lines& out, const char* title, const char* arena, size_t bytes, const MemoryPlan& memory,
               const std::string& more) {
  out.add(title, "{:9.2f} GiB  {:>21}{}", gib(bytes), bytes_text(static_cast<double>(bytes)),
          more.empty() ? "" : "  " + more);
  const auto in_arena = [&](const MemoryPlan::Piece& p) { return p.arena == arena; };
  if (std::ranges::count_if(memory.pieces, in_arena) < 2) return;
  for (const MemoryPlan::Piece& p : memory.pieces)
    if (in_arena(p)) out.add("", "{:15}{:>21}  {}", "", bytes_text(static_cast<double>(p.bytes)), p.what);
}

/// What the run writes, and whether the disk has room for it.
void add_disk(Lines& out, const Config& config, const ModelConfig& model, DType t, int prompt, int response) {
  const TrainerSection& trainer = config.trainer;
  const int written = trainer.save_every > 0 ? trainer.total_steps / trainer.save_every + 1 : 1;
  // those that are kept, the best, and the one being written
  const int checkpoints = trainer.keep > 0 ? std::min(trainer.keep + 2, written) : written;
  const double model_gb = static_cast<double>(model.parameters()) * static_cast<double>(dtype_size(t)) / 1e9;
  const double checkpoint_gb = checkpoint_bytes(model, t) / 1e9;
  // per token: text and id some 10 bytes, log-prob 8; verdict and field names: 500 per response
  const double row = 500 + 10.0 * prompt + 18.0 * response;
  const double rollout_gb =
      trainer.log_rollouts ? row * config.data.train_batch_size * config.rollout.n * trainer.total_steps / 1e9 : 0;
  const double all_gb = model_gb + checkpoints * checkpoint_gb + rollout_gb,
               free_gb = static_cast<double>(free_bytes(trainer.run_dir)) / 1e9;
  out.add("the run writes",
          "{:9.2f} GB to {}: at most {} checkpoints of {:.3g} GB, a model of {:.3g} GB, rollouts of {:.3g} GB with "
          "responses of {} tokens",
          all_gb, trainer.run_dir, checkpoints, checkpoint_gb, model_gb, rollout_gb, response);
  out.add("the disk there has", "{:9.2f} GB free{}", free_gb, all_gb > free_gb ? ": NOT ENOUGH" : "");
}

/// Steps of a run at these lengths: the table of the average one, the totals of the longest.
void add_time(Lines& out, const RunPlan& plan, const Config& config, const ModelConfig& model, const Backend& backend,
              const MeasuredCeilings& measured, int response) {
  const DType t = backend.dtype();
  const Ceilings& ceilings = measured.ceilings;
  const Shares shares = measured_shares(backend.device(), model);
  const auto table = [&](int tokens) {
    const StepShape kept = planned_shape(config, tokens, false), drawn = planned_shape(config, tokens, true);
    return phase_table(step_costs(config, model, plan.limits, t, kept),
                       step_costs(config, model, plan.limits, t, drawn),
                       tail_seconds(config, model, t, drawn, ceilings, shares), ceilings, shares, model.layers);
  };
  const PhaseTable typical = table(response), longest = table(config.data.max_response_length);
  out.add("this machine's limits", "{:.0f} GFLOP/s in products, {:.1f} GB/s of memory ({})", ceilings.flops / 1e9,
          ceilings.bytes_per_second / 1e9, measured.when);
  out.add("", "{}", shares_text(backend.device()));
  out.append(typical.text);
  out.add("a step takes", "at least {}, expected {}, with responses of {} tokens; {} and {} with {}",
          duration_text(typical.least), duration_text(typical.expected), response, duration_text(longest.least),
          duration_text(longest.expected), config.data.max_response_length);
  out.add("the run takes", "{} expected, {} steps without evaluations",
          duration_text(typical.expected * config.trainer.total_steps), config.trainer.total_steps);
}

}  // namespace

RunPlan make_plan(Config& config, const ModelConfig& model, const DeviceSize& device) {
  RunPlan plan;
  const int share = ranks_that_share(config, device);
  plan.available = device.available / share;
  plan.total = device.total / share;
  for (int attempt = 0; attempt < 2; ++attempt) {
    plan.limits = training_limits(config, model, device);
    plan.memory = plan_memory(device, model, plan.limits);
    const double rest =
        static_cast<double>(plan.memory.weights + plan.memory.reference + plan.memory.state + plan.memory.workspace);
    const double pages = static_cast<double>(plan.available) * 0.95 - rest;
    if (plan.fits() || pages <= 0) break;
    config.rollout.kv_memory_gb = std::max(pages / 1e9, least_kv_gb(config, model, device));
  }
  return plan;
}

std::string bytes_text(double bytes) {
  std::string digits = fmt::format("{:.0f}", bytes);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<size_t>(at), ",");
  return digits + " bytes";
}

std::string si_text(double n) {
  constexpr const char* kPrefixes[] = {"", " k", " M", " G", " T", " P", " E", " Z"};
  size_t i = 0;
  for (; n >= 999.5 && i + 1 < std::size(kPrefixes); ++i) n /= 1000;
  return fmt::format("{:.3g}{}", n, kPrefixes[i]);
}

PhaseTable phase_table(const std::vector<PhaseCost>& least, const std::vector<PhaseCost>& expected, double tail,
                       const Ceilings& ceilings, const Shares& shares, int layers) {
  PhaseTable out;
  constexpr const char* kRow = "{:<26} {:>9} {:>9} {:>9} {:>9} {:>11} {:>11}\n";
  out.text =
      fmt::format(fmt::runtime(kRow), "  phase of a step", "tokens", "FLOP", "bytes", "passes", "at least", "expected");
  for (size_t i = 0; i < least.size(); ++i) {
    const PhaseCost& c = least[i];
    const double a = least_seconds(c, ceilings),
                 b = expected_seconds(expected[i], ceilings, shares, layers) + (c.kind == PhaseCost::decode ? tail : 0);
    out.text += fmt::format(fmt::runtime(kRow), "    " + c.name, si_text(c.tokens), si_text(c.flops), si_text(c.bytes),
                            si_text(c.passes), duration_text(a), duration_text(b));
    out.least += a, out.expected += b;
  }
  return out;
}

std::string plan_text(const RunPlan& plan, const Config& config, const ModelConfig& model, const Backend& backend,
                      const MeasuredCeilings& measured) {
  const ModelLimits& l = plan.limits;
  const MemoryPlan& m = plan.memory;
  Lines out;
  out.add("model", "{}: {:.2f} G parameters, {} layers, {}", config.model.path,
          static_cast<double>(model.parameters()) / 1e9, model.layers, dtype_name(backend.dtype()));
  add_arena(out, "weights", "weights", m.weights, m, "");
  if (l.reference)
    add_arena(out, "reference", "reference", m.reference, m,
              fmt::format("{}, frozen; one forward pass of every response a step (actor.kl_loss_coef = {:g})",
                          reference_folder(config), config.actor.kl_loss_coef));
  add_arena(out, "optimizer", "state", m.state + m.host, m, l.offload_optimizer ? "pinned memory of the host" : "");
  add_arena(out, "rollout", "rollout", m.rollout, m,
            fmt::format("{} sequences at once, {} KV pages of {} tokens", l.batch, l.kv_pages, l.page_size));
  add_arena(
      out, "update", "update", m.update, m,
      fmt::format("packs of {} tokens{}; takes turns with rollout", l.pack_tokens, l.recompute ? ", recomputed" : ""));
  add_arena(out, "workspace", "workspace", m.workspace, m, "");
  out.add("needs in total", "{:9.2f} GiB  {:>21}", gib(m.total()), bytes_text(static_cast<double>(m.total())));
  if (backend.device() == Device::cpu) {
    // A checkpoint is copied if that takes no more than half of what is free by then (host/app/checkpoint.h).
    const auto copied = static_cast<size_t>(checkpoint_bytes(model, backend.dtype()));
    const size_t copy = 2 * copied < plan.available - std::min(plan.available, m.total()) ? copied : 0;
    const size_t peak = m.total() + resident_bytes() + copy;
    out.add("peak of the process",
            "{:9.2f} GiB  {:>21}  with {:.2f} GiB of program and libraries and {:.2f} of a checkpoint's copy",
            gib(peak), bytes_text(static_cast<double>(peak)), gib(resident_bytes()), gib(copy));
  }
  const ParallelSection& grid = config.parallel;
  const int share = ranks_that_share(config, backend);
  out.add("this machine has", "{:9.2f} GiB free of {:.2f}{}", gib(plan.available), gib(plan.total),
          share > 1 ? fmt::format(" for each of {} ranks", share) : "");
  if (grid.ranks() > 1)
    out.add(
        "ranks",
        "{:9} = {} x {}: {} with 1/{} of the weights{} each, and 1/{} of moments{} and remainders; memory is that of "
        "the largest part",
        grid.ranks(), grid.dp, grid.tp, grid.ranks(), grid.tp, l.shards_gradients() ? "" : " and gradients",
        grid.ranks(), l.shards_gradients() ? ", gradients" : "");
  out.add("the model splits over", "{} ranks (parallel.tp)", fmt::join(possible_splits(model, model.heads), ", "));
  const int typical = std::max(1, config.data.max_response_length / 4);
  add_disk(out, config, model, backend.dtype(), std::min(256, config.data.max_prompt_length), typical);
  add_time(out, plan, config, model, backend, measured, typical);
  return out.text_;
}

std::vector<std::string> settings_that_fit(const Config& config, const ModelConfig& model, const DeviceSize& device) {
  std::vector<std::string> out;
  const auto fits = [&](Config c, const std::vector<std::string>& settings) {
    try {
      apply_settings(c, settings);
      return make_plan(c, model, device).fits();
    } catch (const Error&) {  // pages set by hand that are too few for these lengths
      return false;
    }
  };
  if (device.device == Device::cuda && !config.model.offload_optimizer)
    for (const bool recompute : {false, true}) {
      std::vector<std::string> settings = {"model.offload_optimizer=true"};
      if (recompute) settings.push_back("model.recompute=true");
      if (!fits(config, settings)) continue;
      out.push_back("--set " + fmt::format("{}", fmt::join(settings, " --set ")));
      break;
    }
  for (const bool recompute : {false, true})
    for (int share = recompute && !config.model.recompute ? 1 : 2; share <= 64; share *= 2) {
      if (recompute && config.model.recompute) continue;
      std::vector<std::string> settings;
      if (recompute) settings.push_back("model.recompute=true");
      const int response = config.data.max_response_length / share;
      if (response < 64) break;
      if (share > 1) {
        settings.push_back(fmt::format("data.max_response_length={}", response));
        settings.push_back(
            fmt::format("reward.overlong_buffer_len={}", std::max(1, config.reward.overlong_buffer_len / share)));
        settings.push_back("actor.ppo_max_token_len=0");
      }
      if (!fits(config, settings)) continue;
      out.push_back("--set " + fmt::format("{}", fmt::join(settings, " --set ")));
      break;
    }
  std::ranges::stable_sort(out, {}, [](const std::string& s) { return s.size(); });
  return out;
}

std::vector<std::string> missing_inputs(const Config& config) {
  std::vector<std::string> out;
  std::error_code ignored;
  if (!fs::exists(config.model.path, ignored))
    out.push_back(fmt::format("{} ({})", config.model.path, how_to_get(config.model.path)));
  if (const std::string reference = reference_folder(config);
      !reference.empty() && reference != config.model.path && !fs::exists(reference, ignored))
    out.push_back(fmt::format("{} ({})", reference, how_to_get(reference)));
  const auto look = [&](const std::string& path) {
    for (const std::string& f : data_files(path))
      if (!fs::exists(f, ignored)) out.push_back(fmt::format("{} (known sets: data/download.sh --list)", f));
  };
  for (const std::string& path : config.data.train_files) look(path);
  for (const std::string& entry : config.data.val_files)
    if (const std::string missing = missing_set(entry); !missing.empty())
      out.push_back(missing);
    else
      for (const std::string& path : set_files(entry)) look(path);
  return out;
}

std::string too_large_text(const std::string& path, const RunPlan& plan, const Config& config, const ModelConfig& model,
                           const Backend& backend, const MeasuredCeilings& measured) {
  std::string out = fmt::format("{} does not fit on this machine: {:.1f} GiB needed, {:.1f} GiB free\n", path,
                                gib(plan.memory.total()), gib(plan.available));
  out += plan_text(plan, config, model, backend, measured);
  out += "\nwhat fits here\n";
  const std::vector<std::string> settings = settings_that_fit(config, model, backend);
  for (const std::string& s : settings) out += fmt::format("  ./dapo_train {} {}\n", path, s);
  if (settings.empty())
    out += fmt::format("  {}: no setting makes it fit; weights, gradients and optimizer alone take {:.1f} GiB\n",
                       config.model.path,
                       gib(plan.memory.weights + plan.memory.state + plan.memory.bytes_of("gradients")));
  for (const char* name : {"gsm8k.cfg", "demo.cfg"}) {
    const fs::path other = fs::path(path).parent_path() / name;
    if (!fs::exists(other) || fs::path(path).filename() == name) continue;
    try {
      Config c = load_config(other.string(), {});
      const ModelConfig m = find_model(c.model.path).config;
      const RunPlan p = make_plan(c, m, backend);
      if (p.fits())
        out += fmt::format("  ./dapo_train {:<20} {} in {:.1f} GiB\n", other.string(), c.model.path,
                           gib(p.memory.total()));
    } catch (const Error&) {  // a config whose model is not downloaded yet is not a candidate
    }
  }
  out += "  make demo                         cold start and DAPO of a 0.8 M parameter model in about 2 minutes\n";
  out += "\ncards that would hold it (--plan --for 8xh100 shows the rest)\n" + cards_that_fit_text(config, model);
  return out;
}

}  // namespace dapo
