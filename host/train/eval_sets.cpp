#include "host/train/eval_sets.h"

#include <algorithm>
#include <filesystem>

#include "core/check.h"
#include "core/choices.h"
#include "host/train/prompts.h"

namespace dapo {
namespace fs = std::filesystem;
namespace {

// As data/download.sh names them; a test compares.
constexpr KnownSet kKnown[] = {
    {"aime-2024", "datasets/aime-2024.parquet"},
    {"aime-2025", "datasets/aime-2025-I.jsonl|datasets/aime-2025-II.jsonl"},
    {"amc23", "datasets/amc23.parquet"},
    {"gsm8k", "datasets/gsm8k-test.parquet"},
    {"math-500", "datasets/math-500.jsonl"},
};

/// The known set that `entry` names; nullptr if there is none, or a file of that name.
const KnownSet* known_set(const std::string& entry) {
  std::error_code ignored;
  const auto known = std::ranges::find(kKnown, entry, &KnownSet::name);
  return known == std::end(kKnown) || fs::exists(entry, ignored) ? nullptr : &*known;
}

/// A word for the metrics: "some/test-*.jsonl.gz" is "test".
std::string name_of(const std::string& entry) {
  if (known_set(entry) != nullptr) return entry;
  std::string path = entry;
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  std::string name = fs::path(path).filename().string();
  for (const char* end : {".gz", ".jsonl", ".json", ".parquet"})
    if (name.ends_with(end)) name.resize(name.size() - std::string_view(end).size());
  const auto letter = [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-' || c == '.'; };
  std::replace_if(
      name.begin(), name.end(), [&](char c) { return !letter(c); }, '-');
  while (!name.empty() && (name.back() == '-' || name.back() == '.')) name.pop_back();
  while (!name.empty() && (name.front() == '-' || name.front() == '.')) name.erase(0, 1);
  return name.empty() ? "set" : name;
}

}  // namespace

std::span<const KnownSet> known_sets() {
  return kKnown;
}

std::vector<std::string> set_files(const std::string& entry) {
  const KnownSet* known = known_set(entry);
  if (known == nullptr) return {entry};
  std::vector<std::string> out;
  for (std::string_view rest = known->files; !rest.empty();) {
    const size_t end = std::min(rest.find('|'), rest.size());
    out.emplace_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return out;
}

std::string missing_set(const std::string& entry) {
  std::error_code ignored;
  if (known_set(entry) == nullptr) return "";
  for (const std::string& file : set_files(entry))
    if (!fs::exists(file, ignored))
      return fmt::format("{}: {} is not there; fetch it with data/download.sh {}", entry, file, entry);
  return "";
}

void check_ground_truths(const Dataset& data, const std::string& verifier) {
  if (choice_index("math_dapo|gsm8k|boxed|math", verifier) < 0) return;
  for (size_t i = 0; i < data.size(); ++i)
    if (const std::string& answer = data[i].answer; answer.starts_with("{\"") && answer.ends_with('}'))
      fail_input(
          "row {}: the ground truth is an object, {}, which no response equals for the verifier {}: set "
          "data.answer_key "
          "to the member that is the answer (\"answer.value\"), or reward.verifier to command",
          data[i].id, answer.substr(0, 80), verifier);
}

std::vector<EvalSet> load_eval_sets(const DataSection& data) {
  std::vector<EvalSet> sets;
  for (const std::string& entry : data.val_files) {
    if (const std::string missing = missing_set(entry); !missing.empty()) fail_input("{}", missing);
    std::string name = name_of(entry);
    const auto taken = [&](const std::string& n) { return std::ranges::find(sets, n, &EvalSet::name) != sets.end(); };
    for (int i = 2; taken(name); ++i) name = fmt::format("{}-{}", name_of(entry), i);
    sets.push_back({name, Dataset::load(set_files(entry), question_options(data))});
  }
  return sets;
}

}  // namespace dapo
