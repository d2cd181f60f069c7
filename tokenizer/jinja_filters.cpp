// Filters of single values.
#include "tokenizer/jinja_filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_map>

#include "tokenizer/jinja_text.h"

namespace dapo::jinja {

namespace {

/// str(value), which keeps the markup flag.
Value soft(Renderer& r, const Value& v) {
  return v.is_string() ? v : r.text(v.str());
}

template <std::string (*kMap)(std::string_view)>
Value mapped(Renderer& r, const Value& v, Args& args) {
  const Bound none(r, "this filter", args, {});
  const Value text = soft(r, v);
  return r.text(kMap(text.text()), text.is_safe());
}

Value trim(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "trim", args, {"chars"});
  const std::string characters = a.text(0, "");
  const Value text = soft(r, v);
  const bool given = a[0] && !a[0]->is_none();
  return r.text(std::string(strip(text.text(), true, true, given ? &characters : nullptr)), text.is_safe());
}

Value replace_filter(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "replace", args, {"old", "new", "count"});
  const std::string text = r.str(v), old = r.str(a.need(0)), by = r.str(a.need(1));
  const int64_t count = a[2] && a[2]->is_none() ? -1 : a.integer(2, -1);
  r.reserve(replaced_size(text, old, by, count));
  return Value(replace(text, old, by, count));
}

Value tojson(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = a.flag(0);
  style.sort_keys = a.flag(3);
  if (a[1] && !a[1]->is_none()) {
    style.item = ",";
    if (a[1]->is_string()) {
      style.indent = a[1]->text();
    } else {
      const int64_t n = a.integer(1, 0);
      if (n > 1000) r.error("tojson: an indent of {}", n);
      style.indent = std::string(static_cast<size_t>(std::max<int64_t>(n, 0)), ' ');
    }
  }
  if (a[2] && !a[2]->is_none()) {
    const std::vector<Value> two = r.iterate(*a[2]);
    if (two.size() != 2) r.error("tojson: separators are two strings");
    style.item = two[0].str();
    style.key = two[1].str();
  }
  std::string out;
  append_json(r, v, style, out);
  return r.text(std::move(out));
}

Value default_filter(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "default", args, {"default_value", "boolean"});
  if (!v.is_undefined() && !(a.flag(1) && !v.truth())) return v;
  return a[0] ? *a[0] : Value("");
}

Value string_filter(Renderer& r, const Value& v, Args&) {
  return soft(r, v);
}

Value safe(Renderer& r, const Value& v, Args&) {
  return r.text(v.str(), true);
}

Value escape(Renderer& r, const Value& v, Args&) {
  return v.is_safe() ? v : r.text(escape_html(r.str(v)), true);
}
Value force_escape(Renderer& r, const Value& v, Args&) {
  return r.text(escape_html(r.str(v)), true);
}

/// Python's float(text): digits, sign, exponent, inf and nan, surrounding white space.
std::optional<double> parse_real(std::string_view text) {
  text = strip(text, true, true);
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || failure == std::errc::invalid_argument || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<int64_t> parse_integer(std::string_view text, int base) {
  text = strip(text, true, true);
  if (text.starts_with('+')) text.remove_prefix(1);
  int64_t value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || failure != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Value int_filter(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "int", args, {"default", "base"});
  const Value otherwise = a[0] ? *a[0] : Value(0);
  std::optional<double> real;
  if (v.is_integral()) return v.integer();
  if (v.is(Kind::big)) return v;
  if (v.is_string()) {
    const int64_t base = a.integer(1, 10);
    if (base < 2 || base > 36) r.error("int: a base of {}", base);
    if (const auto whole = parse_integer(v.text(), static_cast<int>(base))) return *whole;
    real = parse_real(v.text());
  } else if (v.is(Kind::real)) {
    real = v.real();
  } else if (v.is_undefined()) {
    r.error("{}", v.text());
  }
  if (!real || !std::isfinite(*real)) return otherwise;
  if (std::fabs(*real) >= 0x1p63) r.error("int: {} is beyond 64 bits", *real);
  return static_cast<int64_t>(*real);
}

Value float_filter(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "float", args, {"default"});
  if (v.is_undefined()) r.error("{}", v.text());
  if (v.is_number()) return v.real();
  if (v.is_string())
    if (const auto real = parse_real(v.text())) return *real;
  return a[0] ? *a[0] : Value(0.0);
}

