// Hints for what is not a setting: the names of verl, TRL and OpenRLHF, the nearest name, lines that are not TOML.
#pragma once

#include <string>
#include <string_view>

namespace dapo {

/// Letters to insert, delete or replace to turn a into b (Levenshtein 1965).
size_t edit_distance(std::string_view a, std::string_view b);

/// The end of an error about an unknown key ("section.field" or a name alone): "did you mean actor.lr?", why there is
/// no such setting, or, if nothing is near, where the settings are listed.
std::string name_hint(std::string_view key);

/// What is wrong with a line of a .cfg file that is not TOML, such as "; text needs quotes: path = \"models/x\""; ""
/// if it is not a known mistake.
std::string value_hint(std::string_view line);

}  // namespace dapo
