#include "host/app/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "host/app/html.h"

namespace dapo {
namespace {

constexpr size_t kMostPoints = 400;
constexpr double kWidth = 420, kHeight = 214, kLeft = 48, kRight = 10, kTop = 8, kBottom = 24;

struct Range {
  double low = INFINITY, high = -INFINITY;
  void add(double v) {
    if (std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
  }
  bool empty() const { return low > high; }
};

/// From data to the drawing.
struct Frame {
  Range x, y;
  double left(double v) const { return kLeft + (v - x.low) / (x.high - x.low) * (kWidth - kLeft - kRight); }
  double top(double v) const {
    const double at = kTop + (y.high - v) / (y.high - y.low) * (kHeight - kTop - kBottom);
    return std::clamp(at, -kHeight, 2 * kHeight);  // beyond the frame: cut there
  }
};

/// At most seven characters.
std::string tick_text(double v) {
  const double size = std::abs(v);
  if (size >= 1e4 && size < 1e7) return fmt::format("{:g}k", v / 1e3);
  std::string text = fmt::format("{:g}", v);
  if (size == 0 || (text.size() <= 6 && size < 1e7 && text.find('e') == text.npos)) return text;
  const int exponent = static_cast<int>(std::floor(std::log10(size) + 1e-9));
  return fmt::format("{:.2g}e{}", v / std::pow(10, exponent), exponent);
}

/// A value for the reader: four digits, and no exponent up to millions of millions.
std::string value_text(double v) {
  const double size = std::abs(v);
  return size >= 1e4 && size < 1e15 ? fmt::format("{:.0f}", v) : fmt::format("{:.4g}", v);
}

/// "step first count" for steps that follow each other, else all of them: short in the page, for the script.
std::string compact(const std::vector<double>& x) {
  bool regular = x.size() > 2;
  for (size_t i = 1; i < x.size() && regular; ++i) regular = std::abs(x[i] - x[i - 1] - (x[1] - x[0])) < 1e-9;
  if (regular) return fmt::format("{:g} {:g} {}", x[1] - x[0], x[0], x.size());
  std::string out;
  for (const double v : x) out += fmt::format("{}{:.7g}", out.empty() ? "" : ",", v);
  return out;
}

std::string values_text(const std::vector<double>& y) {
  std::string out;
  for (const double v : y) (out += out.empty() ? "" : ",") += std::isfinite(v) ? value_text(v) : "-";
  return out;
}

/// The line through the points, broken at gaps.
std::string path(const std::vector<double>& x, const std::vector<double>& y, const Frame& f) {
  std::string out;
  bool pen_down = false;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(y[i])) {
      pen_down = false;
      continue;
    }
    out += fmt::format("{}{:.1f} {:.1f}", pen_down ? "L" : "M", f.left(x[i]), f.top(y[i]));
    pen_down = true;
  }
  return out;
}

/// The area between two lines; gaps are left out.
std::string area(const std::vector<double>& x, const std::vector<double>& low, const std::vector<double>& high,
                 const Frame& f) {
  std::string out, back;
  const auto close = [&] {
    if (!out.empty() && !back.empty()) out += back + "Z";
    back.clear();
  };
  for (size_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(low[i]) || !std::isfinite(high[i])) {
      close();
      continue;
    }
    out += fmt::format("{}{:.1f} {:.1f}", back.empty() ? "M" : "L", f.left(x[i]), f.top(high[i]));
    back = fmt::format("L{:.1f} {:.1f}", f.left(x[i]), f.top(low[i])) + back;
  }
  close();
  return out;
}

/// Weighted mean over the neighbours, near ones most; a value beyond the frame counts as its edge.
std::vector<double> smooth(std::vector<double> y, const Range& frame) {
  for (double& v : y)
    if (std::isfinite(v)) v = std::clamp(v, frame.low, frame.high);
  const auto radius = static_cast<std::ptrdiff_t>(std::max<size_t>(1, y.size() / 40));
  std::vector<double> out(y.size(), std::nan(""));
  for (std::ptrdiff_t i = 0; i < std::ssize(y); ++i) {
    double sum = 0, weight = 0;
    for (std::ptrdiff_t k = std::max<std::ptrdiff_t>(0, i - radius); k <= std::min(std::ssize(y) - 1, i + radius);
         ++k) {
      const double w = static_cast<double>(radius + 1 - std::abs(k - i));
      if (std::isfinite(y[k])) sum += w * y[k], weight += w;
    }
    if (std::isfinite(y[i])) out[i] = sum / weight;
  }
  return out;
}