Value abs_filter(Renderer& r, const Value& v, Args&) {
  if (v.is(Kind::real)) return std::fabs(v.real());
  const int64_t n = r.integer(v, "abs");
  return n < 0 ? r.arithmetic("-", Value(0), Value(n)) : Value(n);
}

Value round_filter(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "round", args, {"precision", "method"});
  const int64_t digits = a.integer(0, 0);
  const std::string method = a.text(1, "common");
  if (v.is_undefined()) r.error("{}", v.text());
  if (!v.is_number() || v.is(Kind::big)) r.error("round: a number is expected, not {}", v.type_name());
  if (digits < -300 || digits > 300) r.error("round: a precision of {}", digits);
  if (method == "ceil" || method == "floor") {
    const double scale = std::pow(10.0, static_cast<double>(digits)), scaled = v.real() * scale;
    return (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale;
  }
  if (method != "common") r.error("round: method must be common, ceil or floor");
  if (v.is_integral() && digits >= 0) return v.integer();
  if (v.is_integral()) {
    const double scale = std::pow(10.0, static_cast<double>(-digits));
    return static_cast<int64_t>(std::nearbyint(v.real() / scale) * scale);
  }
  if (digits > 22 || !std::isfinite(v.real())) return v.real();
  if (digits < 0) {
    const double scale = std::pow(10.0, static_cast<double>(-digits));
    return std::nearbyint(v.real() / scale) * scale;
  }
  return std::strtod(fmt::format("{:.{}f}", v.real(), static_cast<int>(digits)).c_str(), nullptr);  // rounds correctly
}

Value indent_filter(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "indent", args, {"width", "first", "blank"});
  std::string by(4, ' ');
  if (a[0] && a[0]->is_string()) {
    by = a[0]->text();
  } else if (a[0]) {
    const int64_t n = a.integer(0, 4);
    if (n > 1 << 16) r.error("indent: a width of {}", n);
    by.assign(static_cast<size_t>(std::max<int64_t>(n, 0)), ' ');
  }
  const std::string text = r.str(v) + "\n";
  std::string out = a.flag(1) ? by : "";
  bool first = true;
  for (const std::string_view line : split_lines(text, false)) {
    r.reserve(line.size() + by.size());
    if (!std::exchange(first, false)) {
      out += '\n';
      if (a.flag(2) || !line.empty()) out += by;
    }
    out += line;
  }
  return Value(std::move(out), v.is_safe());
}

Value center(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "center", args, {"width"});
  Args inner;
  inner.positional.emplace_back(a.integer(0, 80));
  const Value text = soft(r, v);
  return find_method(text, "center")(r, text, inner);
}

Value truncate(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "truncate", args, {"length", "killwords", "end", "leeway"});
  const std::string text = r.str(v), end = a.text(2, "...");
  const int64_t length = a.integer(0, 255), leeway = a[3] && a[3]->is_none() ? 5 : a.integer(3, 5);
  const auto n = static_cast<int64_t>(length_of(text)), e = static_cast<int64_t>(length_of(end));
  if (length < e || leeway < 0) r.error("truncate: expected length >= {} and leeway >= 0", e);
  if (n <= length + leeway) return v;
  std::string cut = text.substr(0, offset_of(text, static_cast<size_t>(length - e)));
  if (!a.flag(1)) cut = cut.substr(0, cut.rfind(' '));
  return r.text(cut + end);
}

Value format_filter(Renderer& r, const Value& v, Args& args) {
  if (!args.positional.empty() && !args.named.empty()) r.error("format: either positional or named arguments");
  if (args.named.empty()) return r.text(percent_format(r, r.str(v), r.list(args.positional, Kind::tuple)));
  Dict named;
  for (const auto& [name, value] : args.named) named.set(name, value);
  return r.text(percent_format(r, r.str(v), named));
}

