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

namespace {
/// Finds the first row of each problem, its copies, and conflicting answers among copies.
class Groups {
 public:
  /// True for the first row of its problem.
  bool add(const Example& e) {
    ++rows_;
    const auto [at, fresh] = index_.try_emplace(e.problem, groups_.size());
    if (fresh) groups_.push_back({e.id, 0, {}});
    Group& g = groups_[at->second];
    ++g.rows;
    if (std::find(g.answers.begin(), g.answers.end(), e.answer) == g.answers.end()) g.answers.push_back(e.answer);
    return fresh;
  }
  DedupeReport report() const {
    DedupeReport out{rows_, groups_.size(), groups_.empty() ? 0 : groups_[0].rows, {}};
    for (const Group& g : groups_) {
      if (g.rows != out.copies) out.copies = 0;
      if (g.answers.size() > 1) out.conflicts.push_back({g.id, g.answers});
    }
    return out;
  }

 private:
  struct Group {
    std::string id;
    size_t rows;
    std::vector<std::string> answers;
  };
  size_t rows_ = 0;
  std::vector<Group> groups_;  // in order of first appearance
  std::unordered_map<uint64_t, size_t> index_;
};
}  // namespace

Dataset Dataset::load(const std::vector<std::string>& paths, const DatasetOptions& options) {
  if (paths.empty()) fail_input("dataset: no files given: name at least one .jsonl or .parquet file");
  Dataset set;
  RowParser parser(options);
  Groups groups;
  size_t rows = 0;
  const RowSink sink = [&](Example&& e) {
    ++rows;
    if (!options.unique || groups.add(e)) set.rows_.push_back(std::move(e));
  };
  std::vector<std::string> files;
  for (const std::string& path : paths)
    for (std::string& file : data_files(path)) files.push_back(std::move(file));
  for (const std::string& path : files) {
    const size_t before = rows;
    (path.ends_with(".parquet") ? read_parquet : read_jsonl)(path, parser, sink);
    if (rows == before) fail_input("{}: no rows: the file is empty or holds only blank lines", path);
  }
  set.left_out_ = groups.report();
  return set;
}

DedupeReport Dataset::duplicates() const {
  Groups groups;
  for (const Example& e : rows_) groups.add(e);
  return groups.report();
}

DedupeReport Dataset::dedupe() {
  Groups groups;
  std::erase_if(rows_, [&](const Example& e) { return !groups.add(e); });
  return groups.report();
}

std::string DedupeReport::text() const {
  std::string out = rows == problems ? fmt::format("{} rows, no duplicate prompts", rows)
                    : copies > 1     ? fmt::format("{} rows are {} problems, each {} times", rows, problems, copies)
                                     : fmt::format("{} rows are {} problems", rows, problems);
  if (conflicts.empty()) return out;
  std::string answers;
  for (std::string a : conflicts[0].answers) {
    std::replace(a.begin(), a.end(), kAnswerSeparator, ',');
    answers += (answers.empty() ? "" : " | ") + a;
  }
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
