#include "host/app/run_folder.h"

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/new_file.h"
#include "host/app/checkpoint.h"
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
  for (const char* name : {"rollouts", "eval", "models", "tensorboard"})
    if (fs::exists(path + "/" + name, error) && !fs::is_directory(path + "/" + name, error)) in_the_way(name);
  check_replaceable(path + "/model", Overwrite::yes);
}

namespace {
constexpr int64_t kForeign = RunFolder::kNothing - 1;

/// 12 for "step_12.jsonl", a name that rollouts() and evaluation() write; kForeign for any other.
int64_t step_of(const std::string& name) {
  int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [p, error] = std::from_chars(name.data() + std::min<size_t>(name.size(), 5), end, step);
  return name.starts_with("step_") && error == std::errc() && std::string_view(p, end) == ".jsonl" ? step : kForeign;
}

/// Drops the lines of metrics.jsonl after step `after`, and one that a crash cut off.
void cut_metrics(const std::string& path, int64_t after) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return;
  NewFile fresh(path);
  for (std::string line; std::getline(in, line);) {
    const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || json.value("step", after + 1) > after) continue;
    line += '\n';
    fresh.write(line.data(), line.size());
  }
  fresh.commit();
}

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// To three decimals, which is enough to look at and half as long in the file.
std::vector<float> rounded(const std::vector<float>& log_probs) {
  std::vector<float> out;
  out.reserve(log_probs.size());
  for (const float x : log_probs) out.push_back(std::round(x * 1000) / 1000 + 0.0f);  // + 0: no "-0"
  return out;
}
}  // namespace

RunFolder::RunFolder(const Config& config, int64_t after, bool unwritten, const std::string& about, Progress& progress)
    : path_(config.trainer.run_dir), tokenizer_from_(config.model.path), about_(about), progress_(progress) {
  check(config, Overwrite::yes);  // the caller has decided (host/app/resume.h); the folder must still be ours
  make_folders(path_);
  lock_ = std::make_unique<FolderLock>(path_);  // first of all, so that after a crash the folder is known for ours
  lock_->write(about);
  for (const char* folder : {"/rollouts", "/eval", "/tensorboard"}) make_folders(path_ + folder);
  std::error_code error;
  for (const char* folder : {"/rollouts", "/eval"})
    for (const auto& entry : fs::directory_iterator(path_ + folder, error))
      if (entry.is_regular_file(error) && step_of(entry.path().filename().string()) > after)
        fs::remove(entry.path(), error);
  if (after == kNothing) {
    for (const Checkpoint& c : checkpoints_of(path_)) remove_listed(c.folder);
    fs::remove(path_ + "/checkpoints/best", error);
  }
  LineWriter resolved(path_ + "/config.resolved.cfg");
  resolved.line(config_text(config));
  resolved.commit();
  if (after != kNothing) cut_metrics(path_ + "/metrics.jsonl", after - unwritten);
  metrics_ = AppendFile(path_ + "/metrics.jsonl", after == kNothing ? AppendFile::empty : AppendFile::end);
  if (after == kNothing) EventFile::remove_all(path_ + "/tensorboard");
  events_ = EventFile(path_ + "/tensorboard", seconds_since_1970(), after == kNothing ? 0 : after - unwritten + 1);
}

void RunFolder::metrics(int64_t step, const StepMetrics* m, const EvalResult* e) {
  Fields fields;
  if (m != nullptr) fields = m->fields();
  std::erase_if(fields, [](const auto& field) { return field.first == "step"; });
  const Fields eval = e != nullptr ? e->fields() : Fields();
  JsonLine line;
  line.add("step", step);
  for (const auto& [name, value] : fields) line.add(name, value);
  if (m != nullptr) line.add("alarms", m->alarms);
  for (const auto& [name, value] : eval) line.add(name, value);
  fields.insert(fields.end(), eval.begin(), eval.end());
  events_.scalars(step, seconds_since_1970(), fields);
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
  if (!events_.complete()) fail(kExitResources, "{}: is not complete: {}", events_.path(), std::strerror(errno));
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
                               .add("visits", trainer.state().prompts[g.example].visits)
                               .add("solve_rate", trainer.state().prompts[g.example].solve_rate())
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
                   .add("log_probs", rounded(s.response.log_prob))
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

std::string RunFolder::save_model(const Weights& weights, Comm& tensor, int64_t step, bool last) {
  const std::string to = last ? path_ + "/model" : fmt::format("{}/models/step_{}", path_, step);
  FreshFolder fresh(to, Overwrite::yes);
  write_model_folder(weights, tokenizer_from_, fresh.path(), &tensor);
  nlohmann::ordered_json about = nlohmann::ordered_json::parse(about_);
  about["step"] = step;
  return fresh.publish(about.dump());
}

}  // namespace dapo
