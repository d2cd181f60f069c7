#include "host/app/watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "host/train/step_text.h"

namespace dapo {
namespace {

/// One set of an evaluation's figures: "eval/avg", or "eval/NAME/avg" where there are several sets.
SetResult set_of(const Fields& f, const std::string& name) {
  const std::string before = name.empty() ? "eval/" : "eval/" + name + "/";
  const auto value = [&](const std::string& of) { return figure(f, before + of); };
  const auto count = [&](const std::string& of) {
    const double n = value(of);
    return std::isfinite(n) ? static_cast<int64_t>(n) : 0;
  };
  SetResult r;
  r.name = name;
  r.problems = count("problems");
  r.n = count("n");
  r.avg = {value("avg"), value("low"), value("high")};
  r.maj = {value("maj"), value("maj_low"), value("maj_high")};
  r.length_mean = value("length_mean");
  r.truncated = value("truncated");
  r.verifier_errors = count("verifier_errors");
  r.seconds = value("seconds");
  const auto by_k = [&](const std::string& row, std::vector<std::pair<int, Estimate>>& out) {
    for (const auto& [key, share] : f) {
      if (!key.starts_with(before + row) || key.find('_', before.size()) != key.npos) continue;
      const std::string k = key.substr(before.size());
      out.emplace_back(std::atoi(k.c_str() + row.size()), Estimate{share, value(k + "_low"), value(k + "_high")});
    }
  };
  by_k("pass@", r.pass);
  by_k("maj@", r.maj_k);
  return r;
}

EvalResult eval_of(const Fields& f) {
  EvalResult r;
  constexpr std::string_view kEnd = "/problems";
  for (const auto& [key, value] : f)
    if (key.starts_with("eval/") && key.ends_with(kEnd))
      r.sets.push_back(set_of(f, key.size() > 4 + kEnd.size() ? key.substr(5, key.size() - 5 - kEnd.size()) : ""));
  return r;
}

size_t hash_of(const MetricsLine& m) {
  size_t hash = 0;
  for (const auto& [name, value] : m.fields)
    hash = hash * 31 + std::hash<std::string>()(name) + std::hash<double>()(value);
  return hash;
}

/// The text of a log line after its time stamp, "2026-11-26 07:08:09 "; "" if it has none.
std::string without_time(const std::string& line) {
  constexpr size_t kStamp = 20;
  return line.size() > kStamp && line[4] == '-' && line[16] == ':' ? line.substr(kStamp) : "";
}

}  // namespace

std::vector<std::string> WatchText::lines(const MetricsLine& m, int width) {
  if (const auto at = shown_.find(m.step); at != shown_.end() && at->second == hash_of(m)) return {};
  std::vector<std::string> out;
  if (m.step <= last_ && last_ > 0) out.push_back(fmt::format("the run goes on from an earlier step: {}", m.step));
  skip(m);
  Fields fields = m.fields;
  fields.insert(fields.begin(), {"step", static_cast<double>(m.step)});
  if (std::isfinite(figure(fields, "loss"))) {  // dapo sft
    out.push_back(fmt::format("{}  {}", sft_text(fields, total_), left_text(left())));
    return out;
  }
  if (std::isfinite(figure(fields, "seconds"))) {
    if (table_lines_ == 0 || (width > 0 && table_lines_ % 20 == 0)) out.push_back(step_head(total_, width));
    ++table_lines_;
    out.push_back(step_text(fields, total_, left(), width));
  }
  if (std::isfinite(figure(fields, "eval/avg"))) out.push_back(eval_text(eval_of(fields), m.step));
  return out;
}

void WatchText::skip(const MetricsLine& m) {
  shown_[m.step] = hash_of(m);
  last_ = m.step;
  const double seconds = figure(m.fields, "seconds"), evaluation = figure(m.fields, "eval/seconds");
  if (std::isfinite(seconds)) eta_.add(seconds + (std::isfinite(evaluation) ? evaluation : 0));
}

double WatchText::left() const {
  return eta_.left(total_ - last_, 0, 0);
}

std::string closing_words(const std::string& log_line) {
  std::string text = without_time(log_line);
  for (const char* begin : {"done after step ", "stopped after step ", "interrupted after step ", "interrupted before ",
                            "interrupted in ", "saved "})
    if (text.starts_with(begin)) return text;
  return "";
}

std::string note_of(const std::string& log_line) {
  const std::string text = without_time(log_line);
  return text.starts_with("  note: ") ? text : "";
}

}  // namespace dapo