Value file_size(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "filesizeformat", args, {"binary"});
  const bool binary = a.flag(0);
  const std::optional<double> bytes = v.is_string()   ? parse_real(v.text())
                                      : v.is_number() ? std::optional(v.real())
                                                      : std::nullopt;
  if (!bytes || !std::isfinite(*bytes)) r.error("filesizeformat: a number is expected, not {}", v.repr().substr(0, 80));
  if (*bytes == 1) return r.text("1 Byte");
  const double base = binary ? 1024 : 1000;
  if (*bytes < base) return r.text(fmt::format("{} Bytes", static_cast<int64_t>(*bytes)));
  static constexpr std::string_view kPrefixes = "kMGTPEZY";
  size_t i = 0;
  double unit = base * base;
  for (; i + 1 < kPrefixes.size() && *bytes >= unit; ++i) unit *= base;
  const std::string prefix = binary ? fmt::format("{}i", i == 0 ? 'K' : kPrefixes[i]) : std::string(1, kPrefixes[i]);
  return r.text(fmt::format("{:.1f} {}B", base * *bytes / unit, prefix));
}

/// The items of a dict as attributes of a tag: ` class="a" id="b"`.
Value xml_attributes(Renderer& r, const Value& v, Args& args) {
  const Bound a(r, "xmlattr", args, {"autospace"});
  if (!v.is_dict()) r.error("xmlattr: a mapping is expected, not {}", v.type_name());
  std::string out;
  for (const auto& [key, value] : v.dict().items) {
    if (value.is_none() || value.is_undefined()) continue;
    const std::string name = r.str(key);
    if (name.find_first_of(" \t\r\n\f\v/>=") != name.npos)
      r.error("xmlattr: invalid character in attribute name: {}", key.repr().substr(0, 80));
    const auto escaped = [&](const Value& x) { return x.is_safe() ? x.text() : escape_html(r.str(x)); };
    out += fmt::format("{}{}=\"{}\"", out.empty() ? "" : " ", escaped(key), escaped(value));
  }
  return r.text(out.empty() || !a.flag(0, true) ? out : " " + out);
}

Value word_count(Renderer& r, const Value& v, Args&) {
  int64_t words = 0;
  bool inside = false;
  const std::string text = r.str(v);  // the views below point into it
  for (const std::string_view c : characters_of(text)) {
    const bool word = c == "_" || all_are(c, 'n');
    words += word && !inside;
    inside = word;
  }
  return words;
}

Value url_encode(Renderer& r, const Value& v, Args&) {
  if (!v.is_string()) r.error("urlencode: a string is expected, not {}", v.type_name());
  std::string out;
  for (const char c : v.text()) {
    if (std::isalnum(static_cast<unsigned char>(c)) || std::string_view("_.-~/").find(c) != std::string_view::npos)
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return r.text(std::move(out));
}

}  // namespace

Operation find_filter(std::string_view name) {
  static const std::unordered_map<std::string_view, Operation> all = [] {
    std::unordered_map<std::string_view, Operation> out = {{"upper", mapped<upper>},
                                                           {"lower", mapped<lower>},
                                                           {"title", mapped<title_filter>},
                                                           {"capitalize", mapped<capitalize>},
                                                           {"trim", trim},
                                                           {"replace", replace_filter},
                                                           {"tojson", tojson},
                                                           {"default", default_filter},
                                                           {"d", default_filter},
                                                           {"string", string_filter},
                                                           {"safe", safe},
                                                           {"escape", escape},
                                                           {"e", escape},
                                                           {"forceescape", force_escape},
                                                           {"int", int_filter},
                                                           {"float", float_filter},
                                                           {"abs", abs_filter},
                                                           {"round", round_filter},
                                                           {"indent", indent_filter},
                                                           {"center", center},
                                                           {"truncate", truncate},
                                                           {"format", format_filter},
                                                           {"wordcount", word_count},
                                                           {"urlencode", url_encode},
                                                           {"filesizeformat", file_size},
                                                           {"xmlattr", xml_attributes}};
    for (const auto& [key, operation] : list_filters()) out.emplace(key, operation);
    return out;
  }();
  const auto found = all.find(name);
  return found == all.end() ? nullptr : found->second;
}

}  // namespace dapo::jinja
