// Names that are not settings here: what verl, TRL and OpenRLHF call them, and the nearest by letters.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "host/train/settings_table.h"

namespace dapo {

/// The end of an error about an unknown key ("section.field" or a name alone): "did you mean actor.lr?", why there is
/// no such setting, or where the settings are listed where nothing is near.
std::string name_hint(std::string_view key, const std::vector<Setting>& table);

/// What is wrong with a line of a .cfg file that is not TOML, such as "; text needs quotes: path = \"models/x\""; ""
/// where nothing is recognised.
std::string value_hint(std::string_view line);

}  // namespace dapo
