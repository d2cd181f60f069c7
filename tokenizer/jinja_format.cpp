// Python's two kinds of formatting: "%05.2f" % x and "{:>8}".format(x).
#include <algorithm>
#include <charconv>
#include <cmath>

#include "tokenizer/jinja_render.h"
#include "tokenizer/jinja_text.h"

namespace dapo::jinja {

namespace {

constexpr int64_t kMaxWidth = 1 << 20;

struct Spec {
  std::string fill = " ";
  char align = 0;  // < > ^ =, 0 by type
  char sign = '-';
  bool alternate = false, grouped = false;
  int64_t width = 0;
  std::optional<int64_t> precision;
  char type = 0;
};

/// Consumes a number at the start of `text`.
int64_t leading_number(Renderer& r, std::string_view& text) {
  int64_t n = 0;
  while (!text.empty() && text[0] >= '0' && text[0] <= '9') {
    n = std::min(n * 10 + (text[0] - '0'), kMaxWidth + 1);
    text.remove_prefix(1);
  }
  if (n > kMaxWidth) r.error("a format's width or precision is more than {}", kMaxWidth);
  return n;
}

std::string padded(Renderer& r, const std::string& text, const Spec& spec, char align, size_t sign_bytes = 0) {
  const auto n = static_cast<int64_t>(length_of(text));
  if (n >= spec.width) return text;
  const int64_t more = spec.width - n;
  r.reserve(static_cast<size_t>(more) * spec.fill.size());
  const int64_t left = align == '<' ? 0 : align == '^' ? more / 2 : more;
  std::string before, after;
  for (int64_t i = 0; i < left; ++i) before += spec.fill;
  for (int64_t i = left; i < more; ++i) after += spec.fill;
  if (align == '=') return text.substr(0, sign_bytes) + before + text.substr(sign_bytes);
  return before + text + after;
}

/// Digits of |value| in format f, e or g.
std::string real_digits(Renderer& r, double value, char type, int64_t precision, bool alternate) {
  if (precision > 1000) r.error("a precision of {} digits", precision);
  char format[16], out[1500];
  std::snprintf(format, sizeof format, "%%%s.%d%c", alternate ? "#" : "", static_cast<int>(precision), type);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  std::snprintf(out, sizeof out, format, std::fabs(value));
#pragma GCC diagnostic pop
  return out;
}

std::string grouped(std::string digits) {
  const size_t end = std::min(digits.find_first_not_of("0123456789"), digits.size());
  for (size_t at = end; at > 3;) digits.insert(at -= 3, ",");
  return digits;
}

std::string integer_digits(uint64_t n, char type) {
  char out[80];
  const int base = type == 'x' || type == 'X' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10;
  std::string text(out, std::to_chars(out, out + sizeof out, n, base).ptr);
  return type == 'X' ? upper(text) : text;
}

std::string format_number(Renderer& r, const Value& value, const Spec& spec) {
  const bool integral = value.is_integral() && std::string_view("eEfFgG%").find(spec.type) == std::string_view::npos;
  bool negative = false;
  std::string digits, prefix;
  if (integral) {
    if (spec.type == 'c') r.error("the format 'c' is not supported");
    negative = value.integer() < 0;
    const auto n = static_cast<uint64_t>(value.integer());
    digits = integer_digits(negative ? 0 - n : n, spec.type);
    if (spec.alternate && spec.type != 'd' && spec.type != 0) prefix = std::string("0") + spec.type;
  } else {
    const double x = value.real();
    negative = std::signbit(x) && !std::isnan(x);
    if (!std::isfinite(x)) {
      digits = std::isnan(x) ? "nan" : "inf";
    } else if (spec.type == 0 && !spec.precision) {
      digits = Value(std::fabs(x)).str();
    } else if (spec.type == '%') {
      digits = real_digits(r, x * 100, 'f', spec.precision.value_or(6), spec.alternate) + "%";
    } else {
      const bool general = spec.type == 0 || spec.type == 'n';
      digits = real_digits(r, x, general ? 'g' : spec.type, spec.precision.value_or(6), spec.alternate);
      // Without a type an integral value keeps its ".0".
      if (spec.type == 0 && digits.find_first_of(".e") == digits.npos) digits += ".0";
    }
  }
  if (spec.grouped) digits = grouped(digits);
  const std::string sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  const std::string before = sign + prefix;
  return padded(r, before + digits, spec, spec.align ? spec.align : '>', before.size());
}

std::string format_value(Renderer& r, const Value& value, std::string_view text) {
  if (text.empty()) return r.str(value);
  Spec spec;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  const size_t first = offset_of(text, 1);
  if (first < text.size() && is_align(text[first])) {
    spec.fill = text.substr(0, first);
    spec.align = text[first];
    text.remove_prefix(first + 1);
  } else if (is_align(text[0])) {
    spec.align = text[0];
    text.remove_prefix(1);
  }
  const auto skip = [&](char c) {
    const bool there = text.starts_with(c);
    if (there) text.remove_prefix(1);
    return there;
  };
  for (const char sign : {'+', '-', ' '})
    if (skip(sign)) spec.sign = sign;
  spec.alternate = skip('#');
  if (skip('0') && !spec.align) spec.fill = "0", spec.align = '=';
  spec.width = leading_number(r, text);
  spec.grouped = skip(',');
  if (skip('.')) spec.precision = leading_number(r, text);
  if (!text.empty()) spec.type = text[0], text.remove_prefix(1);
  if (!text.empty() || (spec.type && std::string_view("sdxXobeEfFgGn%c").find(spec.type) == std::string_view::npos))
    r.error("a format that is not supported: '{}{}'", spec.type ? spec.type : ' ', text.substr(0, 40));
  if (value.is(Kind::big) && spec.type) r.error("an integer beyond 64 bits is not formatted");
  if (value.is_number() && !value.is(Kind::big) && spec.type != 's') return format_number(r, value, spec);
  if (spec.type && spec.type != 's') r.error("the format '{}' does not fit a {}", spec.type, value.type_name());
  std::string shown = r.str(value);
  if (spec.precision) shown.resize(offset_of(shown, static_cast<size_t>(*spec.precision)));
  return padded(r, shown, spec, spec.align ? spec.align : '<');
}

/// The value that a replacement field names: "", "0", "name", "0.attribute[key]".
Value field_value(Renderer& r, std::string_view field, const Args& args, size_t& automatic) {
  const size_t cut = std::min(field.find_first_of(".["), field.size());
  const std::string_view first = field.substr(0, cut);
  std::string_view rest = field.substr(cut);
  Value value;
  if (first.empty() || first.find_first_not_of("0123456789") == first.npos) {
    std::string_view digits = first;
    const size_t at = first.empty() ? automatic++ : static_cast<size_t>(leading_number(r, digits));
    if (at >= args.positional.size()) r.error("format: there is no argument {}", at);
    value = args.positional[at];
  } else {
    const auto named =
        std::find_if(args.named.begin(), args.named.end(), [&](const auto& n) { return n.first == first; });
    if (named == args.named.end()) r.error("format: there is no argument '{}'", first.substr(0, 80));
    value = named->second;
  }
  while (!rest.empty()) {
    const bool index = rest[0] == '[';
    const size_t end = std::min(index ? rest.find(']') : rest.find_first_of(".[", 1), rest.size());
    if (index && end == rest.size()) r.error("format: ']' expected");
    std::string_view key = rest.substr(1, end - 1);
    rest.remove_prefix(end + index);
    const bool number = index && !key.empty() && key.find_first_not_of("0123456789") == key.npos;
    value = !index   ? r.attribute(value, key)
            : number ? r.item(value, leading_number(r, key))
                     : r.item(value, Value(key));
    if (value.is_undefined()) r.error("format: {}", value.text());
  }
  return value;
}

/// "{...}" fields of `text`; those inside a field's format are filled in first.
std::string fill_in(Renderer& r, std::string_view text, const Args& args, size_t& automatic, int depth) {
  if (depth > 2) r.error("format: fields nested too deeply");
  std::string out;
  while (!text.empty()) {
    const size_t brace = std::min(text.find_first_of("{}"), text.size());
    out += text.substr(0, brace);
    text.remove_prefix(brace);
    if (text.empty()) break;
    if (text.size() > 1 && text[1] == text[0]) {
      out += text[0];
      text.remove_prefix(2);
      continue;
    }
    if (text[0] == '}') r.error("format: a single '}}'");
    size_t end = 1;
    for (int open = 1; end < text.size(); ++end) {
      open += text[end] == '{';
      open -= text[end] == '}';
      if (open == 0) break;
    }
    if (end == text.size()) r.error("format: a '{{' is not closed");
    std::string_view field = text.substr(1, end - 1);
    text.remove_prefix(end + 1);
    const size_t mark = std::min(field.find_first_of("!:"), field.size());
    Value value = field_value(r, field.substr(0, mark), args, automatic);
    std::string_view rest = field.substr(mark);
    if (rest.starts_with('!')) {
      const char how = rest.size() > 1 ? rest[1] : ' ';
      if (how != 's' && how != 'r') r.error("format: the conversion '!{}' is not supported", how);
      value = r.text(how == 's' ? value.str() : value.repr());
      rest.remove_prefix(2);
    }
    if (rest.starts_with(':')) rest.remove_prefix(1);
    out += format_value(r, value, fill_in(r, rest, args, automatic, depth + 1));
    r.reserve(out.size() / 8);
  }
  return out;
}

}  // namespace

std::string brace_format(Renderer& r, std::string_view text, const Args& args) {
  size_t automatic = 0;
  return fill_in(r, text, args, automatic, 0);
}

std::string percent_format(Renderer& r, std::string_view text, const Value& value) {
  std::string out;
  size_t used = 0;
  const bool tuple = value.is(Kind::tuple);
  const auto next = [&]() -> Value {
    if (!tuple && used == 0) return ++used, value;
    if (!tuple || used >= value.items().size()) r.error("not enough arguments for the format string");
    return value.items()[used++];
  };
  while (!text.empty()) {
    const size_t at = std::min(text.find('%'), text.size());
    out += text.substr(0, at);
    text.remove_prefix(at);
    if (text.empty()) break;
    text.remove_prefix(1);
    if (text.empty()) r.error("an incomplete format");
    if (text[0] == '%') {
      out += '%';
      text.remove_prefix(1);
      continue;
    }
    Value given;
    bool named = false;
    if (text[0] == '(') {
      const size_t end = text.find(')');
      if (end == text.npos) r.error("an incomplete format key");
      if (!value.is_dict()) r.error("a format with names needs a dict");
      given = r.item(value, Value(text.substr(1, end - 1)));
      if (given.is_undefined()) r.error("{}", given.text());
      text.remove_prefix(end + 1);
      named = true;
    }
    Spec spec;
    bool left = false, zero = false;
    for (; !text.empty() && std::string_view("-+ #0").find(text[0]) != std::string_view::npos; text.remove_prefix(1)) {
      left |= text[0] == '-', zero |= text[0] == '0', spec.alternate |= text[0] == '#';
      if (text[0] == '+' || (text[0] == ' ' && spec.sign == '-')) spec.sign = text[0];
    }
    spec.width = leading_number(r, text);
    if (text.starts_with('.')) {
      text.remove_prefix(1);
      spec.precision = leading_number(r, text);
    }
    if (text.empty()) r.error("an incomplete format");
    char type = text[0];
    text.remove_prefix(1);
    if (!named) given = next();
    if (type == 's' || type == 'r') {
      std::string shown = type == 's' ? r.str(given) : given.repr();
      if (spec.precision) shown.resize(offset_of(shown, static_cast<size_t>(*spec.precision)));
      out += padded(r, shown, spec, left ? '<' : '>');
    } else if (std::string_view("dixXoeEfFgG").find(type) != std::string_view::npos) {
      if (!given.is_number() || given.is(Kind::big))
        r.error("%{} format: a number is required, not {}", type, given.type_name());
      if (zero && !left) spec.fill = "0", spec.align = '=';
      if (left) spec.align = '<';
      if (type == 'i' || type == 'd') {
        type = 'd';
        if (given.is(Kind::real)) {
          if (!(std::fabs(given.real()) < 0x1p63)) r.error("%d: {} is beyond 64 bits", given.real());
          given = static_cast<int64_t>(given.real());
        }
      }
      spec.type = type;
      out += format_number(r, given, spec);
    } else {
      r.error("the format character '{}' is not supported", type);
    }
    r.reserve(out.size() / 8);
  }
  if (tuple && used < value.items().size()) r.error("not all arguments converted during string formatting");
  if (!tuple && used == 0 && !value.is_dict() && !value.is(Kind::list))
    r.error("not all arguments converted during string formatting");
  return out;
}

}  // namespace dapo::jinja
