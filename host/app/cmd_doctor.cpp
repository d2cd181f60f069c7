#include <algorithm>
#include <filesystem>
#include <optional>

#include "core/check.h"
#include "core/files.h"
#include "core/json.h"
#include "core/sizes.h"
#include "host/app/backends.h"
#include "host/app/commands.h"
#include "host/app/doctor.h"
#include "host/app/plan.h"
#include "host/app/session.h"
#include "host/app/streams.h"
#include "host/app/unmet.h"
#include "host/train/limits.h"
#include "host/train/prompts.h"

namespace dapo {
namespace fs = std::filesystem;
namespace {

bool is_config(const std::string& path) {
  return path.ends_with(".cfg") || path.ends_with(".toml");
}

/// A folder that holds a model, or what was meant to be one.
bool is_model(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) return false;
  for (const auto& entry : fs::directory_iterator(path, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name == "config.json" || name == "adapter_config.json" || name == "tokenizer.json" ||
        name.ends_with(".safetensors"))
      return true;
  }
  return false;
}

class Report {
 public:
  void add(const Diagnosis& d) {
    print_out(d.text());
    errors_ += d.count(Severity::error), warnings_ += d.count(Severity::warning);
  }
  int finish() const {
    print_out(fmt::format("{} error{}, {} warning{}\n", errors_, errors_ == 1 ? "" : "s", warnings_,
                          warnings_ == 1 ? "" : "s"));
    return errors_ > 0 ? kExitUsage : kExitOk;
  }

