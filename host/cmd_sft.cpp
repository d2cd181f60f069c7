#include <fmt/format.h>

#include <algorithm>

#include "core/check.h"
#include "host/commands.h"
#include "host/interrupt.h"
#include "host/progress.h"
#include "host/session.h"
#include "host/sft.h"

namespace dapo {

int run_sft_command(const SftOptions& o) {
  const Config config = load_config(o.config, o.settings, Use::sft);
  ChosenBackend chosen = make_backend(config.model.device, config.model.dtype, config.model.threads);
  DatasetOptions options;
  options.prompt_key = config.data.prompt_key;
  options.response_key = config.data.response_key;
  options.need_response = true;
  const Dataset data = Dataset::load(config.sft.files, options);
  Session s = open_session(config.model.path, std::move(chosen), Weights::maybe, config.trainer.seed,
                           static_cast<float>(config.sft.init_std));
  TerminalProgress progress(config.sft.steps);
  progress.line(fmt::format("{}\n{}: {:.2f} M parameters{}; {} rows", s.device, config.model.path,
                            static_cast<double>(s.model->config().parameters()) / 1e6,
                            has_weights(config.model.path) ? "" : ", started at random", data.size()));
  check_model_folder(config.sft.out);
  catch_interrupts();
  const int64_t every = std::max(1, config.sft.steps / 10);
  struct Stop {};
  try {
    run_sft(config, *s.model, *s.tokenizer, data, progress, [&](const SftMetrics& m) {
      progress.step(m.step + 1);
      if (m.step % every == 0 || m.step == 1 || m.step == config.sft.steps)
        progress.line(sft_text(m, config.sft.steps));
      if (interrupted()) throw Stop();
    });
  } catch (const Stop&) {
    progress.line("interrupted: saving what there is");
  } catch (const Error& e) {
    if (e.code() != kExitNumerics) throw;
    const std::string beside = without_slash(config.sft.out) + ".failed";
    save_model_folder(*s.model, config.model.path, beside);
    fail(e.code(), "{}; the weights before them are in {}", e.what(), beside);
  }
  save_model_folder(*s.model, config.model.path, config.sft.out);
  progress.line(fmt::format("saved {}", config.sft.out));
  return interrupted() ? kExitInterrupted : kExitOk;
}

}  // namespace dapo
