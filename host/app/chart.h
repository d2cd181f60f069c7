// Charts as HTML with inline SVG: lines over steps, light and dark by the style of the page (report_page.h).
#pragma once

#include <string>
#include <vector>

namespace dapo {

/// A line of a chart. Points whose y is not finite are gaps.
struct Curve {
  std::string name;
  std::vector<double> x, y;
  std::vector<double> low, high;  ///< an interval around each point, or empty
  int color = 0;
  bool dashed = false;
  bool points = false;  ///< each point is marked: there are few
};

struct Chart {
  std::string title, unit, help;  ///< help: shown for the title
  std::string x_name = "step";
  std::vector<Curve> curves;
  bool stacked = false;    ///< areas on top of each other; the curves have the same x
  bool from_zero = false;  ///< the axis begins at 0
};

/// A figure with title, legend, axes and what the page's script needs to show values under the pointer; "" if no curve
/// has a point. Long curves are averaged over equal parts of the axis, with the band from the least to the largest
/// value; noisy ones are drawn thin under their moving average.
std::string chart_html(const Chart& chart);

/// At most `most` points (of equal parts of the axis): mean of x and y, least and largest y as `low` and `high`. A curve
/// with fewer points is unchanged.
Curve thinned(const Curve& curve, size_t most);

/// Round numbers from at most `low` to at least `high`: about `count` intervals of 1, 2 or 5 times a power of ten.
std::vector<double> ticks(double low, double high, int count);

}  // namespace dapo
