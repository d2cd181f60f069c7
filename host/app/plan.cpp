#include "host/app/plan.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "core/check.h"
#include "core/sizes.h"
#include "data/dataset.h"
#include "host/app/save.h"
#include "host/app/session.h"
#include "host/app/terminal.h"
#include "host/train/eval_sets.h"
#include "host/train/step_text.h"
#include "host/train/trainer.h"

namespace dapo {
namespace fs = std::filesystem;
namespace {

/// The command that downloads a model of this name.
std::string how_to_get(const std::string& model) {
  std::string name = fs::path(model).filename().string();
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char ch) { return std::tolower(ch); });
  return "data/download.sh " + name;
}

}  // namespace

RunPlan make_plan(Config& config, const ModelConfig& model, const Backend& backend) {
  RunPlan plan;
  plan.available = backend.memory_available();
  plan.total = backend.memory_total();
  for (int attempt = 0; attempt < 2; ++attempt) {
    plan.limits = training_limits(config, model, backend);
    plan.memory = plan_memory(backend, model, plan.limits);
    const double rest = static_cast<double>(plan.memory.weights + plan.memory.state + plan.memory.workspace);
    const double pages = static_cast<double>(plan.available) * 0.95 - rest;
    if (plan.fits() || pages <= 0) break;
    config.rollout.kv_memory_gb = std::max(pages / 1e9, least_kv_gb(config, model, backend));
  }
  return plan;
}

double step_flops(const Config& config, const ModelConfig& model, int prompt, int response) {
  const double groups = config.data.train_batch_size, responses = groups * config.rollout.n;
  const double p = prompt, r = response;
  const double pairs = groups * p * (p + 1) / 2 + responses * (r * p + r * (r + 1) / 2);
  const double forward = model.forward_flops(groups * p + responses * r, pairs, responses * r);
  const double update = config.actor.ppo_epochs * (config.model.recompute ? 4.0 : 3.0);
  return forward * (1 + update + (config.actor.old_logprobs == OldLogProbs::recompute ? 1 : 0));
}

std::string plan_text(const RunPlan& plan, const Config& config, const ModelConfig& model, const Backend& backend,
                      double flops_per_second) {
  const ModelLimits& l = plan.limits;
  std::string out;
  const auto line = [&]<class... A>(const char* name, fmt::format_string<A...> text, A&&... args) {
    out += fmt::format("  {:<24} {}\n", name, fmt::format(text, std::forward<A>(args)...));
  };
  line("model", "{}: {:.2f} G parameters, {} layers, {}", config.model.path,
       static_cast<double>(model.parameters()) / 1e9, model.layers, dtype_name(backend.dtype()));
  line("weights", "{:9.2f} GiB", gib(plan.memory.weights));
  line("gradients, optimizer", "{:9.2f} GiB", gib(plan.memory.state));
  line("rollout", "{:9.2f} GiB  {} sequences at once, {} KV pages of {} tokens", gib(plan.memory.rollout), l.batch,
       l.kv_pages, l.page_size);
  line("update", "{:9.2f} GiB  packs of {} tokens{}; takes turns with rollout", gib(plan.memory.update), l.pack_tokens,
       l.recompute ? ", recomputed" : "");
  line("workspace", "{:9.2f} GiB", gib(plan.memory.workspace));
  line("needs in total", "{:9.2f} GiB", gib(plan.memory.total()));
  line("this machine has", "{:9.2f} GiB free of {:.2f}", gib(plan.available), gib(plan.total));
  const int prompt = std::min(256, config.data.max_prompt_length), longest = config.data.max_response_length;
  const int typical = std::max(1, longest / 4);
  const auto floor = [&](int response) {
    return duration_text(step_flops(config, model, prompt, response) / flops_per_second);
  };
  const double models = config.trainer.save_every > 0 ? config.trainer.total_steps / config.trainer.save_every : 0;
  const double model_gb =
      static_cast<double>(model.parameters()) * static_cast<double>(dtype_size(backend.dtype())) / 1e9;
  // text and ids take some 10 bytes per token, verdict and field names 500 per response
  const double row = 500 + 10.0 * (prompt + typical);
  const double rollout_gb = config.trainer.log_rollouts ? row * config.data.train_batch_size * config.rollout.n *
                                                              config.trainer.total_steps / 1e9
                                                        : 0;
  const double all_gb = (models + 1) * model_gb + rollout_gb,
               free_gb = static_cast<double>(free_bytes(config.trainer.run_dir)) / 1e9;
  line("the run writes", "{:9.2f} GB to {}: {} models of {:.3g} GB, rollouts of {:.3g} GB with responses of {} tokens",
       all_gb, config.trainer.run_dir, models + 1, model_gb, rollout_gb, typical);
  line("the disk there has", "{:9.2f} GB free{}", free_gb, all_gb > free_gb ? ": NOT ENOUGH" : "");
  line("a step takes at least", "{} with responses of {} tokens, {} of {} (products alone at {:.0f} GFLOP/s, measured)",
       floor(typical), typical, floor(longest), longest, flops_per_second / 1e9);
  return out;
}

std::vector<std::string> missing_inputs(const Config& config) {
  std::vector<std::string> out;
  std::error_code ignored;
  if (!fs::exists(config.model.path, ignored))
    out.push_back(fmt::format("{} ({})", config.model.path, how_to_get(config.model.path)));
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
                           const Backend& backend, double flops_per_second) {
  std::string out = fmt::format("{} does not fit on this machine: {:.1f} GiB needed, {:.1f} GiB free\n", path,
                                gib(plan.memory.total()), gib(plan.available));
  out += plan_text(plan, config, model, backend, flops_per_second);
  out += "\nwhat fits here\n";
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
  out += fmt::format("\nit needs one device with {:.0f} GiB: this version does not yet spread a model over several\n",
                     gib(plan.memory.total()));
  return out;
}

}  // namespace dapo
