// The one table that binds keys to members of Config: reading, --set, writing and help walk it.
#pragma once

#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "host/train/settings.h"

namespace dapo {

/// A pointer to a member of Config.
using Member = std::variant<std::string*, bool*, int*, uint64_t*, double*, float*, std::vector<std::string>*,
                            std::vector<int>*, DeviceChoice*, DTypeChoice*, RowFormat*, PromptStyle*, OverlongPrompts*,
                            LrSchedule*, LossAgg*, OldLogProbs*, Surplus*, LossKind*, KlKind*, Preset*, AdvEstimator*,
                            Transport*, ReduceDType*, std::vector<RewardTerm>*>;

/// What a value must be beyond its type: one of `choices` ("a|b|c"), or a finite number from low to high.
struct Rule {
  std::string_view choices = {};
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  bool above_low = false;      ///< low itself is out
  std::string_view zero = {};  ///< a word that may stand in place of a number, and is stored as 0
};

/// The setting's name in other programs, where it differs. verl: the whole key, but for "actor_rollout_ref.".
struct OtherNames {
  std::string_view verl = {}, trl = {};
};

struct Setting {
  std::string_view key;        ///< "section.field"
  Member (*member)(Config&);   ///< its place in a Config
  std::string_view enum_list;  ///< choices() of the member's type; "" if it is not an enum
  Rule rule;
  std::string_view help;  ///< what it does, with its unit
  OtherNames other = {};

  std::string_view section() const { return key.substr(0, key.find('.')); }
  std::string_view field() const { return key.substr(key.find('.') + 1); }
  std::string_view choices() const { return enum_list.empty() ? rule.choices : enum_list; }
};

struct Section {
  std::string_view name, help;
};

struct PresetInfo {
  Preset preset;
  std::string_view paper;                  ///< what it is, and where from
  std::vector<std::string_view> settings;  ///< "section.field=value" where it differs from the defaults
};
/// In the order of the enum.
const std::vector<PresetInfo>& all_presets();

/// All settings and sections, in the order of settings.h.
std::span<const Setting> all_settings();
std::span<const Section> all_sections();
/// The setting of a key; nullptr if there is none.
const Setting* find_setting(std::string_view key);

}  // namespace dapo