 private:
  size_t errors_ = 0, warnings_ = 0;
};

/// Whether every file exists; if not, check_run() has named the one that does not.
bool all_here(const std::vector<std::string>& paths) {
  std::error_code ignored;
  try {
    for (const std::string& path : paths)
      for (const std::string& file : data_files(path))
        if (!fs::exists(file, ignored)) return false;
  } catch (const Error&) {
    return false;
  }
  return true;
}

/// Rows, or a finding why they cannot be read.
std::optional<Dataset> read_rows_of(Report& report, const std::string& name, const std::vector<std::string>& files,
                                    const DatasetOptions& options) {
  try {
    return Dataset::load(files, options);
  } catch (const Error& e) {
    Diagnosis d{.subject = name};
    d.add(Severity::error, "docs/data.md shows a row of every layout", "{}", e.what());
    report.add(d);
    return std::nullopt;
  }
}

DatasetOptions response_options(const DataSection& data) {
  DatasetOptions options;
  options.prompt_key = data.prompt_key;
  options.response_key = data.response_key;
  options.need_response = true;
  return options;
}

/// Whether the run fits this machine, and the settings that will not do what they say.
void check_run(Report& report, const std::string& path, const Config& config) {
  Diagnosis d{.subject = "run " + path};
  try {
    for (const std::string& missing : missing_inputs(config)) d.add(Severity::error, "", "not here: {}", missing);
    const ModelConfig model = find_model(config.model.path).config;
    check_positions(model, config.model.path, config.data.max_prompt_length, config.data.max_response_length);
    const ChosenBackend chosen = make_backend(config.model.device, config.model.dtype, config.model.threads);
    Config fitted = config;
    const RunPlan plan = make_plan(fitted, model, *chosen.backend);
    const auto settings = plan.fits() ? std::vector<std::string>() : settings_that_fit(config, model, *chosen.backend);
    d.add(plan.fits() ? Severity::ok : Severity::error,
          plan.fits() ? ""
          : settings.empty()
              ? fmt::format("no setting makes it fit; ./dapo_train {} --plan shows cards that would", path)
              : settings[0],
          "memory: {:.2f} GiB needed, {:.2f} GiB free", gib(plan.memory.total()), gib(plan.available));
    for (const std::string& text :
         unmet_settings(config, fitted, kv_gb(plan.limits, model, *chosen.backend), *chosen.backend))
      d.add(Severity::note, "", "{}", text);
  } catch (const Error& e) {
    d.add(Severity::error, "", "{}", e.what());
  }
  report.add(d);
}

/// Returns the config, so that the machine is looked at as it says; nullopt if it cannot be read.
std::optional<Config> check_config_file(Report& report, const std::string& path, const DoctorOptions& o) {
  Config config;
  Use use = Use::train;
  try {
    if (read_text_file(path).find("\n[sft]") != std::string::npos) use = Use::sft;
    config = load_config(path, o.settings, use);
  } catch (const Error& e) {
    Diagnosis d{.subject = "config " + path};
    d.add(Severity::error, "", "{}", e.what());
    report.add(d);
    return std::nullopt;
  }
  if (use == Use::train) check_run(report, path, config);
  std::unique_ptr<const Tokenizer> tokenizer;
  std::error_code ignored;
  if (fs::exists(config.model.path, ignored) || use == Use::sft)  // else check_run() has said how to get it
    report.add(
        diagnose_model(config.model.path, tokenizer, config.data, use == Use::sft ? Rows::fine_tune : Rows::train));
  if (use == Use::sft) {
    if (const auto rows = read_rows_of(report, "rows to imitate", config.sft.files, response_options(config.data)))
      report.add(diagnose_rows("rows to imitate", *rows, Rows::fine_tune, config, tokenizer.get(), true));
    return config;
  }
  DatasetOptions options = question_options(config.data);
  options.unique = config.data.unique;
  std::optional<Dataset> train, test;
  if (all_here(config.data.train_files))
    train = read_rows_of(report, "training rows", config.data.train_files, options);
  if (train) report.add(diagnose_rows("training rows", *train, Rows::train, config, tokenizer.get(), true));
  options.unique = false;
  if (!config.data.val_files.empty() && all_here(config.data.val_files))
    test = read_rows_of(report, "test rows", config.data.val_files, options);
  if (!test) return config;
  Diagnosis d = diagnose_rows("test rows", *test, Rows::test, config, tokenizer.get(), true);
  if (train) d.findings.push_back(common_problems(*train, *test));
  report.add(d);
  return config;
}

/// A dataset by itself: with answers if it has them, else with responses.
void check_data(Report& report, const std::string& path, const Config& config, const Tokenizer* tokenizer,
                bool verifier_chosen) {
  const std::string name = "rows of " + path;
  try {
    const Dataset rows = Dataset::load(path, response_options(config.data));
    const bool judged = std::ranges::any_of(rows, [](const Example& e) { return !e.answer.empty(); });
    if (!judged) return report.add(diagnose_rows(name, rows, Rows::fine_tune, config, tokenizer, verifier_chosen));
  } catch (const Error&) {  // no responses: rows with answers, or read_rows_of says what is wrong
  }
  const auto rows = read_rows_of(report, name, {path}, question_options(config.data));
  if (rows) report.add(diagnose_rows(name, *rows, Rows::train, config, tokenizer, verifier_chosen));
}

}  // namespace

int run_doctor_command(const DoctorOptions& o) {
  Config config;
  config.data.train_batch_size = 1;  // of no run: rows by themselves are not compared with it
  apply_settings(config, o.settings);
  const bool chosen =
      std::ranges::any_of(o.settings, [](const std::string& s) { return s.starts_with("reward.verifier"); });
  Report report;
  std::unique_ptr<const Tokenizer> tokenizer;
  std::optional<Config> from_file;
  for (const std::string& path : o.inputs)  // models first: the rows are counted in their tokens
    if (!is_config(path) && is_model(path)) {
      config.model.path = path;
      report.add(diagnose_model(path, tokenizer, config.data, Rows::test));
    }
  for (const std::string& path : o.inputs)
    if (is_config(path))
      from_file = check_config_file(report, path, o);
    else if (!is_model(path))
      check_data(report, path, config, tokenizer.get(), chosen);
  if (o.inputs.empty() || from_file) report.add(diagnose_machine(from_file ? *from_file : config));
  return report.finish();
}

}  // namespace dapo
