#include "host/train/settings.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <fstream>
#include <variant>

#include "core/check.h"
#include "core/choices.h"
#include "core/files.h"
#include "host/train/settings_names.h"
#include "host/train/settings_table.h"

namespace dapo {
namespace {
struct BrokenToml {};
[[noreturn]] void broken_toml() {
  throw BrokenToml();
}
}  // namespace
}  // namespace dapo

// On a text such as "[{", the library (3.3) fails an assertion instead of reporting an error.
#define TOML_ASSERT(holds) ((holds) ? static_cast<void>(0) : ::dapo::broken_toml())
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

namespace dapo {
namespace {

/// "text", "whole number", ... of a TOML value, for messages.
std::string_view kind_of(const toml::node& v) {
  if (v.is_string()) return "text";
  if (v.is_integer()) return "whole number";
  if (v.is_floating_point()) return "number";
  if (v.is_boolean()) return "true/false";
  if (v.is_array()) return "list";
  return v.is_table() ? "section" : "date or time";
}

/// Reads a TOML value into the member of a setting.
struct Reader {
  std::string where;  ///< "configs/x.cfg:12" or "--set a.b=c"
  const Setting& s;

  template <class... A>
  [[noreturn]] void wrong(fmt::format_string<A...> text, A&&... args) const {
    fail_input("{}: {} {}", where, s.key, fmt::format(text, std::forward<A>(args)...));
  }
  [[noreturn]] void wrong_kind(std::string_view expected, const toml::node& v) const {
    wrong("expects a {}, found a {}", expected, kind_of(v));
  }

  double in_range(double x, const std::string& shown) const {
    const Rule& r = s.rule;
    if (!std::isfinite(x)) wrong("= {} is not a finite number", shown);
    if (x > r.low || (x == r.low && !r.above_low)) {
      if (x <= r.high) return x;
      wrong("= {} is too large: at most {}", shown, r.high);
    }
    wrong("= {} is too small: {} {}", shown, r.above_low ? "more than" : "at least", r.low);
  }
  int64_t whole(const toml::node& v, double low, double high) const {
    if (!s.rule.zero.empty() && v.value_exact<std::string>() == s.rule.zero) return 0;
    const auto x = v.value_exact<int64_t>();
    if (!x) wrong_kind("whole number", v);
    const auto d = static_cast<double>(in_range(static_cast<double>(*x), std::to_string(*x)));
    if (d < low || d > high) wrong("= {} is outside {} ... {}", *x, low, high);
    return *x;
  }
  std::string text(const toml::node& v) const {
    const auto x = v.value_exact<std::string>();
    if (!x) wrong_kind("text", v);
    if (x->find('\0') != std::string::npos) wrong("contains a zero byte");
    if (!s.choices().empty() && choice_index(s.choices(), *x) < 0)
      wrong("= \"{}\" is not known: one of {}", *x, s.choices());
    return *x;
  }
  void operator()(std::string* to, const toml::node& v) const { *to = text(v); }
  template <class E>
  requires std::is_enum_v<E>
  void operator()(E* to, const toml::node& v) const { *to = static_cast<E>(choice_index(s.choices(), text(v))); }
  void operator()(bool* to, const toml::node& v) const {
    const auto x = v.value_exact<bool>();
    if (!x) wrong_kind("true/false", v);
    *to = *x;
  }
  void operator()(int* to, const toml::node& v) const { *to = static_cast<int>(whole(v, -0x1p31, 0x1p31 - 1)); }
  void operator()(uint64_t* to, const toml::node& v) const { *to = static_cast<uint64_t>(whole(v, 0, 0x1p63)); }
  void operator()(double* to, const toml::node& v) const {
    if (!v.is_number()) wrong_kind("number", v);
    const double x = v.is_integer() ? static_cast<double>(v.as_integer()->get()) : v.as_floating_point()->get();
    *to = in_range(x, fmt::format("{}", x));
  }
  void operator()(float* to, const toml::node& v) const {
    double x = 0;
    (*this)(&x, v);
    *to = static_cast<float>(x);
    if (!std::isfinite(*to)) wrong("= {} is not a finite number", x);
  }
  void operator()(RewardTerm* to, const toml::node& v) const {
    constexpr std::string_view kFields = "name|verifier|weight|pattern|command";
    const toml::table* table = v.as_table();
    if (table == nullptr)
      wrong("expects a list of tables {{name = \"...\", verifier = \"...\"}}, found a {}", kind_of(v));
    for (const auto& [key, value] : *table) {
      const std::string name = fmt::format("{}.{}", s.key, key.str());
      const Setting field{.key = name, .member = s.member, .enum_list = {}, .rule = {}, .help = {}};
      const Reader read{where, field};
      switch (choice_index(kFields, key.str())) {
        case 0:
          read(&to->name, value);
          break;
        case 1:
          read(&to->verifier, value);
          break;
        case 2:
          read(&to->weight, value);
          break;
        case 3:
          read(&to->pattern, value);
          break;
        case 4:
          read(&to->command, value);
          break;
        default:
          wrong("has a table with the unknown field {}: known are {}", key.str(), choice_list(kFields, ", "));
      }
    }
  }
  template <class T>
  void operator()(std::vector<T>* to, const toml::node& v) const {
    std::vector<T> list;
    const auto add = [&](const toml::node& one) { (*this)(&list.emplace_back(), one); };
    if (const toml::array* a = v.as_array())
      for (const toml::node& one : *a) add(one);
    else
      add(v);  // a list of one may leave out the brackets
    *to = std::move(list);
  }
};

const Setting& known_setting(const std::string& where, std::string_view key) {
  const Setting* s = find_setting(key);
  if (s == nullptr) fail_input("{}: unknown setting {}; {}", where, key, name_hint(key));
  return *s;
}

void assign(Config& config, const std::string& where, const Setting& s, const toml::node& value) {
  const Reader read{where, s};
  std::visit([&](auto* member) { read(member, value); }, s.member(config));
}

std::string read_text(const std::string& path) {
  constexpr size_t kLargest = 1 << 20;
  std::ifstream in(path, std::ios::binary);
  std::string text(kLargest + 1, '\0');
  if (!in) fail_input("{}: cannot be read; name a .cfg file, such as configs/demo.cfg", path);
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad() || (in.gcount() == 0 && !in.eof())) fail_input("{}: cannot be read; is it a file?", path);
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kLargest) fail_input("{}: is larger than 1 MiB; is it a .cfg file?", path);
  if (const auto format = foreign_format(text); !format.empty()) fail_input("{}: {}", path, format);
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);  // a byte order mark, as editors on Windows write it
  return text;
}

