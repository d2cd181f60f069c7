// Settings as text: a configuration as a .cfg file, and all settings with what they do.
#include <fmt/format.h>

#include <cmath>

#include "core/choices.h"
#include "host/train/settings_table.h"

namespace dapo {
namespace {

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char ch : text) {
    const auto byte = static_cast<unsigned char>(ch);
    if (ch == '"' || ch == '\\')
      (out += '\\') += ch;
    else if (byte < 0x20 || byte == 0x7f)
      out += fmt::format("\\u{:04x}", byte);
    else
      out += ch;
  }
  return out + '"';
}

/// A value as TOML.
struct Writer {
  std::string operator()(const RewardTerm* v) const {
    std::string out =
        fmt::format("{{name = {}, verifier = {}, weight = {}", quoted(v->name), quoted(v->verifier), v->weight);
    if (!v->pattern.empty()) out += ", pattern = " + quoted(v->pattern);
    if (!v->command.empty()) out += ", command = " + (*this)(&v->command);
    return out + "}";
  }
  std::string operator()(const std::string* v) const { return quoted(*v); }
  std::string operator()(const bool* v) const { return *v ? "true" : "false"; }
  template <class T>
  std::string operator()(const T* v) const {
    if constexpr (std::is_enum_v<T>)
      return quoted(choice_name(*v));
    else
      return fmt::format("{}", *v);
  }
  template <class T>
  std::string operator()(const std::vector<T>* v) const {
    std::string out;
    for (const T& one : *v) (out += out.empty() ? "" : ", ") += (*this)(&one);
    return "[" + out + "]";
  }
};

std::string value_text(const Setting& s, Config& config) {
  const Member member = s.member(config);
  if (const auto* number = std::get_if<int*>(&member); number != nullptr && !s.rule.zero.empty() && **number == 0)
    return quoted(s.rule.zero);
  return std::visit(Writer{}, member);
}

/// What a value may be: "more than 0, at most 1", or the choices with `separator`; "" if its type says it all.
std::string values_text(const Setting& s, std::string_view separator) {
  if (!s.choices().empty()) return choice_list(s.choices(), separator);
  if (std::isinf(s.rule.low)) return "";
  const std::string high = std::isinf(s.rule.high) ? "" : fmt::format(", at most {}", s.rule.high);
  return fmt::format("{}{}{} {}{}", s.rule.zero, s.rule.zero.empty() ? "" : ", or ",
                     s.rule.above_low ? "more than" : "at least", s.rule.low, high);
}

/// "verl: `a`; TRL: `b`", with `quote` around each name.
std::string other_names(const OtherNames& other, std::string_view quote) {
  std::string out;
  if (!other.verl.empty()) out += fmt::format("verl: {0}{1}{0}", quote, other.verl);
  if (!other.trl.empty()) out += fmt::format("{}TRL: {}{}{}", out.empty() ? "" : "; ", quote, other.trl, quote);
  return out;
}

/// `text` as comment lines of at most 100 letters.
std::string comment(std::string_view text) {
  constexpr size_t kWidth = 98;
  std::string out;
  while (!text.empty()) {
    size_t end = text.size() <= kWidth ? text.size() : text.rfind(' ', kWidth);
    if (end == std::string_view::npos) end = text.size();
    out += fmt::format("# {}\n", text.substr(0, end));
    text.remove_prefix(std::min(text.size(), end + 1));
  }
  return out;
}

/// What a preset sets, "section.field = value, ..."; the defaults' is "nothing".
std::string preset_settings(const PresetInfo& p, std::string_view quote) {
  std::string out;
  for (const std::string_view s : p.settings) {
    const size_t equals = s.find('=');
    out +=
        fmt::format("{}{}{} = {}{}", out.empty() ? "" : ", ", quote, s.substr(0, equals), s.substr(equals + 1), quote);
  }
  return out.empty() ? "nothing" : out;
}

/// A cell of a Markdown table.
std::string cell(std::string_view text) {
  std::string out;
  for (const char ch : text) {
    if (ch == '|' || ch == '\\' || ch == '<') out += '\\';
    out += ch;
  }
  return out;
}

}  // namespace

std::string config_text(const Config& config) {
  Config copy = config;
  std::string out, section;
  for (const Setting& s : all_settings()) {
    if (s.section() != section) out += fmt::format("{}[{}]\n", section.empty() ? "" : "\n", s.section());
    section = s.section();
    out += fmt::format("{} = {}\n", s.field(), value_text(s, copy));
  }
  return out;
}

std::string settings_help() {
  Config defaults;
  std::string out = comment(
      "Every setting with its default. A .cfg file names only what differs from it; --set section.field=value goes "
      "over "
      "the file. \"verl:\" and \"TRL:\" give the name there, if it differs.");
  for (const Section& section : all_sections()) {
    out += fmt::format("\n# ---- {}\n[{}]\n", section.help, section.name);
    for (const Setting& s : all_settings()) {
      if (s.section() != section.name) continue;
      const std::string other = other_names(s.other, "");
      std::string presets;
      if (s.key == "algorithm.preset")
        for (const PresetInfo& p : all_presets())
          presets += comment(fmt::format("{} ({}) sets {}", choice_name(p.preset), p.paper, preset_settings(p, "")));
      out += fmt::format("\n{}{}{}{}{} = {}\n", comment(s.help), presets, comment(values_text(s, " | ")),
                         comment(other), s.field(), value_text(s, defaults));
    }
  }
  return out;
}

std::string settings_markdown() {
  Config defaults;
  std::string out =
      "# Settings\n\n"
      "Every setting with its default; `make docs` writes this page from host/train/settings_table.cpp. A .cfg file "
      "(TOML) names\nonly what differs; `--set section.field=value` goes over the file. `./dapo_train --settings` "
      "prints the same as a .cfg file.\n";
  for (const Section& section : all_sections()) {
    out += fmt::format("\n## {}\n\n{}\n\n| key | default | values | what it does |\n|---|---|---|---|\n", section.name,
                       section.help);
    for (const Setting& s : all_settings()) {
      if (s.section() != section.name) continue;
      const std::string other = other_names(s.other, "`");
      out += fmt::format("| `{}` | `{}` | {} | {}{}{} |\n", s.field(), value_text(s, defaults), values_text(s, ", "),
                         cell(s.help), other.empty() ? "" : ". ", other);
    }
  }
  out +=
      "\n## Presets\n\n`algorithm.preset` sets these; a setting that the file or `--set` names goes over them, "
      "wherever "
      "it is written. [objectives.md](objectives.md)\nhas the equations.\n\n| preset | what it is | sets "
      "|\n|---|---|---|\n";
  for (const PresetInfo& p : all_presets())
    out += fmt::format("| `{}` | {} | {} |\n", choice_name(p.preset), p.paper, preset_settings(p, "`"));
  return out;
}

}  // namespace dapo
