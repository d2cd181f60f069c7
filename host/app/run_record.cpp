#include "host/app/run_record.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/check.h"
#include "data/json_row.h"
#include "data/lines.h"
#include "host/app/folders.h"

namespace dapo {
namespace fs = std::filesystem;
namespace dom = simdjson::dom;
namespace {

constexpr size_t kMostText = size_t{4} << 20;  // bytes of a settings file or dapo.json
constexpr size_t kMostRows = 2000;             // rows of a rollout file that are looked at
constexpr size_t kMostBytes = size_t{64} << 20;
constexpr size_t kPrompts = 2;  // of each step

/// The beginning of a file; "" if it cannot be read.
std::string beginning(const fs::path& path, size_t limit) {
  std::ifstream in(path, std::ios::binary);
  std::string text(limit, '\0');
  in.read(text.data(), static_cast<std::streamsize>(limit));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  return text;
}

template <class T>
T value_or(const dom::object& object, const char* key, T absent) {
  T value{};
  return object[key].get(value) == simdjson::SUCCESS ? value : absent;
}
std::string text_or_empty(const dom::object& object, const char* key) {
  return std::string(value_or<std::string_view>(object, key, ""));
}
template <class T, class Number>
std::vector<T> list_of(const dom::object& object, const char* key) {
  std::vector<T> out;
  dom::array list;
  Number number{};
  if (object[key].get(list) != simdjson::SUCCESS) return out;
  for (const dom::element one : list) {
    if (one.get(number) != simdjson::SUCCESS) return {};
    out.push_back(static_cast<T>(number));
  }
  return out;
}

RolloutRow row_of(const dom::object& o) {
  const auto number = [&](const char* key) { return value_or<double>(o, key, std::nan("")); };
  RolloutRow row{.id = text_or_empty(o, "id"),
                 .prompt = text_or_empty(o, "prompt"),
                 .response = text_or_empty(o, "response"),
                 .ground_truth = text_or_empty(o, "ground_truth"),
                 .pred = text_or_empty(o, "pred"),
                 .reason = text_or_empty(o, "reason"),
                 .finish = text_or_empty(o, "finish_reason"),
                 .acc = value_or(o, "acc", false),
                 .kept = value_or(o, "kept", false),
                 .reward = number("score"),
                 .shaped = number("shaped"),
                 .advantage = number("advantage"),
                 .tokens = number("tokens"),
                 .ids = list_of<int32_t, int64_t>(o, "ids"),
                 .log_probs = list_of<float, double>(o, "log_probs")};
  if (row.log_probs.size() != row.ids.size()) row.log_probs.clear();
  return row;
}

/// Keeps of each prompt the first right and the first wrong response; prompts with both come first.
class Selection {
 public:
  void add(RolloutRow row) {
    if (groups_.empty() || groups_.back().id != row.id || groups_.back().prompt != row.prompt) {
      if (full()) return;
      groups_.push_back({row.id, row.prompt, {}});
    }
    std::vector<RolloutRow>& rows = groups_.back().rows;
    if (std::ranges::none_of(rows, [&](const RolloutRow& r) { return r.acc == row.acc; }))
      rows.push_back(std::move(row));
  }
  bool full() const {
    const auto both = [](const Group& g) { return g.rows.size() > 1; };
    return std::ranges::count_if(groups_, both) >= std::ptrdiff_t{kPrompts};
  }
  std::vector<RolloutRow> take() {
    std::ranges::stable_sort(groups_, std::greater(), [](const Group& g) { return g.rows.size(); });
    std::vector<RolloutRow> out;
    for (size_t i = 0; i < std::min(groups_.size(), kPrompts); ++i)
      for (RolloutRow& r : groups_[i].rows) out.push_back(std::move(r));
    return out;
  }

 private:
  struct Group {
    std::string id, prompt;
    std::vector<RolloutRow> rows;
  };
  std::vector<Group> groups_;
};

StepSamples read_samples(const std::string& path, int64_t step, std::vector<std::string>& notes) {
  Selection selection;
  size_t bad = 0;
  try {
    LineReader lines(path);
    JsonParser parser;
    size_t rows = 0, bytes = 0;
    for (std::string_view line; rows < kMostRows && bytes < kMostBytes && !selection.full() && lines.next(line);
         ++rows) {
      bytes += line.size();
      dom::object object;
      try {
        if (parser.parse(line.data(), line.size(), line.size() + kLinePadding, path).get(object) == simdjson::SUCCESS)
          selection.add(row_of(object));
        else
          ++bad;
      } catch (const Error&) {
        ++bad;
      }
    }
  } catch (const Error& e) {
    notes.push_back(e.what());
  }
  if (bad > 0) notes.push_back(fmt::format("{}: {} lines are no responses", path, bad));
  return {step, selection.take()};
}

/// Steps that have a file of rollouts, in order.
std::vector<int64_t> rollout_steps(const std::string& folder) {
  std::vector<int64_t> steps;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder + "/rollouts", none)) {
    const std::string name = entry.path().filename().string();
    int64_t step = 0;
    char rest[8] = "";
    if (entry.is_regular_file(none) && std::sscanf(name.c_str(), "step_%9ld%7s", &step, rest) == 2 &&
        rest == std::string_view(".jsonl"))
      steps.push_back(step);
  }
  std::ranges::sort(steps);
  return steps;
}

