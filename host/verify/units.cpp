// Units and other words after a value.
#include <algorithm>
#include <map>

#include "host/verify/boxed_answer.h"

namespace dapo::verify {

namespace {
using std::string_view;

struct Name {
  string_view name, is;
};
/// Names of units, without the plural s. Other words in \text{} count as words, like "apples".
constexpr Name kUnits[] = {{"mm", "mm"},         {"millimeter", "mm"},
                           {"millimetre", "mm"}, {"cm", "cm"},
                           {"centimeter", "cm"}, {"centimetre", "cm"},
                           {"m", "m"},           {"meter", "m"},
                           {"metre", "m"},       {"km", "km"},
                           {"kilometer", "km"},  {"kilometre", "km"},
                           {"in", "in"},         {"inch", "in"},
                           {"inche", "in"},      {"ft", "ft"},
                           {"foot", "ft"},       {"feet", "ft"},
                           {"yd", "yd"},         {"yard", "yd"},
                           {"mi", "mi"},         {"mile", "mi"},
                           {"mg", "mg"},         {"g", "g"},
                           {"gram", "g"},        {"kg", "kg"},
                           {"kilogram", "kg"},   {"lb", "lb"},
                           {"pound", "lb"},      {"oz", "oz"},
                           {"ounce", "oz"},      {"ton", "ton"},
                           {"ml", "ml"},         {"mL", "ml"},
                           {"milliliter", "ml"}, {"l", "l"},
                           {"L", "l"},           {"liter", "l"},
                           {"litre", "l"},       {"gallon", "gal"},
                           {"gal", "gal"},       {"s", "s"},
                           {"sec", "s"},         {"second", "s"},
                           {"min", "min"},       {"minute", "min"},
                           {"h", "h"},           {"hr", "h"},
                           {"hour", "h"},        {"day", "day"},
                           {"week", "week"},     {"month", "month"},
                           {"year", "year"},     {"yr", "year"},
                           {"mph", "mi/h"},      {"radian", "rad"},
                           {"rad", "rad"},       {"dollar", "dollar"},
                           {"cent", "cent"},     {"euro", "euro"},
                           {"square", "2"},      {"sq", "2"},
                           {"cubic", "3"},       {"cu", "3"},
                           {"per", "/"},         {"am", "am"},
                           {"pm", "pm"},         {"AM", "am"},
                           {"PM", "pm"},         {"north", "north"},
                           {"south", "south"},   {"east", "east"},
                           {"west", "west"},     {"J", "J"},
                           {"joule", "J"},       {"N", "N"},
                           {"newton", "N"},      {"W", "W"},
                           {"watt", "W"},        {"V", "V"},
                           {"volt", "V"},        {"Hz", "Hz"},
                           {"K", "K"},           {"kelvin", "K"},
                           {"C", "C"},           {"F", "F"}};
/// Words, also with a plural s, that change a value, or turn it into another answer.
constexpr string_view kNoUnits[] = {
    "ten",        "hundred",   "thousand",   "lakh",       "crore",      "dozen",     "gross",  "half",     "halves",
    "third",      "quarter",   "fourth",     "fifth",      "sixth",      "seventh",   "eighth", "ninth",    "tenth",
    "eleventh",   "twelfth",   "hundredth",  "thousandth", "more",       "less",      "fewer",  "not",      "squared",
    "cubed",      "factorial", "times",      "mod",        "modulo",     "remainder", "least",  "most",     "greater",
    "over",       "to",        "plus",       "minus",      "base",       "if",        "when",   "for",      "where",
    "all",        "no",        "solution",   "only",       "above",      "below",     "under",  "negative", "than",
    "double",     "triple",    "twice",      "choose",     "is",         "are",       "equals", "point",    "divided",
    "multiplied", "added",     "subtracted", "inverse",    "reciprocal", "root",      "one",    "two",      "three",
    "four",       "five",      "six",        "seven",      "eight",      "nine",      "twenty", "thirty",   "forty",
    "fifty",      "sixty",     "seventy",    "eighty",     "ninety"};

/// Calls find with the word, and without its plural s if that gave nothing.
template <class Find>
auto singular_or_plural(string_view word, Find find) {
  auto found = find(word);
  return found || word.size() < 3 || !word.ends_with('s') ? found : find(word.substr(0, word.size() - 1));
}

string_view unit_named(string_view word) {
  const Name* const found = singular_or_plural(word, [](string_view w) {
    const Name* const n =
        std::find_if(std::begin(kUnits), std::end(kUnits), [&](const Name& u) { return u.name == w; });
    return n == std::end(kUnits) ? nullptr : n;
  });
  return found ? found->is : string_view();
}

bool changes_value(string_view word) {
  return singular_or_plural(word, [](string_view w) {
    return w.ends_with("illion") || w.ends_with("illionth") || w.ends_with("fold") ||
           std::find(std::begin(kNoUnits), std::end(kNoUnits), w) != std::end(kNoUnits);
  });
}

bool unit_word(std::span<const Token> tokens, size_t i) {
  const Token& t = tokens[i];
  if (t.kind == Tok::degree || t.kind == Tok::currency) return true;
  if (t.kind != Tok::word) return false;
  const bool known = !unit_named(t.text).empty();
  if (t.text.size() == 1) {
    const bool divides = i > 1 && tokens[i - 1].is(Tok::op, "/") && unit_word(tokens, i - 2);  // km/h
    return known && (t.upright || divides || (i > 0 && tokens[i - 1].kind == Tok::degree));
  }
  if (known || t.text == "unit" || t.text == "units") return true;
  const bool noun = t.text.size() >= 4 && t.spaced && i > 0 && tokens[i - 1].kind == Tok::number &&
                    std::all_of(t.text.begin(), t.text.end(), [](char c) { return c >= 'a' && c <= 'z'; });  // 5 apples
  return (t.upright || noun) && !changes_value(t.text);
}

/// Number of tokens of a power of a unit word that ends before `end`: "cm^2", "cm^{2}", "s^{-2}"; 0 if there is none.
size_t unit_power(std::span<const Token> tokens, size_t end) {
  size_t at = end;  // of the first token of the power
  const auto before = [&](auto is) { return at > 0 && is(tokens[at - 1]) && at-- > 0; };
  const bool braced = before([](const Token& t) { return t.is(Tok::close, "}"); });
  if (!before([](const Token& t) { return t.kind == Tok::number; })) return 0;
  before([](const Token& t) { return t.is(Tok::op, "-"); });
  if (braced && !before([](const Token& t) { return t.is(Tok::open, "{"); })) return 0;
  if (!before([](const Token& t) { return t.is(Tok::op, "^"); }) || at < 2) return 0;
  if (unit_word(tokens, at - 1)) return end - at + 1;
  const bool group = tokens[at - 1].is(Tok::close, "}") && tokens[at - 1].upright;  // \\text{m/s}^2
  return group ? end - at : 0;
}

/// Number of tokens of "th" after a number, raised or not.
size_t ordinal(std::span<const Token> t) {
  const auto ending = [](const Token& w) {
    return w.kind == Tok::word && (w.text == "th" || w.text == "st" || w.text == "nd" || w.text == "rd");
  };
  const size_t n = t.size();
  if (n >= 2 && ending(t[n - 1]) && t[n - 2].kind == Tok::number) return 1;
  if (n >= 3 && ending(t[n - 1]) && t[n - 2].is(Tok::op, "^") && t[n - 3].kind == Tok::number) return 2;
  if (n >= 5 && t[n - 1].is(Tok::close, "}") && ending(t[n - 2]) && t[n - 3].is(Tok::open, "{") &&
      t[n - 4].is(Tok::op, "^") && t[n - 5].kind == Tok::number)
    return 4;
  return 0;
}

/// The powers of a unit's parts, so that "m/s^2" and "m s^{-2}" are the same.
class Powers {
 public:
  void add(string_view part) {
    if (part == "/") return void(sign_ = -1);
    if (part == "2" || part == "3") return void(power_ = part[0] - '0');  // square, cubic
    const size_t slash = part.find('/');                                  // mi/h
    last_ = part.substr(0, slash);
    step_ = sign_ * power_;
    powers_[last_] += step_;
    sign_ = power_ = 1;
    if (slash != part.npos) add("/"), add(part.substr(slash + 1));
  }
  /// Of the last part.
  void raise(string_view exponent, bool negative) {
    int n = 0;
    for (const char c : exponent.substr(0, 3)) n = 10 * n + (c - '0');
    powers_[last_] += step_ * ((negative ? -n : n) - 1);
  }
  std::string text() const {
    std::string out;
    for (const auto& [part, power] : powers_)
      out.append(out.empty() ? "" : " ").append(part).append(power == 1 ? "" : std::to_string(power));
    return out;
  }

