#include "host/train/step_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <vector>

namespace dapo {
namespace {

std::string number(double x, const char* format, double scale = 1) {
  return std::isfinite(x) ? fmt::format(fmt::runtime(format), scale * x) : "-";
}

/// At most six characters.
std::string seconds_text(double s) {
  if (!std::isfinite(s)) return "-";
  return s < 99.995 ? fmt::format("{:.2f}s", s) : duration_text(s);
}

struct Column {
  const char *name, *metric;  // metric "": see cell()
  const char* format;         // for a number
  double scale;
  int width;
  int rank;  // columns of the highest rank are the first to be left out of a narrow terminal
};

constexpr Column kColumns[] = {
    {"step", "", "", 1, 0, 0},
    {"reward", "reward/mean", "{:+.3f}", 1, 6, 0},
    {"acc", "reward/acc", "{:.1f}%", 100, 6, 0},
    {"length", "response/length_mean", "{:.1f}", 1, 7, 1},
    {"max", "response/length_max", "{:.0f}", 1, 5, 5},
    {"cut", "response/truncated", "{:.1f}%", 100, 6, 2},
    {"kept", "groups/kept", "{:.0f}", 1, 4, 2},
    {"right", "groups/all_right", "{:.0f}", 1, 5, 4},
    {"wrong", "groups/all_wrong", "{:.0f}", 1, 5, 4},
    {"entropy", "update/entropy", "{:.3f}", 1, 7, 1},
    {"grad", "update/grad_norm", "{:.3g}", 1, 8, 3},
    {"mismatch", "update/mismatch", "{:g}", 1, 8, 3},
    {"time", "seconds", "", 1, 7, 1},
    {"rollout", "rollout/seconds", "", 1, 7, 4},
    {"update", "update/seconds", "", 1, 7, 4},
    {"tok/s", "rollout/tokens_per_s", "", 1, 6, 3},
    {"train/s", "update/rows_per_s", "", 1, 7, 5},
    {"left", "", "", 1, 8, 0},
};
constexpr size_t kCount = std::size(kColumns);

int width_of(size_t i, int64_t total) {
  return i == 0 ? static_cast<int>(std::size("step /") - 1 + 2 * fmt::formatted_size("{}", total)) : kColumns[i].width;
}

/// A line of the table. The first column, by which logs are searched, is aligned to the left.
std::string aligned(const std::vector<size_t>& columns, int64_t total, const std::function<std::string(size_t)>& text) {
  std::string out;
  for (const size_t i : columns)
    out += i == 0 ? fmt::format("{:<{}}", text(i), width_of(i, total))
                  : fmt::format("  {:>{}}", text(i), width_of(i, total));
  return out;
}

/// Which columns fit. Between two columns are two blanks, and the last column of a terminal stays empty (some wrap).
std::vector<size_t> columns_for(int64_t total, int width) {
  for (int rank = 5;; --rank) {
    std::vector<size_t> shown;
    int needs = 1;
    for (size_t i = 0; i < kCount; ++i)
      if (kColumns[i].rank <= rank) {
        shown.push_back(i);
        needs += width_of(i, total) + (i > 0 ? 2 : 0);
      }
    if (width <= 0 || needs <= width || rank == 0) return shown;
  }
}

std::string cell(const Column& c, const Fields& m, int64_t total, double left) {
  const std::string_view name = c.name;
  if (name == "step") return fmt::format("step {:.0f}/{}", figure(m, "step"), total);
  if (name == "left") return left > 0 ? left < 1 ? "<1 s" : duration_text(left) : "";
  const double value = figure(m, c.metric);
  if (name == "tok/s" || name == "train/s") return std::isfinite(value) ? count_text(value) : "-";
  return *c.format == 0 ? seconds_text(value) : number(value, c.format, c.scale);
}

/// What is not so in most steps, the most important first.
std::vector<std::string> remarks(const Fields& m) {
  std::vector<std::string> out;
  if (const double n = figure(m, "update/refused"); n > 0) out.push_back(fmt::format("updates refused {:.0f}", n));
  if (const double n = figure(m, "groups/unjudged"); n > 0) out.push_back(fmt::format("unjudged {:.0f}", n));
  if (figure(m, "groups/generated") == 0) out.emplace_back("all groups from the bank");
  if (const double s = figure(m, "reward/seconds"); s > 0.05 * figure(m, "seconds"))
    out.push_back(fmt::format("waited {} for verdicts", seconds_text(s)));
  if (const double oldest = figure(m, "groups/age_max"); oldest > 0)
    out.push_back(fmt::format("age {:.2f} (max {:.0f})", figure(m, "groups/age_mean"), oldest));
  return out;
}

}  // namespace

std::string duration_text(double seconds) {
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  if (seconds > 48 * 3600) return fmt::format("{:.0f} hours", seconds / 3600);
  const int64_t s = std::llround(seconds);
  return s < 3600 ? fmt::format("{}:{:02}", s / 60, s % 60)
                  : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

std::string left_text(double seconds) {
  if (!(seconds > 0)) return "";
  return seconds < 1 ? "<1 s left" : duration_text(seconds) + " left";
}

std::string count_text(double n) {
  if (n < 1e4) return fmt::format("{:.0f}", n);
  return n < 1e6   ? fmt::format("{:.1f}k", n / 1e3)
         : n < 1e9 ? fmt::format("{:.2f}M", n / 1e6)
                   : fmt::format("{:.2f}G", n / 1e9);
}

double figure(const Fields& fields, std::string_view name) {
  const auto at = std::ranges::find(fields, name, &Fields::value_type::first);
  return at == fields.end() ? std::nan("") : at->second;
}

std::string step_head(int64_t total, int width) {
  return aligned(columns_for(total, width), total, [](size_t i) { return kColumns[i].name; });
}

std::string step_text(const Fields& metrics, int64_t total, double left, int width) {
  std::string out =
      aligned(columns_for(total, width), total, [&](size_t i) { return cell(kColumns[i], metrics, total, left); });
  for (const std::string& remark : remarks(metrics))
    if (width <= 0 || std::ssize(out) + 2 + std::ssize(remark) < width) out += "  " + remark;
  out.erase(out.find_last_not_of(' ') + 1);
  return out;
}

std::string sft_text(const Fields& m, int64_t total) {
  const double seconds = figure(m, "seconds");
  return fmt::format("sft {:.0f}/{}  loss {:.4f}  grad {:.3g}  lr {:.2e}  tok/s {}", figure(m, "step"), total,
                     figure(m, "loss"), figure(m, "grad_norm"), figure(m, "lr"),
                     count_text(seconds > 0 ? figure(m, "tokens") / seconds : 0));
}

namespace {
std::string set_text(const SetResult& r, const std::string& title) {
  const auto percent = [](const Estimate& e) {
    const std::string mean = fmt::format("{:.1f} %", 100 * e.mean);  // files of older versions lack some intervals
    return std::isfinite(e.low) ? fmt::format("{} ({:.1f} to {:.1f}", mean, 100 * e.low, 100 * e.high) + ")" : mean;
  };
  std::string avg = percent(r.avg);
  if (avg.back() == ')') avg.insert(avg.size() - 1, " with 95 % confidence");
  std::string out = fmt::format("{}: avg@{} {}", title, r.n, avg);
  if (r.n > 1) {
    for (const auto& [k, p] : r.pass)
      if (k > 1) out += fmt::format("  pass@{} {}", k, percent(p));
    for (const auto& [k, m] : r.maj_k) out += fmt::format("  maj@{} {}", k, percent(m));
    out += fmt::format("  maj@{} {}", r.n, percent(r.maj));
  }
  out += fmt::format("  {} problems  length {:.1f}  cut {:.1f} %  {}", r.problems, r.length_mean, 100 * r.truncated,
                     duration_text(r.seconds));
  if (r.verifier_errors > 0) out += fmt::format("  verifier errors {}", r.verifier_errors);
  return out;
}
}  // namespace

std::string eval_text(const EvalResult& r, std::optional<int64_t> step) {
  const std::string title = step ? fmt::format("eval after step {}", *step) : "eval";
  std::string out;
  for (const SetResult& set : r.sets)
    out += (out.empty() ? "" : "\n") + set_text(set, r.sets.size() > 1 ? title + ", " + set.name : title);
  return out;
}

std::string comparison_text(const Comparison& c) {
  return fmt::format(
      "avg {:+.1f} points ({:+.1f} to {:+.1f} with 95 % confidence, paired by problem)  better on {}, worse on {} of "
      "{} "
      "problems",
      100 * c.difference.mean, 100 * c.difference.low, 100 * c.difference.high, c.better, c.worse, c.problems);
}

}  // namespace dapo
