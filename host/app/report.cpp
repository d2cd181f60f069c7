#include "host/app/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "core/check.h"
#include "host/app/html.h"
#include "host/app/json_lines.h"
#include "host/app/report_page.h"
#include "host/train/step_text.h"

namespace dapo {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kMark = "<!-- written by dapo report -->";
constexpr size_t kMostAlarms = 30;  // of one run

std::string percent(double share) {
  return std::isfinite(share) ? fmt::format("{:.1f} %", 100 * share) : "-";
}

std::string tile(const std::string& name, const std::string& value, const std::string& more = "") {
  return fmt::format("<div class=\"tile\"><small>{}</small><b>{}</b><small>{}</small></div>\n", html(name), html(value),
                     html(more));
}

double first_of(const MetricsLog& log, std::string_view name) {
  const MetricsLog::Column* c = log.find(name);
  if (c != nullptr)
    for (const double v : c->values)
      if (std::isfinite(v)) return v;
  return std::nan("");
}

double sum_of(const MetricsLog& log, std::string_view name) {
  double sum = 0;
  if (const MetricsLog::Column* c = log.find(name))
    for (const double v : c->values)
      if (std::isfinite(v)) sum += v;
  return sum;
}

double largest_of(const MetricsLog& log, std::string_view name) {
  double largest = std::nan("");
  if (const MetricsLog::Column* c = log.find(name))
    for (const double v : c->values)
      if (std::isfinite(v) && !(v <= largest)) largest = v;
  return largest;
}

std::string tiles(const RunRecord& run) {
  const MetricsLog& log = run.log;
  if (log.last_step() < 0) return "<p>No step is complete yet.</p>\n";
  const int64_t total = run.total_steps();
  std::string out =
      tile("step", total > 0 ? fmt::format("{} of {}", log.last_step(), total) : fmt::format("{}", log.last_step()),
           duration_text(sum_of(log, "seconds") + sum_of(log, "eval/seconds")) + " of steps and evaluations");
  if (std::isfinite(log.last("reward/acc")))
    out +=
        tile("accuracy, drawn", percent(log.last("reward/acc")), "first step " + percent(first_of(log, "reward/acc")));
  if (std::isfinite(log.last("eval/avg")))
    out += tile(fmt::format("test set, avg@{:.0f}", log.last("eval/n")), percent(log.last("eval/avg")),
                fmt::format("{} to {}; first {}", percent(log.last("eval/low")), percent(log.last("eval/high")),
                            percent(first_of(log, "eval/avg"))));
  if (std::isfinite(log.last("response/length_mean")))
    out += tile("response length", fmt::format("{:.1f}", log.last("response/length_mean")),
                fmt::format("tokens; first step {:.1f}", first_of(log, "response/length_mean")));
  if (std::isfinite(log.last("update/entropy")))
    out += tile("entropy", fmt::format("{:.3g}", log.last("update/entropy")),
                fmt::format("nats; first step {:.3g}", first_of(log, "update/entropy")));
  if (std::isfinite(log.last("loss"))) out += tile("loss", fmt::format("{:.4g}", log.last("loss")), "nats a token");
  if (std::isfinite(log.last("update/mismatch")))
    out += tile("mismatch, largest", fmt::format("{:g}", largest_of(log, "update/mismatch")),
                count_text(sum_of(log, "update/mismatch_tokens")) + " tokens compared");
  if (std::isfinite(log.last("rollout/tokens_per_s")))
    out += tile("speed, tokens/s", count_text(log.last("rollout/tokens_per_s")),
                "update " + count_text(log.last("update/rows_per_s")));
  return "<div class=\"tiles\">\n" + out + "</div>\n";
}

/// Alarms of an older version, which were raised at every step, are one line here.
std::string alarms(const RunRecord& run, bool named) {
  struct Seen {
    std::string text;
    int64_t first, last, count;
  };
  std::vector<Seen> seen;
  std::map<std::string, size_t> index;
  for (const MetricsLog::Alarm& a : run.log.alarms()) {
    std::string words = a.text;
    std::erase_if(words, [](unsigned char c) { return !std::isalpha(c); });
    const auto [at, added] = index.try_emplace(words, seen.size());
    if (added) seen.push_back({a.text, a.step, a.step, 0});
    seen[at->second].last = a.step;
    ++seen[at->second].count;
  }
  std::string out;
  for (size_t i = 0; i < std::min(seen.size(), kMostAlarms); ++i) {
    const Seen& s = seen[i];
    const std::string when = s.count > 1 ? fmt::format("steps {} to {}, {} times", s.first, s.last, s.count)
                                         : fmt::format("step {}", s.first);
    out += fmt::format("<li><b>{}{}:</b> {}</li>\n", named ? html(run.label) + ", " : "", when,
                       html(shortened(s.text, 600)));
  }
  if (seen.size() > kMostAlarms) out += fmt::format("<li>{} more in metrics.jsonl</li>\n", seen.size() - kMostAlarms);
  for (const std::string& note : run.notes) out += fmt::format("<li>{}</li>\n", html(shortened(note, 600)));
  return out;
}

std::string about(const RunRecord& run) {
  std::string out;
  for (const std::string& part :
       {run.origin.program + " " + run.origin.version, run.origin.started, run.origin.host, run.origin.device})
    if (part.size() > 1) out += (out.empty() ? "" : " &middot; ") + html(shortened(part, 300));
  return fmt::format("<p class=\"about soft\">{}</p>\n", out);
}

/// Settings in which the runs differ.
std::string differences(std::span<const RunRecord> runs) {
  std::vector<std::string> keys;
  std::set<std::string> known;
  for (const RunRecord& run : runs)
    for (const auto& [key, value] : run.values)
      if (known.insert(key).second) keys.push_back(key);
  std::string rows;
  for (const std::string& key : keys) {
    const bool differs =
        std::ranges::any_of(runs, [&](const RunRecord& r) { return r.value(key) != runs[0].value(key); });
    if (!differs) continue;
    rows += fmt::format("<tr><th>{}</th>", html(key));
    for (const RunRecord& run : runs) rows += fmt::format("<td>{}</td>", html(shortened(run.value(key), 200)));
    rows += "</tr>\n";
  }
  std::string head = "<tr><th></th>";
  for (const RunRecord& run : runs) head += fmt::format("<th>{}</th>", html(run.label));
  return "<h2>Settings that differ</h2>\n<div class=\"box\"><table>\n" + head + "</tr>\n" +
         (rows.empty() ? "<tr><td>none</td></tr>\n" : rows) + "</table></div>\n";
}

std::string details(const std::string& title, const std::string& text) {
  if (text.empty()) return "";
  return fmt::format("<details><summary>{}</summary><div class=\"box plain\"><pre>{}</pre></div></details>\n",
                     html(title), html(shortened(text, size_t{200} << 10)));
}

std::string settings_section(std::span<const RunRecord> runs) {
  std::string out;
  for (const RunRecord& run : runs) {
    const std::string of = runs.size() > 1 ? " of " + run.label : "";
    out += details("All settings" + of, run.settings) + details("Plan" + of, run.origin.plan);
  }
  return out.empty() ? "" : "<h2>Settings</h2>\n" + out;
}

std::string heading(std::span<const RunRecord> runs) {
  if (runs.size() == 1) return fmt::format("<h1>{}</h1>\n", html(runs[0].path)) + about(runs[0]) + tiles(runs[0]);
  std::string out = fmt::format("<h1>{} runs</h1>\n", runs.size());
  for (size_t i = 0; i < runs.size(); ++i)
    out += fmt::format("<h2><span class=\"s{}\">&#9632;</span> {} <small>{}</small></h2>\n", i % 8, html(runs[i].label),
                       html(runs[i].path)) +
           about(runs[i]) + tiles(runs[i]);
  return out;
}

std::string beginning(const std::string& path, size_t bytes) {
  std::string text(bytes, '\0');
  std::ifstream in(path, std::ios::binary);
  in.read(text.data(), static_cast<std::streamsize>(bytes));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  return text;
}

}  // namespace

