#include "host/app/run_folder.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "host/app/response_lines.h"
#include "host/app/session.h"

namespace dapo {
namespace fs = std::filesystem;

void RunFolder::check(const Config& config, Overwrite overwrite) {
  const std::string& path = config.trainer.run_dir;
  std::error_code error;
  if (!fs::exists(path, error)) return;
  if (!fs::is_directory(path, error))
    fail_input("{}: a file of that name exists; set trainer.run_dir to a folder", path);
  if (fs::is_empty(path, error)) return;
  if (!is_our_folder(path))
    fail_input(
        "{}: exists, and holds no run of this program (no {}), so it is left alone; name a new folder with --set "
        "trainer.run_dir=...",
        path, kFolderMark);
  const FolderLock probe(path);
  if (overwrite == Overwrite::no)
    fail_input("{}: already holds a run; choose another folder with --set trainer.run_dir=..., or give --overwrite",
               path);
  const auto in_the_way = [&](const char* name) {
    fail_input("{}/{}: in the way, and not written by this program; move it", path, name);
  };
  for (const char* name : {"metrics.jsonl", "config.resolved.cfg", "log.txt"})
    if (fs::exists(path + "/" + name, error) && !fs::is_regular_file(path + "/" + name, error)) in_the_way(name);
  for (const char* name : {"rollouts", "eval", "models"})
    if (fs::exists(path + "/" + name, error) && !fs::is_directory(path + "/" + name, error)) in_the_way(name);
  check_replaceable(path + "/model", Overwrite::yes);
}

namespace {
/// "step_12.jsonl": a name that rollouts() and evaluation() write.
bool is_rollout_name(const std::string& name) {
  const size_t digits = name.find_first_not_of("0123456789", 5);
  return name.starts_with("step_") && digits != 5 && name.substr(std::min(digits, name.size())) == ".jsonl";
}
}  // namespace

RunFolder::RunFolder(const Config& config, Overwrite overwrite, const std::string& about, Progress& progress)
    : path_(config.trainer.run_dir), tokenizer_from_(config.model.path), about_(about), progress_(progress) {
  check(config, overwrite);
  std::error_code error;
  for (const char* folder : {"/rollouts", "/eval"})
    if (!error) fs::create_directories(path_ + folder, error);
  if (error) fail(kExitResources, "{}: cannot be made: {}", path_, error.message());
  lock_ = std::make_unique<FolderLock>(path_);
  lock_->write(about);
  for (const char* folder : {"/rollouts", "/eval"})
    for (const auto& entry : fs::directory_iterator(path_ + folder, error))
      if (entry.is_regular_file(error) && is_rollout_name(entry.path().filename().string()))
        fs::remove(entry.path(), error);
  LineWriter resolved(path_ + "/config.resolved.cfg");
  resolved.line(config_text(config));
  resolved.commit();
  metrics_ = AppendFile(path_ + "/metrics.jsonl");
}

void RunFolder::metrics(int64_t step, const StepMetrics* m, const EvalResult* e) {
  JsonLine line;
  line.add("step", step);
  if (m != nullptr) {
    for (const auto& [name, value] : m->fields())
      if (name != "step") line.add(name, value);
    line.add("alarms", m->alarms);
  }
  if (e != nullptr)
    for (const auto& [name, value] : e->fields()) line.add(name, value);
  const bool written = metrics_.append(line.str() + "\n");
  if (!written && !behind_)
    progress_.note(fmt::format("{}: {}; its lines are kept and tried again after every step", metrics_.path(),
                               std::strerror(errno))
                       .c_str());
  if (written && behind_) progress_.note(fmt::format("{} is complete again", metrics_.path()).c_str());
  behind_ = !written;
}

void RunFolder::finish() {
  if (!metrics_.complete()) fail(kExitResources, "{}: is not complete: {}", metrics_.path(), std::strerror(errno));
}

void RunFolder::rollouts(int64_t step, const Trainer& trainer, const Tokenizer& tokenizer, const Dataset& data) try {
  LineWriter out(fmt::format("{}/rollouts/step_{}.jsonl", path_, step));
  const auto write = [&](const Group& g, bool kept, bool trained) {
    const Example& example = data[g.example];
    const std::string prompt = tokenizer.decode(g.prompt, false);
    for (const Sample& s : g.samples)
      out.line(add_verdict(JsonLine()
                               .add("id", example.id)
                               .add("drawn_at", int64_t{g.step})
                               .add("kept", kept)
                               .add("prompt", prompt)
                               .add("response", tokenizer.decode(s.response.shown()))
                               .add("ground_truth", example.answer)
                               .add("acc", s.verdict.acc),
                           s.verdict)
                   .add("score", s.reward)
                   .add("shaped", s.shaped)
                   .add("advantage", trained ? s.advantage : std::nan(""))
                   .add("tokens", std::ssize(s.response.ids))
                   .add("finish_reason", finish_name(s.response.finish))
                   .add("prompt_ids", g.prompt)
                   .add("ids", s.response.ids)
                   .str());
  };
  for (const Group& g : trainer.trained()) write(g, true, true);
  for (const Group& g : trainer.state().bank)
    if (g.step == step) write(g, true, false);
  for (const Group& g : trainer.left_out()) write(g, false, false);
  out.commit();
} catch (const Error& e) {
  if (e.code() != kExitResources && e.code() != kExitUsage) throw;
  progress_.note(fmt::format("the rollouts of step {} are lost: {}", step, e.what()).c_str());
}

void RunFolder::evaluation(int64_t step, const EvalResult& result, const Tokenizer& tokenizer) try {
  LineWriter out(fmt::format("{}/eval/step_{}.jsonl", path_, step));
  write_responses(out, result, tokenizer);
  out.commit();
} catch (const Error& e) {
  if (e.code() != kExitResources && e.code() != kExitUsage) throw;
  progress_.note(fmt::format("the responses of the evaluation after step {} are lost: {}", step, e.what()).c_str());
}

std::string RunFolder::save_model(const Weights& weights, int64_t step, bool last) {
  const std::string to = last ? path_ + "/model" : fmt::format("{}/models/step_{}", path_, step);
  FreshFolder fresh(to, Overwrite::yes);
  write_model_folder(weights, tokenizer_from_, fresh.path());
  nlohmann::ordered_json about = nlohmann::ordered_json::parse(about_);
  about["step"] = step;
  return fresh.publish(about.dump());
}

}  // namespace dapo
