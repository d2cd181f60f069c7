// The part of report.html that shows figures over steps.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "host/app/chart.h"
#include "host/app/html.h"
#include "host/app/report.h"
#include "host/train/metric_info.h"

namespace dapo {
namespace {

using Column = MetricsLog::Column;

struct Line {
  const char *metric, *name;
  const char *low = "", *high = "";  ///< figures that bound an interval around it
  bool points = false;
};
struct Spec {
  const char *title, *unit;
  double scale = 1;
  std::vector<Line> lines;  ///< several runs are compared by the first that they have (and by the evaluation)
  bool stacked = false, from_zero = false;
};

const std::vector<Spec>& learning() {
  static const std::vector<Spec> specs = {
      {"Accuracy",
       "%",
       100,
       {{"reward/acc", "drawn in the step"}, {"eval/avg", "test set, 95 % confidence", "eval/low", "eval/high", true}}},
      {"Reward", "", 1, {{"reward/mean", "by the verifier"}, {"reward/shaped", "with overlong punishment"}}},
      {"Response length",
       "tokens",
       1,
       {{"response/length_mean", "mean"}, {"response/length_max", "longest"}},
       false,
       true},
      {"Responses cut at the limit",
       "%",
       100,
       {{"response/truncated", "drawn in the step"}, {"eval/truncated", "test set", "", "", true}},
       false,
       true},
      {"Groups drawn",
       "groups",
       1,
       {{"groups/kept", "kept: right and wrong"},
        {"groups/all_right", "all right"},
        {"groups/all_wrong", "all wrong"},
        {"groups/unjudged", "not judged"}},
       true},
      {"Loss", "", 1, {{"update/loss", "policy"}, {"loss", "nats a token"}}},
  };
  return specs;
}

const std::vector<Spec>& health() {
  static const std::vector<Spec> specs = {
      {"Entropy", "nats", 1, {{"update/entropy", "mean of the tokens trained on"}}, false, true},
      {"Clipped tokens",
       "%",
       100,
       {{"update/clip_high", "high"}, {"update/clip_low", "low"}, {"update/clip_dual", "dual"}},
       false,
       true},
      {"Gradient norm",
       "before clipping",
       1,
       {{"update/grad_norm", "mean"}, {"grad_norm", "update"}, {"update/grad_norm_max", "largest"}},
       false,
       true},
      {"Old minus new log-prob", "nats", 1, {{"update/kl", "mean of the tokens trained on"}}},
      {"Mismatch of rollout and training", "nats", 1, {{"update/mismatch", "largest; must be 0"}}, false, true},
      {"Learning rate", "", 1, {{"lr", "of the step"}}, false, true},
  };
  return specs;
}

const std::vector<Spec>& speed() {
  static const std::vector<Spec> specs = {
      {"Time of a step",
       "s",
       1,
       {{"rollout/seconds", "rollout"}, {"update/seconds", "update"}, {"reward/seconds", "waiting for verdicts"}},
       true},
      {"Tokens per second",
       "tokens/s",
       1,
       {{"rollout/tokens_per_s", "rollout"}, {"update/rows_per_s", "update, prompts included"}},
       false,
       true},
  };
  return specs;
}

class Charts {
 public:
  explicit Charts(std::span<const RunRecord> runs) : runs_(runs) {}

  std::string section(const char* title, const std::vector<Spec>& specs, const std::string& more = "") {
    std::string out;
    for (const Spec& spec : specs) out += chart(spec);
    out += more;
    return out.empty() ? "" : fmt::format("<h2>{}</h2>\n<div class=\"charts\">\n{}</div>\n", title, out);
  }

