// The metrics of a run, read from its folder while it may still be running, elsewhere, or be damaged.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "host/train/metrics.h"

namespace dapo {

/// The complete lines of a file that may grow, be cut back or be replaced while it is read.
class LineFollower {
 public:
  explicit LineFollower(std::string path) : path_(std::move(path)) {}
  ~LineFollower();
  LineFollower(const LineFollower&) = delete;
  LineFollower& operator=(const LineFollower&) = delete;

  /// The next line without its end; false if there is none yet. A line longer than 16 MiB is given as "".
  bool next(std::string& line);
  /// Once true after the file was cut back or replaced: the next line is its first.
  bool restarted() { return std::exchange(restarted_, false); }
  bool exists() const { return fd_ >= 0; }
  /// Bytes at the end of the file that no line end follows.
  size_t unfinished() const { return buffer_.size() - begin_; }

 private:
  bool fill();
  bool open_again();

  const std::string path_;
  int fd_ = -1;
  int64_t offset_ = 0;  // of the end of buffer_ in the file
  std::string buffer_;
  size_t begin_ = 0, searched_ = 0;
  bool restarted_ = false, skipping_ = false;
};

/// A line of metrics.jsonl. A null is NaN; fields that are no numbers are left out.
struct MetricsLine {
  int64_t step = 0;
  Fields fields;  ///< without "step"
  std::vector<std::string> alarms;
};
/// Nothing if the line is not a JSON object with a step.
std::optional<MetricsLine> parse_metrics(std::string_view line);

/// A run's figures by name, each with the steps that have it.
class MetricsLog {
 public:
  struct Column {
    std::string name;
    std::vector<double> steps, values;
  };
  struct Alarm {
    int64_t step;
    std::string text;
  };

  /// Steps that a resumed run computed again replace those of the run before it.
  void add(MetricsLine line);
  /// Reads a metrics.jsonl to its end. Lines that are not metrics are counted.
  static MetricsLog read(const std::string& path);

  /// In the order of their first appearance.
  const std::vector<Column>& columns() const { return columns_; }
  const Column* find(std::string_view name) const;
  /// The newest value that is a number; NaN if there is none.
  double last(std::string_view name) const;
  const std::vector<Alarm>& alarms() const { return alarms_; }
  int64_t last_step() const { return last_step_; }  ///< -1 before the first line
  size_t unreadable() const { return unreadable_; }

 private:
  void drop_from(int64_t step);

  std::vector<Column> columns_;
  std::map<std::string, size_t, std::less<>> index_;
  std::vector<Alarm> alarms_;
  int64_t last_step_ = -1;
  size_t unreadable_ = 0;
};

}  // namespace dapo
