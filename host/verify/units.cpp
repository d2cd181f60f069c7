// Units and other words after a value.
#include <algorithm>
#include <utility>

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
/// Words that change a value, or turn it into another answer.
constexpr string_view kNoUnits[] = {
    "hundred", "thousand", "million",    "billion",  "trillion",  "dozen",     "half",      "halves",   "third",
    "thirds",  "quarter",  "quarters",   "fourth",   "fourths",   "fifths",    "more",      "less",     "not",
    "squared", "cubed",    "factorial",  "times",    "mod",       "modulo",    "remainder", "least",    "most",
    "greater", "over",     "to",         "plus",     "minus",     "base",      "if",        "when",     "for",
    "where",   "all",      "no",         "solution", "solutions", "only",      "above",     "below",    "negative",
    "than",    "tenths",   "hundredths", "tens",     "hundreds",  "thousands", "millions",  "billions", "double",
    "twice",   "choose",   "is",         "are",      "equals"};

string_view unit_named(string_view word) {
  for (int plural = 0; plural < 2; ++plural) {
    const auto* const found =
        std::find_if(std::begin(kUnits), std::end(kUnits), [&](const Name& n) { return n.name == word; });
    if (found != std::end(kUnits)) return found->is;
    if (word.size() < 3 || !word.ends_with('s')) break;
    word.remove_suffix(1);
  }
  return {};
}

bool unit_word(std::span<const Token> tokens, size_t i) {
  const Token& t = tokens[i];
  if (t.kind == Tok::degree || t.kind == Tok::currency) return true;
  if (t.kind != Tok::word) return false;
  const bool known = !unit_named(t.text).empty();
  if (t.text.size() == 1) return known && (t.upright || (i > 0 && tokens[i - 1].kind == Tok::degree));
  if (known || t.text == "unit" || t.text == "units") return true;
  const bool noun = t.text.size() >= 4 && t.spaced && i > 0 && tokens[i - 1].kind == Tok::number &&
                    std::all_of(t.text.begin(), t.text.end(), [](char c) { return c >= 'a' && c <= 'z'; });  // 5 apples
  return (t.upright || noun) && std::find(std::begin(kNoUnits), std::end(kNoUnits), t.text) == std::end(kNoUnits);
}

/// Number of tokens of a power of a unit word that ends before `end`: "cm^2", "cm^{2}"; 0 if there is none.
size_t unit_power(std::span<const Token> tokens, size_t end) {
  if (end >= 4 && tokens[end - 1].kind == Tok::number && tokens[end - 2].is(Tok::op, "^") && unit_word(tokens, end - 3))
    return 3;
  if (end >= 4 && tokens[end - 1].kind == Tok::number && tokens[end - 2].is(Tok::op, "^") &&
      tokens[end - 3].is(Tok::close, "}") && tokens[end - 3].upright)
    return 2;  // \\text{m/s}^2
  if (end >= 6 && tokens[end - 1].is(Tok::close, "}") && tokens[end - 2].kind == Tok::number &&
      tokens[end - 3].is(Tok::open, "{") && tokens[end - 4].is(Tok::op, "^") && unit_word(tokens, end - 5))
    return 5;
  return 0;
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

Unit unit_of(std::span<const Token> tokens) {
  Unit out;
  out.known = true;
  std::string power;  // of "square": appended to the next word
  for (const Token& t : tokens) {
    if (t.kind == Tok::degree) {
      out.text += "degree";
    } else if (t.kind == Tok::currency) {
      out.text += t.text;
    } else if (t.kind == Tok::number || t.is(Tok::op, "/")) {
      out.text += t.text;
    } else if (t.kind == Tok::word) {
      const string_view is = unit_named(t.text);
      out.known &= !is.empty();
      if (is == "2" || is == "3") {
        power = is;
        continue;
      }
      out.text.append(is).append(std::exchange(power, {}));
    }
  }
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