/// Whether a line goes up and down so often that its course is hard to see.
bool noisy(const std::vector<double>& y) {
  if (y.size() < 40) return false;
  size_t turns = 0;
  for (size_t i = 2; i < y.size(); ++i) turns += (y[i] - y[i - 1]) * (y[i - 1] - y[i - 2]) < 0;
  return turns > y.size() / 4;
}

/// The range of the values, without a few that are ten times as large as all others.
Range range_of(const std::vector<Curve>& curves, bool from_zero) {
  Range all;
  std::vector<double> sizes;
  for (const Curve& c : curves) {
    for (const std::vector<double>* values : {&c.y, &c.low, &c.high})
      for (const double v : *values) all.add(v);
    for (const double v : c.y)
      if (std::isfinite(v)) sizes.push_back(std::abs(v));
  }
  if (sizes.size() >= 20) {
    const auto high = sizes.begin() + static_cast<std::ptrdiff_t>(sizes.size() * 97 / 100);
    std::nth_element(sizes.begin(), high, sizes.end());
    if (*high > 0) all.high = std::min(all.high, 10 * *high), all.low = std::max(all.low, -10 * *high);
  }
  if (from_zero) all.add(0);
  if (all.high - all.low <= 1e-12 * std::max(std::abs(all.low), std::abs(all.high))) {
    const double around = all.high == 0 ? 1 : std::abs(all.high) / 2;
    all = {from_zero && all.low >= 0 ? 0 : all.low - around, all.high + around};
  }
  return all;
}

std::string axes(const Chart& chart, Frame& f) {
  const std::vector<double> rows = ticks(f.y.low, f.y.high, 4);
  f.y = {rows.front(), rows.back()};
  std::string out;
  for (const double v : rows) {
    const double y = f.top(v);
    out += fmt::format(R"(<line class="{}" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>)", v == 0 ? "axis" : "grid", kLeft,
                       kWidth - kRight, y, y);
    out += fmt::format(R"(<text x="{}" y="{:.1f}" class="y">{}</text>)", kLeft - 5, y + 3.5,
                       tick_text(std::abs(v) < 1e-9 * (f.y.high - f.y.low) ? 0 : v));
  }
  for (const double v : ticks(f.x.low, f.x.high, 5))
    if (v >= f.x.low && v <= f.x.high && f.left(v) < kWidth - 70)
      out += fmt::format(R"(<text x="{:.1f}" y="{}" class="x">{}</text>)", f.left(v), kHeight - 7, tick_text(v));
  return out + fmt::format(R"(<text x="{}" y="{}" class="n">{} {}</text>)", kWidth - kRight, kHeight - 7,
                           html(chart.x_name), value_text(f.x.high));
}

std::string curve_svg(const Curve& c, const Frame& f, bool dense) {
  std::string out;
  const std::string color = fmt::format("s{}", c.color % 8);
  if (dense && !c.low.empty())
    out += fmt::format(R"(<path class="band {}" d="{}"/>)", color, area(c.x, c.low, c.high, f));
  const bool thin = !c.points && noisy(c.y);
  if (thin && !dense) out += fmt::format(R"(<path class="raw {}" d="{}"/>)", color, path(c.x, c.y, f));
  out += fmt::format(R"(<path class="line {}{}" d="{}"/>)", color, c.dashed ? " dashed" : "",
                     path(c.x, thin ? smooth(c.y, f.y) : c.y, f));
  const size_t count = std::ranges::count_if(c.y, [](double v) { return std::isfinite(v); });
  if (c.points || count == 1)
    for (size_t i = 0; i < c.x.size(); ++i) {
      if (!std::isfinite(c.y[i])) continue;
      if (!dense && !c.low.empty() && std::isfinite(c.low[i]) && std::isfinite(c.high[i]))
        out += fmt::format(R"(<line class="line {}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)", color,
                           f.left(c.x[i]), f.left(c.x[i]), f.top(c.low[i]), f.top(c.high[i]));
      out += fmt::format(R"(<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3"/>)", color, f.left(c.x[i]), f.top(c.y[i]));
    }
  return out;
}

/// The curves as areas, each on top of the one before it.
std::string stack_svg(const std::vector<Curve>& curves, const Frame& f) {
  std::string out;
  std::vector<double> below(curves[0].x.size(), 0), above;
  for (const Curve& c : curves) {
    above = below;
    for (size_t i = 0; i < above.size() && i < c.y.size(); ++i) above[i] += std::isfinite(c.y[i]) ? c.y[i] : 0;
    out += fmt::format(R"(<path class="stack s{}" d="{}"/>)", c.color % 8, area(c.x, below, above, f));
    below = above;
  }
  return out;
}

double newest(const std::vector<double>& y) {
  for (size_t i = y.size(); i-- > 0;)
    if (std::isfinite(y[i])) return y[i];
  return std::nan("");
}

