// Which settings of a run may change before it goes on from a checkpoint.
#pragma once

#include <string>
#include <vector>

#include "host/train/settings.h"

namespace dapo {

struct SettingChange {
  std::string key, before, now;  ///< values as in a .cfg file
  bool harmless;                 ///< the steps to come stay the same: length, evaluation, saving, memory, threads
};

/// The settings in which `now` differs from `before`, a text by config_text(). A setting that the text lacks had its
/// default.
std::vector<SettingChange> changed_settings(const std::string& before, const Config& now);

}  // namespace dapo
