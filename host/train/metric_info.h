// Unit and meaning of a figure of metrics.jsonl, by name.
#pragma once

#include <optional>
#include <string_view>

namespace dapo {

struct MetricInfo {
  const char *unit, *meaning;
};
/// Of a figure of a step, an evaluation (eval/...) or an SFT update; nothing for an unknown name.
std::optional<MetricInfo> metric_info(std::string_view name);

}  // namespace dapo
