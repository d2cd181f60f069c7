// The one table that binds keys to members of Config: reading, --set, writing and help walk it.
#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "host/train/settings.h"

namespace dapo {

/// What a value must be beyond its type: one of `choices` ("a|b|c"), or a finite number from low to high.
struct Rule {
  std::string_view choices = {};
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  bool above_low = false;  ///< low itself is out
};

struct Setting {
  std::string_view key;  ///< "section.field"
  std::variant<std::string*, bool*, int*, uint64_t*, double*, float*, std::vector<std::string>*, std::vector<int>*>
      member;
  Rule rule;

  std::string_view section() const { return key.substr(0, key.find('.')); }
  std::string_view field() const { return key.substr(key.find('.') + 1); }
};

/// All settings, in the order of config.h, bound to `config`.
std::vector<Setting> settings_of(Config& config);

}  // namespace dapo