 private:
  std::map<string_view, int> powers_;
  string_view last_;
  int sign_ = 1, power_ = 1, step_ = 1;
};

Unit unit_of(std::span<const Token> tokens) {
  Unit out;
  out.known = true;
  Powers powers;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const Token& t = tokens[i];
    if (t.kind == Tok::degree) {
      powers.add("degree");
    } else if (t.kind == Tok::currency || t.is(Tok::op, "/")) {
      powers.add(t.text);
    } else if (t.kind == Tok::number) {
      powers.raise(t.text, i > 0 && tokens[i - 1].is(Tok::op, "-"));
    } else if (t.kind == Tok::word) {
      const string_view is = unit_named(t.text);
      out.known &= !is.empty();
      if (!is.empty()) powers.add(is);
    }
  }
  out.text = powers.text();
  return out;
}
}  // namespace

size_t cut_unit(std::span<const Token> tokens, Unit& unit) {
  if (const size_t n = ordinal(tokens)) return tokens.size() - n;
  size_t begin = tokens.size();
  int64_t open = 0;
  while (begin > 1) {
    const Token& t = tokens[begin - 1];
    if (const size_t n = unit_power(tokens, begin))
      begin -= n;
    else if (unit_word(tokens, begin - 1) || (t.kind == Tok::op && (t.text == "/" || t.text == "*" || t.text == ".")))
      --begin;
    else if (t.upright && (t.is(Tok::close, "}") || t.is(Tok::open, "{")))
      open += t.kind == Tok::close ? 1 : -1, --begin;
    else
      break;
  }
  if (begin == tokens.size() || open != 0) return tokens.size();
  const Token& first = tokens[begin];
  const Token& before = tokens[begin - 1];
  const bool value = before.kind == Tok::number || before.kind == Tok::symbol || before.kind == Tok::close ||
                     (before.kind == Tok::word && before.text.size() == 1 && !before.upright);
  const bool called =
      std::any_of(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(begin), [](const Token& t) {
        return t.kind == Tok::command && t.text != "frac" && t.text != "sqrt" && t.text != "root";  // \sin 30^\circ
      });
  if (!value || called || first.kind == Tok::op ||
      std::none_of(tokens.begin() + static_cast<std::ptrdiff_t>(begin), tokens.end(),
                   [&](const Token& t) { return t.kind != Tok::op; }))
    return tokens.size();
  unit = unit_of(tokens.subspan(begin));
  return begin;
}

}  // namespace dapo::verify
