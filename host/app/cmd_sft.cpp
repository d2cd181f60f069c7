#include <fmt/format.h>

#include <algorithm>

#include "core/check.h"
#include "host/app/commands.h"
#include "host/app/folders.h"
#include "host/app/interrupt.h"
#include "host/app/json_lines.h"
#include "host/app/provenance.h"
#include "host/app/save.h"
#include "host/app/session.h"
#include "host/app/terminal.h"
#include "host/train/sft.h"
#include "host/train/step_text.h"

namespace dapo {
namespace {

std::string metrics_line(const SftMetrics& m) {
  JsonLine line;
  for (const auto& [name, value] : m.fields()) line.add(name, value);
  return line.str() + "\n";
}

}  // namespace

int run_sft_command(const SftOptions& o) {
  const Config config = load_config(o.config, o.settings, Use::sft);
  const Overwrite overwrite = o.overwrite ? Overwrite::yes : Overwrite::no;
  check_replaceable(config.sft.out, overwrite);
  ChosenBackend chosen = make_backend(config.model.device, config.model.dtype, config.model.threads);
  DatasetOptions options;
  options.prompt_key = config.data.prompt_key;
  options.response_key = config.data.response_key;
  options.need_response = true;
  const Dataset data = Dataset::load(config.sft.files, options);
  Session s = open_session(config.model.path, std::move(chosen), Start::folder_or_random, config.trainer.seed,
                           static_cast<float>(config.sft.init_std));
  TerminalProgress progress(config.sft.steps, !o.check);
  progress.line(fmt::format("{}\n{}: {:.2f} M parameters{}; {} rows", s.device, config.model.path,
                            static_cast<double>(s.weights->config().parameters()) / 1e6,
                            has_weights(config.model.path) ? "" : ", started at random", data.size()));
  if (config.sft.lr_warmup_steps > config.sft.steps)
    progress.note(fmt::format("sft.lr_warmup_steps = {} is more than sft.steps = {}: sft.lr = {:g} is never reached",
                              config.sft.lr_warmup_steps, config.sft.steps, config.sft.lr)
                      .c_str());
  if (o.check) {
    progress.line(check_sft(config, *s.weights, *s.tokenizer, data, progress));
    progress.line("everything loads; nothing was trained (--check)");
    return kExitOk;
  }
  FreshFolder fresh(config.sft.out, overwrite);
  const std::string about = provenance("dapo sft", s.device, config.model.path, config.sft.files);
  progress.log_to(fresh.path() + "/log.txt");
  progress.log(provenance_text(about));
  AppendFile metrics(fresh.path() + "/metrics.jsonl");
  const auto save = [&](const std::string& to) {
    return save_patiently(fresh.path(), *s.weights, progress, *s.tensor, [&] {
      write_model_folder(*s.weights, config.model.path, fresh.path());
      metrics.complete();
      return fresh.publish(about, to);
    });
  };

  catch_interrupts();
  progress.on_report = [](Phase) {
    if (interrupted()) throw Interrupted("");
  };
  const int64_t every = std::max(1, config.sft.steps / 10);
  int64_t done = 0;
  try {
    progress.step(1);
    run_sft(config, *s.weights, *s.tokenizer, data, progress, [&](const SftMetrics& m) {
      done = m.step;
      progress.step(m.step + 1);
      metrics.append(metrics_line(m));
      if (m.step % every == 0 || m.step == 1 || m.step == config.sft.steps)
        progress.line(fmt::format("{}  {}", sft_text(m.fields(), config.sft.steps), left_text(progress.left())));
    });
  } catch (const Interrupted&) {
    if (done == 0) throw Interrupted("interrupted in the first step: nothing was trained, nothing is saved");
    progress.line(fmt::format("interrupted after step {}", done));
  } catch (const Error& e) {
    if (e.code() != kExitNumerics) throw;
    progress.log(e.what());
    fail(e.code(), "{}; the weights before them are in {}", e.what(), save(without_slash(config.sft.out) + ".failed"));
  }
  progress.line(fmt::format("saved {}", save("")));
  if (!metrics.complete()) fail(kExitResources, "{}: is not complete", metrics.path());
  return interrupted() ? kExitInterrupted : kExitOk;
}

}  // namespace dapo
