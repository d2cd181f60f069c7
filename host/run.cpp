#include "host/run.h"

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/check.h"
#include "host/session.h"

namespace dapo {
namespace fs = std::filesystem;

RunFolder::RunFolder(const Config& config, bool overwrite)
    : path_(config.trainer.run_dir), tokenizer_from_(config.model.path) {
  const std::string metrics = path_ + "/metrics.jsonl";
  std::error_code error;
  if (!overwrite && fs::exists(metrics, error))
    fail_input("{}: already holds a run; choose another folder with --set trainer.run_dir=..., or give --overwrite",
               path_);
  fs::remove_all(path_ + "/rollouts", error);
  fs::create_directories(path_ + "/rollouts", error);
  if (error) fail(kExitResources, "{}: cannot be made: {}", path_, error.message());
  LineWriter resolved(path_ + "/config.resolved.cfg");
  resolved.line(config_text(config));
  resolved.commit();
  metrics_ = std::fopen(metrics.c_str(), "wb");
  if (metrics_ == nullptr) fail(kExitResources, "{}: cannot be written: {}", metrics, std::strerror(errno));
}

RunFolder::~RunFolder() {
  if (metrics_ != nullptr) std::fclose(metrics_);
}

void RunFolder::metrics(int64_t step, const StepMetrics* m, const EvalResult* e) {
  JsonLine line;
  line.add("step", step);
  if (m != nullptr) {
    for (const auto& [name, value] : m->fields())
      if (std::string_view(name) != "step") line.add(name, value);
    line.add("alarms", m->alarms);
  }
  if (e != nullptr)
    for (const auto& [name, value] : e->fields()) line.add(name, value);
  const std::string text = line.str() + "\n";
  if (std::fwrite(text.data(), 1, text.size(), metrics_) != text.size() || std::fflush(metrics_) != 0)
    fail(kExitResources, "{}/metrics.jsonl: cannot be written: {}", path_, std::strerror(errno));
}

void RunFolder::rollouts(int64_t step, const std::vector<SampleGroup>& groups, const Tokenizer& tokenizer,
                         const Dataset& data) {
  LineWriter out(fmt::format("{}/rollouts/step_{}.jsonl", path_, step));
  for (const SampleGroup& g : groups) {
    const Example& example = data[static_cast<size_t>(g.row)];
    const std::string prompt = tokenizer.decode(g.prompt, false);
    for (const Sample& s : g.samples)
      out.line(JsonLine()
                   .add("id", example.id)
                   .add("drawn_at", int64_t{g.step})
                   .add("prompt", prompt)
                   .add("response", tokenizer.decode(s.response.ids))
                   .add("ground_truth", example.answer)
                   .add("pred", s.verdict.pred)
                   .add("acc", s.verdict.acc)
                   .add("reason", s.verdict.reason)
                   .add("score", s.reward)
                   .add("shaped", s.shaped)
                   .add("advantage", s.advantage)
                   .add("tokens", static_cast<int64_t>(s.response.ids.size()))
                   .add("finish_reason", finish_name(s.response.finish))
                   .str());
  }
  out.commit();
}

std::string RunFolder::save_model(Model& model, int64_t step, bool last) {
  const std::string to = last ? path_ + "/model" : fmt::format("{}/models/step_{}", path_, step);
  save_model_folder(model, tokenizer_from_, to);
  return to;
}

}  // namespace dapo