/// Legend, with the newest value of each curve, which the script replaces by the one under the pointer.
std::string legend(const std::vector<Curve>& curves) {
  std::string out = R"(<div class="legend">)";
  for (size_t i = 0; i < curves.size(); ++i)
    out += fmt::format(R"(<span><i class="s{}{}"></i>{} <b data-of="{}">{}</b></span>)", curves[i].color % 8,
                       curves[i].dashed ? " dashed" : "", html(curves[i].name), i, value_text(newest(curves[i].y)));
  return out + "</div>";
}

}  // namespace

Curve thinned(const Curve& c, size_t most) {
  if (c.x.size() <= most) return c;
  Curve out{c.name, {}, {}, {}, {}, c.color, c.dashed, c.points};
  for (size_t part = 0; part < most; ++part) {
    const size_t begin = part * c.x.size() / most, end = (part + 1) * c.x.size() / most;
    Range y;
    double x = 0, sum = 0, count = 0;
    for (size_t i = begin; i < end; ++i) {
      x += c.x[i];
      y.add(c.y[i]);
      if (std::isfinite(c.y[i])) sum += c.y[i], ++count;
    }
    out.x.push_back(x / static_cast<double>(end - begin));
    out.y.push_back(count > 0 ? sum / count : std::nan(""));
    out.low.push_back(y.empty() ? std::nan("") : y.low);
    out.high.push_back(y.empty() ? std::nan("") : y.high);
  }
  return out;
}

std::vector<double> ticks(double low, double high, int count) {
  const double rough = (high - low) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double m : {5.0, 2.0, 1.0})
    if (m * power >= rough * 0.999) step = m * power;
  std::vector<double> out;
  const double first = std::floor(low / step + 1e-9);
  for (int i = 0; i < 50; ++i) {
    out.push_back((first + i) * step);
    if (out.back() >= high - 1e-9 * step) break;
  }
  return out;
}

std::string chart_html(const Chart& chart) {
  Chart c = chart;
  for (Curve& curve : c.curves)
    for (std::vector<double>* values : {&curve.y, &curve.low, &curve.high})
      for (double& v : *values)
        if (!(std::abs(v) < 1e100))  // sums and differences stay finite, and are not lost below
          v = std::nan("");
        else if (std::abs(v) < 1e-100)
          v = 0;
  std::erase_if(c.curves, [](const Curve& curve) { return !std::isfinite(newest(curve.y)); });
  if (c.curves.empty()) return "";
  Frame f;
  bool dense = false;
  for (Curve& curve : c.curves) {
    for (const double x : curve.x) f.x.add(x);
    dense = dense || curve.x.size() > kMostPoints;
    curve = thinned(curve, kMostPoints);
  }
  std::vector<Curve> measured = c.curves;
  if (c.stacked) {
    Curve sum = c.curves[0];
    for (size_t k = 1; k < c.curves.size(); ++k)
      for (size_t i = 0; i < sum.y.size() && i < c.curves[k].y.size(); ++i) sum.y[i] += c.curves[k].y[i];
    sum.low.clear(), sum.high.clear();
    measured = {sum};
  }
  if (f.x.low == f.x.high) f.x = {f.x.low - 1, f.x.high + 1};
  f.y = range_of(measured, c.from_zero || c.stacked);
  const std::string axis = axes(c, f);
  std::string svg =
      fmt::format(R"(<svg viewBox="0 0 {} {}" role="img" aria-label="{}" data-x="{:.7g} {:.7g}" data-name="{}">{})",
                  kWidth, kHeight, html(c.title), f.x.low, f.x.high, html(c.x_name), axis);
  svg += fmt::format(R"(<svg x="{0}" y="{3}" width="{1}" height="{2}" viewBox="{0} {3} {1} {2}">)", kLeft - 4,
                     kWidth - kLeft - kRight + 8, kHeight - kBottom - kTop + 8,
                     kTop - 4);  // cuts what lies outside of the frame
  if (c.stacked)
    svg += stack_svg(c.curves, f);
  else
    for (const Curve& curve : c.curves) svg += curve_svg(curve, f, dense);
  svg += "</svg>";
  for (size_t i = 0; i < c.curves.size(); ++i)
    svg += fmt::format(R"(<g data-of="{}" data-x="{}" data-y="{}"></g>)", i, compact(c.curves[i].x),
                       values_text(c.curves[i].y));
  svg += fmt::format(R"(<line class="cursor" y1="{}" y2="{}"/></svg>)", kTop, kHeight - kBottom);
  return fmt::format(
             R"(<figure><figcaption title="{}">{} <small>{}</small><output></output></figcaption>{}{}</figure>)",
             html(c.help), html(c.title), html(c.unit), legend(c.curves), svg) +
         "\n";
}

}  // namespace dapo