std::string report_html(std::span<const RunRecord> runs) {
  std::string warnings;
  for (const RunRecord& run : runs) warnings += alarms(run, runs.size() > 1);
  const std::string title = runs.size() == 1 ? runs[0].label : fmt::format("{} runs", runs.size());
  std::string out = fmt::format("<!DOCTYPE html>\n{}\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n", kMark);
  // no response can make the page load anything
  out +=
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "script-src "
      "'unsafe-inline'\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
  out += fmt::format("<title>{}</title>\n<style>{}</style></head><body><main>\n", html(title), kReportStyle);
  out += heading(runs);
  if (!warnings.empty()) out += "<div class=\"alarms\"><b>Alarms</b><ul>\n" + warnings + "</ul></div>\n";
  if (runs.size() > 1) out += differences(runs);
  out += charts_section(runs) + samples_section(runs) + settings_section(runs);
  return out + fmt::format("</main><script>{}</script></body></html>", kReportScript);
}

std::string write_report(const std::vector<std::string>& folders, const std::string& out) {
  if (folders.empty()) fail_input("no run; name the folder of one (trainer.run_dir)");
  std::vector<RunRecord> runs;
  runs.reserve(folders.size());
  for (const std::string& folder : folders) runs.push_back(read_run(folder, folders.size() > 1 ? 1 : 3));
  std::map<std::string, int> labels;
  for (const RunRecord& run : runs) ++labels[run.label];
  for (RunRecord& run : runs)
    if (labels[run.label] > 1) run.label = run.path;
  std::string to = !out.empty() ? out : runs.size() == 1 ? runs[0].path + "/report.html" : "report.html";
  std::error_code none;
  if (fs::is_regular_file(to, none) && fs::file_size(to, none) > 0 &&
      beginning(to, 200).find(kMark) == std::string::npos)
    fail_input("{}: exists, and dapo report did not write it; name another file with -o", to);
  LineWriter file(to);
  file.line(report_html(runs));
  file.commit();
  return to;
}

}  // namespace dapo