/// Line of the first letter outside ASCII that is neither quoted nor in a comment; 0: none. TOML forbids it, and the
/// library (3.3) then reaches code that it declares unreachable.
int stray_letter(std::string_view text) {
  int line = 1;
  char quote = 0;  // that is open; '#' in a comment
  size_t width = 1;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    line += c == '\n';
    if (quote == '#' || (quote != 0 && width == 1)) {
      if (c == '\n') quote = 0;
    }
    if (quote == 0) {
      if (static_cast<unsigned char>(c) >= 0x80) return line;
      if (c != '#' && c != '"' && c != '\'') continue;
      quote = c;
      width = c != '#' && text.substr(i, 3) == std::string(3, c) ? 3 : 1;
      i += width - 1;
    } else if (quote == '"' && c == '\\') {
      line += text.substr(i + 1, 1) == "\n";
      ++i;
    } else if (c == quote && quote != '#' && text.substr(i, width) == std::string(width, c)) {
      i += width - 1;
      quote = 0;
    }
  }
  return 0;
}

toml::parse_result parse(const std::string& text, const std::string& where) {
  if (const int line = stray_letter(text))
    fail_input("{}:{}: a letter outside ASCII; put it into quotes or a comment", where, line);
  try {
    return toml::parse(text, where);
  } catch (const BrokenToml&) {
    fail_input("{}: not valid TOML: expected a key, as in \"name = value\"", where);
  }
}

/// Line `number`, from 1.
std::string_view line_of(std::string_view text, size_t number) {
  for (; number > 1; --number)
    text.remove_prefix(std::min(text.size(), text.find('\n')) + (text.find('\n') < text.size()));
  return text.substr(0, text.find('\n'));
}

void read_file(Config& config, const std::string& path, const std::string& text) {
  const toml::parse_result parsed = parse(text, path);
  if (!parsed) {
    std::string what(parsed.error().description());
    std::replace(what.begin(), what.end(), '\n', ' ');
    const auto line = parsed.error().source().begin.line;
    const std::string hint = value_hint(line_of(text, line));
    if (hint.starts_with("; text needs quotes")) what.clear();  // the parser's message would mislead
    fail_input("{}:{}: {}", path, line, what.empty() ? hint.substr(2) : what + hint);
  }
  for (const auto& [section, fields] : parsed.table()) {
    const std::string where = fmt::format("{}:{}", path, section.source().begin.line);
    const std::string_view name = section.str();
    if (!fields.is_table())
      fail_input("{}: {} stands outside of any section, such as [actor]; {}", where, name, name_hint(name));
    for (const auto& [field, value] : *fields.as_table()) {
      const std::string place = fmt::format("{}:{}", path, field.source().begin.line);
      assign(config, place, known_setting(place, fmt::format("{}.{}", name, field.str())), value);
    }
    if (std::ranges::find(all_sections(), name, &Section::name) == all_sections().end())
      fail_input("{}: unknown section [{}]", where, name);
  }
}

