#include "host/train/settings.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <fstream>
#include <variant>

#include "core/check.h"
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

// The library (3.3) asserts that a key follows where the text holds anything else: "[{".
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
    const auto x = v.value_exact<int64_t>();
    if (!x) wrong_kind("whole number", v);
    const auto d = static_cast<double>(in_range(static_cast<double>(*x), std::to_string(*x)));
    if (d < low || d > high) wrong("= {} is outside {} ... {}", *x, low, high);
    return *x;
  }
  void operator()(std::string* to, const toml::node& v) const {
    const auto x = v.value_exact<std::string>();
    if (!x) wrong_kind("text", v);
    if (x->find('\0') != std::string::npos) wrong("holds a zero byte");
    const std::string list = fmt::format("|{}|", s.rule.choices);
    if (!s.rule.choices.empty() &&
        (x->find('|') != std::string::npos || list.find(fmt::format("|{}|", *x)) == std::string::npos))
      wrong("= \"{}\" is not known: one of {}", *x, s.rule.choices);
    *to = *x;
  }
  void operator()(bool* to, const toml::node& v) const {
    const auto x = v.value_exact<bool>();
    if (!x) wrong_kind("true/false", v);
    *to = *x;
  }
  void operator()(int* to, const toml::node& v) const { *to = static_cast<int>(whole(v, -0x1p31, 0x1p31 - 1)); }
  void operator()(uint64_t* to, const toml::node& v) const { *to = static_cast<uint64_t>(whole(v, 0, 0x1p63)); }
  void operator()(double* to, const toml::node& v) const {
    if (!v.is_number()) wrong_kind("number", v);
    const double x = v.is_integer() ? static_cast<double>(*v.value<int64_t>()) : *v.value<double>();
    *to = in_range(x, fmt::format("{}", x));
  }
  void operator()(float* to, const toml::node& v) const {
    double x = 0;
    (*this)(&x, v);
    *to = static_cast<float>(x);
    if (!std::isfinite(*to)) wrong("= {} is not a finite number", x);
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

[[noreturn]] void unknown_key(const std::string& where, std::string_view key, const std::vector<Setting>& table) {
  fail_input("{}: unknown setting {}; {}", where, key, name_hint(key, table));
}

void assign(const std::string& where, std::string_view key, const toml::node& value,
            const std::vector<Setting>& table) {
  const auto s = std::find_if(table.begin(), table.end(), [&](const Setting& t) { return t.key == key; });
  if (s == table.end()) unknown_key(where, key, table);
  const Reader read{where, *s};
  std::visit([&](auto* member) { read(member, value); }, s->member);
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

/// Line of the first letter beyond ASCII outside of quotes and comments, where TOML has none and the library (3.3) runs
/// into what it declares unreachable; 0: none.
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
    fail_input("{}:{}: a letter outside of ASCII, which belongs into quotes or a comment", where, line);
  try {
    return toml::parse(text, where);
  } catch (const BrokenToml&) {
    fail_input("{}: is no TOML: something other than a key stands where one is due, as in [{{x}}]", where);
  }
}

/// Line `number`, from 1.
std::string_view line_of(std::string_view text, size_t number) {
  for (; number > 1; --number)
    text.remove_prefix(std::min(text.size(), text.find('\n')) + (text.find('\n') < text.size()));
  return text.substr(0, text.find('\n'));
}

void read_file(const std::string& path, const std::vector<Setting>& table) {
  const std::string text = read_text(path);
  const toml::parse_result parsed = parse(text, path);
  if (!parsed) {
    std::string what(parsed.error().description());
    std::replace(what.begin(), what.end(), '\n', ' ');
    const auto line = parsed.error().source().begin.line;
    const std::string hint = value_hint(line_of(text, line));
    if (hint.starts_with("; text needs quotes")) what.clear();  // the parser's own words would mislead
    fail_input("{}:{}: {}", path, line, what.empty() ? hint.substr(2) : what + hint);
  }
  for (const auto& [section, fields] : parsed.table()) {
    const std::string where = fmt::format("{}:{}", path, section.source().begin.line);
    const std::string_view name = section.str();
    const bool known = std::any_of(table.begin(), table.end(), [&](const Setting& s) { return s.section() == name; });
    if (!fields.is_table()) {
      fail_input("{}: {} stands outside of any section, such as [actor]; {}", where, section.str(),
                 name_hint(section.str(), table));
    }
    for (const auto& [field, value] : *fields.as_table())
      assign(fmt::format("{}:{}", path, field.source().begin.line), fmt::format("{}.{}", section.str(), field.str()),
             value, table);
    if (!known) fail_input("{}: unknown section [{}]", where, section.str());
  }
}

/// "section.field=value": text needs no quotes, everything else is written as in the file.
void read_setting(const std::string& setting, const std::vector<Setting>& table) {
  std::string where = "--set " + setting;
  std::replace_if(
      where.begin(), where.end(), [](char ch) { return static_cast<unsigned char>(ch) < ' '; }, ' ');
  const size_t equals = setting.find('=');
  if (equals == std::string::npos || setting.find('.') >= equals)
    fail_input("{}: expects section.field=value, such as --set actor.lr=1e-6", where);
  const std::string key = setting.substr(0, equals), text = setting.substr(equals + 1);
  const auto s = std::find_if(table.begin(), table.end(), [&](const Setting& t) { return t.key == key; });
  if (s == table.end()) unknown_key(where, key, table);
  const bool textual =
      std::holds_alternative<std::string*>(s->member) || std::holds_alternative<std::vector<std::string>*>(s->member);
  const bool written = !text.empty() && (text[0] == '"' || text[0] == '\'' ||
                                         (text[0] == '[' && !std::holds_alternative<std::string*>(s->member)));
  if (textual && !written) return assign(where, key, toml::value<std::string>(text), table);
  const toml::parse_result parsed = parse("value = " + text, where);
  if (!parsed || parsed.table().size() != 1)
    fail_input("{}: expects a number, true/false, \"text\" or a [list] after ={}", where,
               textual || text.empty() || text.find('\n') != std::string::npos ? "" : value_hint(setting));
  assign(where, key, *parsed.table().get("value"), table);
}

}  // namespace

void apply_settings(Config& config, const std::vector<std::string>& settings) {
  const std::vector<Setting> table = settings_of(config);
  for (const std::string& s : settings) read_setting(s, table);
  for (std::string* path : {&config.model.path, &config.sft.out, &config.trainer.run_dir}) *path = expand_home(*path);
  for (auto* files : {&config.data.train_files, &config.data.val_files, &config.sft.files})
    for (std::string& path : *files) path = expand_home(path);
}

Config load_config(const std::string& path, const std::vector<std::string>& settings, Use use) {
  Config config;
  read_file(path, settings_of(config));
  apply_settings(config, settings);
  check_config(config, use, path);
  return config;
}

}  // namespace dapo