  std::string chart(const Spec& spec) {
    Chart c{.title = spec.title,
            .unit = spec.unit,
            .help = "",
            .curves = {},
            .stacked = spec.stacked && runs_.size() == 1,
            .from_zero = spec.from_zero};
    for (const Line& line : spec.lines) used_.insert({line.metric, line.low, line.high});
    for (size_t r = 0; r < runs_.size(); ++r) {
      bool first = true;
      for (size_t i = 0; i < spec.lines.size(); ++i) {
        const Line& line = spec.lines[i];
        const Column* column = runs_[r].log.find(line.metric);
        if (column == nullptr || (runs_.size() > 1 && !first && !line.points)) continue;
        if (runs_.size() > 1 && first) c.unit = std::string(spec.unit) + (*spec.unit ? ": " : "") + line.name;
        first = false;
        Curve curve = curve_of(runs_[r], *column, line, spec.scale);
        curve.color = static_cast<int>(runs_.size() > 1 ? r : i);
        if (runs_.size() > 1) curve.name = runs_[r].label + (line.points ? ", " + std::string(line.name) : "");
        if (const auto info = metric_info(line.metric); info && c.help.empty()) c.help = info->meaning;
        c.curves.push_back(std::move(curve));
      }
    }
    if (c.stacked) same_steps(c);
    return chart_html(c);
  }

  /// Share of the machine's rate of products, where the run measured it; else the rate itself.
  std::string rates() {
    const bool known = std::ranges::all_of(runs_, [](const RunRecord& r) { return r.origin.product_gflops > 0; });
    Chart c{.title = known ? "Share of the machine's limit" : "Rate of products",
            .unit = known ? "%" : "GFLOP/s",
            .help = known
                        ? "FLOPs of the model's products and attention, against a large matrix product on this machine"
                        : "",
            .curves = {},
            .from_zero = true};
    used_.insert({"rollout/gflops", "update/gflops"});
    for (size_t r = 0; r < runs_.size(); ++r)
      for (const auto& [metric, name, number] :
           {std::tuple{"rollout/gflops", "rollout", 0}, {"update/gflops", "update", 1}}) {
        const Column* column = runs_[r].log.find(metric);
        if (column == nullptr) continue;
        Curve curve = curve_of(runs_[r], *column, {metric, name}, known ? 100 / runs_[r].origin.product_gflops : 1);
        curve.color = runs_.size() > 1 ? static_cast<int>(r) : number;
        curve.dashed = runs_.size() > 1 && number == 1;
        if (runs_.size() > 1) curve.name = fmt::format("{}, {}", runs_[r].label, name);
        c.curves.push_back(std::move(curve));
      }
    return chart_html(c);
  }

  /// Accuracy over the time that the steps took: how runs of different cost compare.
  std::string over_time() {
    Chart c{.title = "Accuracy over time",
            .unit = "%",
            .help = "time of the steps and evaluations, without start-up and saving",
            .x_name = "minutes",
            .curves = {}};
    for (size_t r = 0; r < runs_.size(); ++r) {
      const Column *seconds = runs_[r].log.find("seconds"), *acc = runs_[r].log.find("reward/acc");
      if (seconds == nullptr || acc == nullptr) continue;
      const Column* eval = runs_[r].log.find("eval/seconds");
      Curve curve;
      curve.name = runs_.size() > 1 ? runs_[r].label : "drawn in the step";
      curve.color = static_cast<int>(r);
      double time = 0;
      for (size_t i = 0, e = 0, s = 0; i < acc->steps.size(); ++i) {
        for (; s < seconds->steps.size() && seconds->steps[s] <= acc->steps[i]; ++s)
          if (std::isfinite(seconds->values[s])) time += seconds->values[s];
        for (; eval != nullptr && e < eval->steps.size() && eval->steps[e] < acc->steps[i]; ++e)
          if (std::isfinite(eval->values[e])) time += eval->values[e];
        curve.x.push_back(time / 60);
        curve.y.push_back(100 * acc->values[i]);
      }
      c.curves.push_back(std::move(curve));
    }
    return chart_html(c);
  }