/// "section.field=value": text needs no quotes; anything else is written as in a file.
void read_setting(Config& config, const std::string& setting) {
  std::string where = "--set " + setting;
  std::replace_if(
      where.begin(), where.end(), [](char ch) { return static_cast<unsigned char>(ch) < ' '; }, ' ');
  const size_t equals = setting.find('=');
  if (equals == std::string::npos || setting.find('.') >= equals)
    fail_input("{}: expects section.field=value, such as --set actor.lr=1e-6{}", where,
               equals == std::string::npos ? "" : "; " + name_hint(setting.substr(0, equals)));
  const size_t end = setting.find_last_not_of(' ', equals - 1) + 1;
  const std::string key = setting.substr(0, end);
  std::string text = setting.substr(equals + 1);
  if (end < equals) text.erase(0, text.find_first_not_of(' '));  // "actor.lr = 1e-6", as in a file
  const Setting& s = known_setting(where, key);
  const Member member = s.member(config);
  const bool texts = std::holds_alternative<std::vector<std::string>*>(member);
  const bool textual = texts || std::holds_alternative<std::string*>(member) || !s.choices().empty() ||
                       (text == s.rule.zero && !text.empty());
  const bool written = !text.empty() && (text[0] == '"' || text[0] == '\'' || (text[0] == '[' && texts));
  if (textual && !written && s.choices().empty() && choice_index("null|Null|NULL|None|none|nil", text) >= 0)
    fail_input("{}: {}; write {}={} for none, or {}='\"{}\"' for the word itself", where, value_hint(setting).substr(2),
               key, texts ? "[]" : "\"\"", key, text);
  if (textual && !written) return assign(config, where, s, toml::value<std::string>(text));
  const toml::parse_result parsed = parse("value = " + text, where);
  if (!parsed || parsed.table().size() != 1)
    fail_input("{}: expects a number, true/false, \"text\" or a [list] after ={}", where,
               textual || text.empty() || text.find('\n') != std::string::npos ? "" : value_hint(setting));
  assign(config, where, s, *parsed.table().get("value"));
}

void read_settings(Config& config, const std::vector<std::string>& settings) {
  for (const std::string& s : settings) read_setting(config, s);
  for (std::string* path : {&config.model.path, &config.model.reference, &config.sft.out, &config.trainer.run_dir})
    *path = expand_home(*path);
  for (const auto& [key, path] :
       {std::pair("sft.out", config.sft.out), std::pair("trainer.run_dir", config.trainer.run_dir)})
    if (const size_t at = path.find('$'); at != path.npos && (path[at + 1] == '{' || std::isalpha(path[at + 1]) != 0))
      fail_input(
          "{} = \"{}\": variables of the shell are not replaced here; write the path itself, or --set {}=... "
          "in double quotes",
          key, path, key);
  for (auto* files : {&config.data.train_files, &config.data.val_files, &config.sft.files})
    for (std::string& path : *files) path = expand_home(path);
}

/// The settings of the preset that `given` names.
void set_preset(Config& config, const Config& given) {
  for (const PresetInfo& p : all_presets())
    if (p.preset == given.algorithm.preset)
      for (const std::string_view s : p.settings) read_setting(config, std::string(s));
}

}  // namespace

void apply_settings(Config& config, const std::vector<std::string>& settings) {
  Config given = config;
  read_settings(given, settings);
  if (given.algorithm.preset != config.algorithm.preset) set_preset(config, given);
  read_settings(config, settings);
}

Config load_config(const std::string& path, const std::vector<std::string>& settings, Use use) {
  const std::string text = read_text(path);
  const auto read = [&](Config& to) {
    read_file(to, path, text);
    read_settings(to, settings);
  };
  Config given, config;
  read(given);  // names the preset, over which everything is read once more
  set_preset(config, given);
  read(config);
  check_config(config, use, path);
  return config;
}

}  // namespace dapo