/// A string of the settings file without its quotes.
std::string unquoted(const std::string& value) {
  const bool quoted = value.size() >= 2 && value.front() == '"' && value.back() == '"';
  return quoted ? value.substr(1, value.size() - 2) : value;
}

std::unique_ptr<const Tokenizer> find_tokenizer(const RunRecord& run) {
  for (const std::string& folder : {run.path + "/model", run.path, unquoted(run.value("model.path"))}) try {
      std::error_code none;
      if (!folder.empty() && fs::is_directory(folder, none)) return Tokenizer::load(folder);
    } catch (const Error&) {  // the next one
    }
  return nullptr;
}

}  // namespace

RunOrigin read_origin(const std::string& folder) {
  const nlohmann::json json =
      nlohmann::json::parse(beginning(fs::path(folder) / kFolderMark, kMostText), nullptr, false);
  RunOrigin origin;
  if (!json.is_object()) return origin;
  for (const auto& [name, to] : {std::pair{"program", &origin.program},
                                 {"version", &origin.version},
                                 {"started", &origin.started},
                                 {"device", &origin.device},
                                 {"host", &origin.host},
                                 {"plan", &origin.plan}})
    if (json.contains(name) && json[name].is_string()) *to = json[name].get<std::string>();
  if (json.contains("product_gflops") && json["product_gflops"].is_number())
    origin.product_gflops = json["product_gflops"].get<double>();
  return origin;
}

std::vector<std::pair<std::string, std::string>> setting_lines(const std::string& text) {
  std::vector<std::pair<std::string, std::string>> out;
  std::string section;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t equals = line.find(" = ");
    if (line.starts_with('[') && line.ends_with(']'))
      section = line.substr(1, line.size() - 2);
    else if (equals != line.npos && !line.starts_with('#'))
      out.emplace_back(section + "." + line.substr(0, equals), line.substr(equals + 3));
  }
  return out;
}

bool runs_here(const std::string& folder) {
  const int fd = open((folder + "/" + kFolderMark).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool held = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  close(fd);
  return held;
}

std::string RunRecord::value(std::string_view key) const {
  const auto at = std::ranges::find(values, key, [](const auto& v) { return std::string_view(v.first); });
  return at == values.end() ? "" : at->second;
}

int64_t RunRecord::total_steps() const {
  const std::string key =
      log.find("reward/mean") == nullptr && log.find("loss") != nullptr ? "sft.steps" : "trainer.total_steps";
  return std::max<int64_t>(0, std::strtoll(value(key).c_str(), nullptr, 10));
}

RunRecord read_run(const std::string& given, int steps) {
  RunRecord run;
  run.path = without_slash(given);
  run.label = fs::path(run.path).filename().string();
  std::error_code none;
  if (!fs::is_regular_file(run.path + "/metrics.jsonl", none))
    fail_input("{}: has no metrics.jsonl; name the folder of a run (trainer.run_dir or sft.out)", given);
  run.log = MetricsLog::read(run.path + "/metrics.jsonl");
  if (run.log.unreadable() > 0)
    run.notes.push_back(fmt::format("{}/metrics.jsonl: {} lines are damaged or incomplete and left out", run.path,
                                    run.log.unreadable()));
  run.settings = beginning(run.path + "/config.resolved.cfg", kMostText);
  run.values = setting_lines(run.settings);
  run.origin = read_origin(run.path);
  const std::vector<int64_t> there = rollout_steps(run.path);
  std::vector<int64_t> chosen;
  for (int i = 0; i < steps && !there.empty(); ++i)
    chosen.push_back(steps == 1 ? there.back()
                                : there[(there.size() - 1) * static_cast<size_t>(i) / static_cast<size_t>(steps - 1)]);
  chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  for (const int64_t step : chosen)
    run.samples.push_back(read_samples(fmt::format("{}/rollouts/step_{}.jsonl", run.path, step), step, run.notes));
  if (!chosen.empty()) run.tokenizer = find_tokenizer(run);
  return run;
}

}  // namespace dapo
