#include "data/dataset.h"

#include <algorithm>
#include <unordered_map>

#include "core/check.h"
#include "data/random.h"
#include "data/rows.h"

namespace dapo {

std::string Example::text() const {
  if (messages.empty()) return prompt;
  std::string out;
  for (const Message& m : messages) {
    if (!out.empty()) out += "\n\n";
    out += m.content;
  }
  return out;
}

Dataset Dataset::load(const std::vector<std::string>& paths, const DatasetOptions& options) {
  if (paths.empty()) fail_input("dataset: no files given: name at least one .jsonl or .parquet file");
  Dataset set;
  RowParser parser(options);
  for (const std::string& path : paths) {
    const size_t before = set.rows_.size();
    (path.ends_with(".parquet") ? read_parquet : read_jsonl)(path, parser, set.rows_);
    if (set.rows_.size() == before) fail_input("{}: no rows: the file is empty or holds only blank lines", path);
  }
  return set;
}

namespace {
struct Group {
  size_t first, rows = 0;
  std::vector<std::string> answers;
};

/// Groups rows by problem, in order of first appearance.
std::vector<Group> group_by_problem(const Dataset& set) {
  std::vector<Group> groups;
  std::unordered_map<uint64_t, size_t> index;
  for (size_t i = 0; i < set.size(); ++i) {
    const auto [at, fresh] = index.try_emplace(set[i].problem, groups.size());
    if (fresh) groups.push_back({i, 0, {}});
    Group& g = groups[at->second];
    ++g.rows;
    if (std::find(g.answers.begin(), g.answers.end(), set[i].answer) == g.answers.end())
      g.answers.push_back(set[i].answer);
  }
  return groups;
}

DedupeReport report_of(const Dataset& set, const std::vector<Group>& groups) {
  DedupeReport report{set.size(), groups.size(), groups.empty() ? 0 : groups[0].rows, {}};
  for (const Group& g : groups) {
    if (g.rows != report.copies) report.copies = 0;
    if (g.answers.size() > 1) report.conflicts.push_back({set[g.first].id, g.answers});
  }
  return report;
}
}  // namespace

DedupeReport Dataset::duplicates() const {
  return report_of(*this, group_by_problem(*this));
}

DedupeReport Dataset::dedupe() {
  const std::vector<Group> groups = group_by_problem(*this);
  DedupeReport report = report_of(*this, groups);
  std::vector<Example> kept;
  kept.reserve(groups.size());
  for (const Group& g : groups) kept.push_back(std::move(rows_[g.first]));
  rows_ = std::move(kept);
  return report;
}

std::string DedupeReport::text() const {
  std::string out = rows == problems ? fmt::format("{} rows, no prompt twice", rows)
                    : copies > 1     ? fmt::format("{} rows are {} problems, each {} times", rows, problems, copies)
                                     : fmt::format("{} rows are {} problems", rows, problems);
  if (conflicts.empty()) return out;
  std::string answers;
  for (const std::string& a : conflicts[0].answers) answers += (answers.empty() ? "" : " | ") + a;
  return out + fmt::format("; {} problems have conflicting answers (first: row {}: {})", conflicts.size(),
                           conflicts[0].id, answers);
}

uint64_t Dataset::fingerprint() const {
  uint64_t h = hash64("");
  for (const Example& e : rows_) {
    h = hash64(e.id, h);
    h = hash64(e.response, h);
  }
  return h;
}

}  // namespace dapo