  /// Every figure that no chart has shown: charts of those that change, a table of those that never do.
  std::string others() {
    constexpr size_t kMost = 80;
    std::string charts, constants;
    std::set<std::string> seen = used_;
    size_t count = 0;
    for (const RunRecord& run : runs_)
      for (const Column& column : run.log.columns()) {
        if (!seen.insert(column.name).second) continue;
        const std::optional<MetricInfo> info = metric_info(column.name);
        const std::optional<double> value = constant(column.name);
        if (value || count >= kMost) {
          constants += fmt::format("<tr><th>{}</th><td>{}</td><td>{}</td></tr>\n", html(column.name),
                                   value && std::isfinite(*value) ? fmt::format("{:g}", *value)
                                   : value                        ? "null"
                                                                  : "changes",
                                   info ? html(info->meaning) : "");
        } else {
          ++count;
          const std::string name = shortened(column.name, 60);
          charts += chart(
              {name.c_str(),
               info ? info->unit : "",
               1,
               {{column.name.c_str(), "", "", "", column.steps.size() < 40 && column.name.starts_with("eval/")}}});
        }
      }
    std::string out;
    if (!charts.empty()) out += fmt::format("<div class=\"charts\">\n{}</div>\n", charts);
    if (!constants.empty()) out += fmt::format("<div class=\"box\"><table>\n{}</table></div>\n", constants);
    return out;
  }

 private:
  static Curve curve_of(const RunRecord& run, const Column& column, const Line& line, double scale) {
    Curve curve;
    curve.name = line.name;
    curve.x = column.steps;
    curve.y = column.values;
    curve.points = line.points;
    const Column *low = run.log.find(line.low), *high = run.log.find(line.high);
    if (low != nullptr && high != nullptr && low->steps == column.steps && high->steps == column.steps)
      curve.low = low->values, curve.high = high->values;
    for (std::vector<double>* values : {&curve.y, &curve.low, &curve.high})
      for (double& v : *values) v *= scale;
    return curve;
  }

  /// Curves of a stack have the steps of the first one.
  static void same_steps(Chart& c) {
    std::erase_if(c.curves, [&](const Curve& curve) { return curve.x != c.curves.front().x; });
  }

  /// The value of a figure that is the same at every step of every run.
  std::optional<double> constant(const std::string& name) const {
    std::optional<double> value;
    for (const RunRecord& run : runs_)
      if (const Column* column = run.log.find(name))
        for (const double v : column->values) {
          if (value && !(v == *value || (std::isnan(v) && std::isnan(*value)))) return std::nullopt;
          value = v;
        }
    return value;
  }

  std::span<const RunRecord> runs_;
  std::set<std::string> used_ = {"seconds", "eval/n", "eval/problems"};
};

/// The evaluation's other figures: pass@k and maj@k, where it draws several responses.
std::vector<Spec> evaluation(std::span<const RunRecord> runs, std::vector<std::string>& names) {
  for (const RunRecord& run : runs)
    for (const Column& column : run.log.columns())
      if ((column.name.starts_with("eval/pass@") || column.name.starts_with("eval/maj@")) &&
          column.name.find('_') == column.name.npos && std::ranges::find(names, column.name) == names.end())
        names.push_back(column.name);
  const bool several = std::ranges::any_of(runs, [](const RunRecord& r) { return r.log.last("eval/n") > 1; });
  if (!several) return {};
  Spec spec{"Test set",
            "%",
            100,
            {{"eval/avg", "avg@n", "eval/low", "eval/high", true}, {"eval/maj", "maj@n", "", "", true}}};
  for (const std::string& name : names)
    if (name != "eval/pass@1") spec.lines.push_back({name.c_str(), name.c_str() + 5, "", "", true});
  if (runs.size() == 1) return {spec};
  std::vector<Spec> one_each;  // a run is a colour
  one_each.reserve(spec.lines.size());
  for (const Line& line : spec.lines) one_each.push_back({line.name, "%", 100, {line}});
  return one_each;
}

}  // namespace

std::string charts_section(std::span<const RunRecord> runs) {
  Charts charts(runs);
  std::vector<std::string> names;  // outlives the specs
  const std::vector<Spec> eval = evaluation(runs, names);
  std::string more;
  for (const Spec& spec : eval) more += charts.chart(spec);
  std::string out = charts.section("Learning", learning(), more);
  out += charts.section("Policy", health());
  out += charts.section("Speed", speed(), charts.rates() + charts.over_time());
  const std::string others = charts.others();
  if (!others.empty())
    out += fmt::format("<details{}><summary><b>All other figures</b></summary>\n{}</details>\n",
                       out.empty() ? " open" : "", others);
  return out;
}

}  // namespace dapo
