#include "host/app/run_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "core/check.h"
#include "data/json_row.h"
#include "data/lines.h"

namespace dapo {
namespace dom = simdjson::dom;
namespace {

constexpr size_t kMostColumns = 512;  // more names than any run has: the file is something else
constexpr size_t kMostAlarms = 10000;

}  // namespace

LineFollower::~LineFollower() {
  if (fd_ >= 0) close(fd_);
}

/// Opens the file if it is not open, or if it is no longer the one of that name, or shorter than what was read.
bool LineFollower::open_again() {
  struct stat open_file {
  }, named{};
  const bool there = stat(path_.c_str(), &named) == 0;
  if (fd_ >= 0 && fstat(fd_, &open_file) == 0 && open_file.st_size >= offset_ &&
      (!there || (open_file.st_ino == named.st_ino && open_file.st_dev == named.st_dev)))
    return false;
  const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  if (fd_ >= 0) close(fd_), restarted_ = true;
  fd_ = fd;
  offset_ = 0;
  buffer_.clear();
  begin_ = searched_ = 0;
  skipping_ = false;
  return true;
}

bool LineFollower::fill() {
  constexpr size_t kBlock = size_t{1} << 18;
  buffer_.erase(0, begin_);
  searched_ -= begin_;
  begin_ = 0;
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (fd_ >= 0) {
      const size_t had = buffer_.size();
      buffer_.resize(had + kBlock);
      const ssize_t n = pread(fd_, buffer_.data() + had, kBlock, offset_);
      buffer_.resize(had + static_cast<size_t>(std::max<ssize_t>(n, 0)));
      offset_ += std::max<ssize_t>(n, 0);
      if (n > 0) return true;
    }
    if (!open_again()) return false;
  }
  return false;
}

bool LineFollower::next(std::string& line) {
  for (;;) {
    const size_t end = buffer_.find('\n', searched_);
    if (end == buffer_.npos) {
      searched_ = buffer_.size();
      if (searched_ - begin_ > kLineLimit) begin_ = searched_, skipping_ = true;
      if (!fill()) return false;
      continue;
    }
    skipping_ = skipping_ || end - begin_ > kLineLimit;
    line = skipping_ ? "" : buffer_.substr(begin_, end - begin_);
    skipping_ = false;
    begin_ = searched_ = end + 1;
    return true;
  }
}

std::optional<MetricsLine> parse_metrics(std::string_view text) try {
  thread_local JsonParser parser;
  dom::object object;
  if (parser.parse(text.data(), text.size(), text.size(), "metrics.jsonl").get(object) != simdjson::SUCCESS) return {};
  MetricsLine line;
  bool has_step = false;
  for (const auto& [key, value] : object) {
    double number = std::nan("");
    dom::array list;
    if (key == "step") {
      has_step = value.get(line.step) == simdjson::SUCCESS && line.step >= 0 && line.step < int64_t{1} << 53;
    } else if (key == "alarms" && value.get(list) == simdjson::SUCCESS) {
      std::string_view alarm;
      for (const dom::element one : list)
        if (one.get(alarm) == simdjson::SUCCESS) line.alarms.emplace_back(alarm);
    } else if (value.is_null() || value.get(number) == simdjson::SUCCESS) {
      line.fields.emplace_back(key, std::isfinite(number) ? number : std::nan(""));
    }
  }
  return has_step ? std::optional(std::move(line)) : std::nullopt;
} catch (const Error&) {
  return {};
}

void MetricsLog::add(MetricsLine line) {
  const double step = static_cast<double>(line.step);
  const bool again = std::ranges::any_of(line.fields, [&](const auto& field) {
    const Column* column = find(field.first);
    return column != nullptr && !column->steps.empty() && column->steps.back() == step;
  });
  if (line.step < last_step_ || again) drop_from(line.step);
  last_step_ = line.step;
  for (const auto& [name, value] : line.fields) {
    const auto at = index_.find(name);
    if (at == index_.end() && columns_.size() >= kMostColumns) continue;
    const size_t i = at != index_.end() ? at->second : index_.emplace(name, columns_.size()).first->second;
    if (i == columns_.size()) columns_.push_back({name, {}, {}});
    Column& column = columns_[i];
    if (!column.steps.empty() && column.steps.back() == step) continue;  // the key appears twice
    column.steps.push_back(step);
    column.values.push_back(value);
  }
  for (std::string& text : line.alarms)
    if (alarms_.size() < kMostAlarms) alarms_.push_back({line.step, std::move(text)});
}

void MetricsLog::drop_from(int64_t step) {
  for (Column& c : columns_) {
    const auto keep = std::ranges::lower_bound(c.steps, static_cast<double>(step)) - c.steps.begin();
    c.steps.resize(static_cast<size_t>(keep));
    c.values.resize(static_cast<size_t>(keep));
  }
  std::erase_if(alarms_, [&](const Alarm& a) { return a.step >= step; });
}

MetricsLog MetricsLog::read(const std::string& path) {
  MetricsLog log;
  LineFollower lines(path);
  for (std::string line; lines.next(line);)
    if (std::optional<MetricsLine> metrics = parse_metrics(line))
      log.add(std::move(*metrics));
    else
      ++log.unreadable_;
  if (!lines.exists()) fail_input("{}: cannot be read: {}", path, std::strerror(errno));
  if (lines.unfinished() > 0) ++log.unreadable_;
  return log;
}

const MetricsLog::Column* MetricsLog::find(std::string_view name) const {
  const auto at = index_.find(name);
  return at == index_.end() ? nullptr : &columns_[at->second];
}

double MetricsLog::last(std::string_view name) const {
  const Column* c = find(name);
  if (c != nullptr)
    for (size_t i = c->values.size(); i-- > 0;)
      if (std::isfinite(c->values[i])) return c->values[i];
  return std::nan("");
}

}  // namespace dapo
