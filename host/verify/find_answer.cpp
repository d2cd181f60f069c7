#include "host/verify/find_answer.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <vector>

#include "core/last_boxed.h"
#include "host/verify/text.h"

namespace dapo::verify {
namespace {

bool letter(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) != 0;
}
bool digit(char c) {
  return c >= '0' && c <= '9';
}
bool blank(char c) {
  return c == ' ' || c == '\t';
}

/// Delimiters of a formula, longer ones first.
struct Delimiters {
  std::string_view open, close;
};
constexpr Delimiters kFormulas[] = {{"$$", "$$"},
                                    {"\\[", "\\]"},
                                    {"\\(", "\\)"},
                                    {"$", "$"},
                                    {"\\begin{align*}", "\\end{align*}"},
                                    {"\\begin{align}", "\\end{align}"},
                                    {"\\begin{equation*}", "\\end{equation*}"},
                                    {"\\begin{equation}", "\\end{equation}"}};

struct Formula {
  size_t begin = 0, end = 0;  ///< with its delimiters
  std::string_view content;
};

/// Calls f on each formula, in order. A dollar sign before a digit that no other one closes on its line is money.
template <class F>
void each_formula(std::string_view text, F f) {
  // where the search for a closing delimiter failed: none follows, and later formulas of the kind need no search
  std::array<bool, std::size(kFormulas)> none{};
  for (size_t at = 0; at < text.size();) {
    if (text[at] == '\\' && at + 1 < text.size() && (text[at + 1] == '$' || text[at + 1] == '\\')) {
      at += 2;
      continue;
    }
    size_t next = at + 1;
    for (size_t k = 0; (text[at] == '$' || text[at] == '\\') && k < std::size(kFormulas); ++k) {
      const auto& [open, close] = kFormulas[k];
      if (!text.substr(at).starts_with(open)) continue;
      const size_t begin = at + open.size();
      size_t end = none[k] ? text.npos : text.find(close, begin);
      while (end != text.npos && close == "$" && end > begin && text[end - 1] == '\\') end = text.find(close, end + 1);
      if (end == text.npos) none[k] = true;
      if (end == text.npos || end == begin) continue;
      const bool one_line = text.substr(begin, end - begin).find('\n') == text.npos;
      if (open == "$" && !one_line) continue;
      f(Formula{at, end + close.size(), text.substr(begin, end - begin)});
      next = end + close.size();
      break;
    }
    at = next;
  }
}

/// "-1,234.5", "3/4", "12%" that begins at a digit or a point `at`; its sign may stand before.
std::string_view number_at(std::string_view text, size_t at) {
  size_t begin = at, end = at;
  const auto digits = [&] {
    while (end < text.size() && digit(text[end])) ++end;
  };
  const auto continues = [&](char c) { return end + 1 < text.size() && text[end] == c && digit(text[end + 1]); };
  digits();
  while (continues(',') || continues('.')) ++end, digits();
  if (continues('/')) ++end, digits();
  if (end < text.size() && text[end] == '%') ++end;
  if (text.substr(end).starts_with("\\%")) end += 2;
  if (begin > 0 && text[begin - 1] == '.') --begin;
  if (begin > 0 && text[begin - 1] == '-' &&
      (begin == 1 || !(std::isalnum(static_cast<unsigned char>(text[begin - 2])) != 0)))
    --begin;
  return text.substr(begin, end - begin);
}

/// What follows the last "=" outside brackets, unless the formula is a list, or an equation that ends in 0.
std::string value_of(std::string_view formula) {
  int64_t depth = 0;
  size_t equals = formula.npos;
  for (size_t i = 0; i < formula.size(); ++i) {
    const char c = formula[i];
    depth += c == '(' || c == '[' || c == '{';
    depth -= c == ')' || c == ']' || c == '}';
    if (depth != 0) continue;
    if (c == ',' && (i + 1 == formula.size() || !digit(formula[i + 1]))) return std::string(formula);
    const bool relation = i > 0 && (formula[i - 1] == '<' || formula[i - 1] == '>' || formula[i - 1] == '!');
    if (c == '=' && !relation) equals = i;
  }
  if (equals == formula.npos) return std::string(formula);
  std::string_view right = formula.substr(equals + 1);
  if (right.find("\\begin{") == right.npos) right = right.substr(0, right.find("\\end{"));  // of aligned
  right = strip(right);
  return std::string(right.empty() || right == "0" ? formula : right);
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

/// The last word of a text, in small letters; "" if something else ends it.
std::string last_word(std::string_view text) {
  text = strip(text);
  size_t begin = text.size();
  while (begin > 0 && letter(text[begin - 1])) --begin;
  return lower(text.substr(begin));
}

bool negative_word(std::string_view word) {
  return word == "minus" || word == "negative";
}

/// Whether a word makes another answer of the number behind it: "not 5", "at least 5", "half of 10".
bool other_value(std::string_view word, std::string_view before, std::string_view after) {
  constexpr std::string_view kAlone[] = {"not", "no", "never", "neither", "twice", "thrice", "than"};
  constexpr std::string_view kOf[] = {"half", "third", "quarter",    "double",  "triple",   "square",
                                      "root", "cube",  "reciprocal", "inverse", "opposite", "negative"};
  if (word == "least" || word == "most") return before == "at";
  return std::ranges::find(kAlone, word) != std::end(kAlone) ||
         (after == "of" && std::ranges::find(kOf, word) != std::end(kOf));
}

/// The last formula, or the last number outside formulas if that stands behind it.
std::optional<std::string> last_formula_or_number(std::string_view text) {
  Formula last;
  bool found = false;
  each_formula(text, [&](const Formula& f) { last = f, found = true; });
  for (size_t i = text.size(); i-- > last.end;) {
    if (!digit(text[i])) continue;
    size_t begin = i;
    while (begin > last.end &&
           (digit(text[begin - 1]) || ((text[begin - 1] == ',' || text[begin - 1] == '.' || text[begin - 1] == '/') &&
                                       begin > last.end + 1 && digit(text[begin - 2]))))
      --begin;
    const bool name = begin > last.end && (letter(text[begin - 1]) || text[begin - 1] == '_');  // "x2"
    if (!name)
      return (negative_word(last_word(text.substr(0, begin))) ? "-" : "") + std::string(number_at(text, begin));
    i = begin;
  }
  if (!found) return std::nullopt;
  return std::string(last.content);
}

/// Whether `word` stands at `at`, in any case.
bool word_at(std::string_view text, size_t at, std::string_view word) {
  return at + word.size() <= text.size() &&
         std::equal(word.begin(), word.end(), text.begin() + static_cast<std::ptrdiff_t>(at),
                    [](char a, char b) { return a == std::tolower(static_cast<unsigned char>(b)); });
}

/// What stands between "answer" and the answer: where the answer begins if ":", "=" or a verb is at `i`, npos if the
/// sentence ends there, 0 if neither.
size_t behind_joint(std::string_view text, size_t i) {
  const char c = text[i];
  if (c == '\n' || c == '$' ||
      (c == '.' && i + 1 < text.size() && std::isspace(static_cast<unsigned char>(text[i + 1]))))
    return text.npos;
  if (c == ':' || c == '=') return i + 1;
  if (i == 0 || !blank(text[i - 1])) return 0;
  for (const std::string_view verb : {"is", "are", "be"}) {
    const size_t end = i + verb.size();
    if (word_at(text, i, verb) && (end == text.size() || !letter(text[end]))) return end;
  }
  return 0;
}

/// The text behind the last "answer is", "answer:" or "answer =", with up to kBetween letters of the same sentence
/// between the two; nothing if there is none.
std::optional<std::string_view> behind_marker(std::string_view text) {
  constexpr size_t kBetween = 60;
  constexpr std::string_view kAnswer = "answer";
  size_t joint = text.size(), behind = text.npos;  // the first one from `at` on
  for (size_t at = text.size(); at-- > 0;) {
    if (const size_t begin = behind_joint(text, at); begin != 0) joint = at, behind = begin;
    if (!word_at(text, at, kAnswer) || (at > 0 && letter(text[at - 1]))) continue;
    const size_t end = at + kAnswer.size();
    if (end < text.size() && letter(text[end]) && text[end] != 's') continue;
    if (joint < std::min(text.size(), end + kBetween) && behind != text.npos) return text.substr(behind);
  }
  return std::nullopt;
}

/// The first sentence of a text, from its first line that is not empty, without emphasis.
std::string_view first_sentence(std::string_view text) {
  const auto mark = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0 || c == '*' || c == ':'; };
  while (!text.empty() && mark(text[0])) text.remove_prefix(1);
  std::vector<Formula> formulas;
  each_formula(text, [&](const Formula& f) { formulas.push_back(f); });
  auto next = formulas.begin();
  for (size_t i = 0; i < text.size(); ++i) {
    if (next != formulas.end() && i == next->begin) i = next++->end;  // points and line ends inside do not count
    if (i >= text.size() || text[i] == '\n') return text.substr(0, i);
    const bool ends = i + 1 == text.size() || blank(text[i + 1]) || text[i + 1] == '*';
    if (((text[i] == '.' || text[i] == ';') && ends) || text.substr(i).starts_with("**")) return text.substr(0, i);
    // ", which is even": prose behind the answer
    if (text[i] == ',' && i + 4 < text.size() && text[i + 1] == ' ' && letter(text[i + 2]) && letter(text[i + 3]) &&
        letter(text[i + 4]) && !word_at(text, i + 2, "and"))
      return text.substr(0, i);
  }
  return text;
}

/// The formulas of a sentence as one list, if only "and", "or" and commas stand between them; else the first.
std::optional<std::string> formulas_in(std::string_view sentence) {
  std::string list;
  size_t end = 0;
  bool ended = false;
  each_formula(sentence, [&](const Formula& f) {
    const std::string_view between = strip(sentence.substr(end, f.begin - end));
    if (list.empty()) {
      list = f.content;
    } else if (!ended &&
               (between == "and" || between == "or" || between == "," || between == ", and" || between == ", or")) {
      list.append(", ").append(f.content);
    } else {
      ended = true;
    }
    end = f.end;
  });
  if (list.empty()) return std::nullopt;
  const std::string_view behind = strip(sentence.substr(end));  // $28$ percent, $28$ %
  if (!ended && (behind == "%" || behind == "\\%" || behind == "percent")) list += "\\%";
  return list;
}

/// Behind the last " is " or " are " of a sentence that leaves a digit or a formula; the whole if there is none.
std::string_view behind_verb(std::string_view sentence) {
  const size_t last = sentence.find_last_of("0123456789$\\");
  if (last == sentence.npos) return sentence;
  size_t begin = 0;
  for (const std::string_view verb : {" is ", " are "})
    if (const size_t at = sentence.rfind(verb, last); at != sentence.npos && at < last)
      begin = std::max(begin, at + verb.size());
  return sentence.substr(begin);
}

enum class Pick : uint8_t { first, last };

/// The answer in a sentence: the formula with which it begins; else what follows its last verb: a formula, or words
/// from the first that has more than letters. "equal to 42" is 42; "Evelyn" and "x = 5" are themselves.
std::string answer_in(std::string_view sentence, Pick pick) {
  sentence = strip(sentence);
  size_t first = sentence.npos;
  each_formula(sentence, [&](const Formula& f) { first = std::min(first, f.begin); });
  if (first != 0) sentence = strip(behind_verb(sentence));
  const auto formulas = formulas_in(sentence);
  if (formulas && (first == 0 || pick == Pick::last))
    return first == 0 ? *formulas : last_formula_or_number(sentence).value_or(*formulas);
  if (!formulas && std::none_of(sentence.begin(), sentence.end(), digit)) return std::string(sentence);
  std::vector<std::string> words;  // the leading words of two or more letters
  size_t at = 0;
  for (size_t i = 0; i < sentence.size(); at = i) {
    size_t end = i;
    while (end < sentence.size() && letter(sentence[end])) ++end;
    const std::string_view word = sentence.substr(i, end - i);
    if ((end - i < 2 && word != "a") || (end < sentence.size() && !blank(sentence[end]))) break;
    words.push_back(lower(word));
    while (end < sentence.size() && blank(sentence[end])) ++end;
    i = end;
  }
  for (size_t i = 0; i < words.size(); ++i)
    if (other_value(words[i], i > 0 ? words[i - 1] : "", i + 1 < words.size() ? words[i + 1] : ""))
      return std::string(sentence);
  const std::string value = formulas ? *formulas : std::string(strip(sentence.substr(at)));
  return !words.empty() && negative_word(words.back()) ? "-(" + value + ")" : value;
}

/// Whether nothing but "and", "or", commas and what delimits formulas stands in the text between two boxes.
bool joins(std::string_view between) {
  constexpr std::string_view kJoints[] = {"\\quad", "\\text{", "\\(", "\\)", "\\[", "\\]", "\\,", "and", "or",
                                          "$",      "}",       "{",   ",",   ";",   "\n",  " ",   "&"};
  bool joined = false;  // by a word or a comma
  while (!between.empty()) {
    const auto joint = std::ranges::find_if(kJoints, [&](std::string_view j) { return between.starts_with(j); });
    if (joint == std::end(kJoints)) return false;
    joined = joined || letter((*joint)[0]) || *joint == "," || *joint == ";";
    between.remove_prefix(joint->size());
  }
  return joined;
}

/// What stands in the last <answer></answer>, which may still be open.
std::optional<std::string_view> tagged(std::string_view text) {
  constexpr std::string_view kOpen = "<answer>", kClose = "</answer>";
  const size_t begin = text.rfind(kOpen);
  if (begin == text.npos) return std::nullopt;
  const std::string_view inside = text.substr(begin + kOpen.size());
  return strip(inside.substr(0, inside.find(kClose)));
}

FoundAnswer with_value(std::string text) {
  std::string value = value_of(text);
  return {std::move(text), std::move(value)};
}

}  // namespace

std::optional<std::string> boxes_in(std::string_view text) {
  constexpr int kMost = 16;
  std::optional<std::string> list;
  std::string_view rest = text;
  size_t behind = 0;  // where the box after this one begins
  for (int i = 0; i < kMost; ++i) {
    const auto box = last_boxed(rest);
    if (!box) break;
    const size_t begin = static_cast<size_t>(box->data() - rest.data()), end = begin + box->size();
    if (list && !joins(rest.substr(end, behind - end))) break;
    list = list ? std::string(*box) + ", " + *list : std::string(*box);
    behind = rest.rfind('\\', begin);  // of \boxed or \fbox
    if (behind == rest.npos || !rest.substr(behind).starts_with("\\boxed{")) break;
    rest = rest.substr(0, behind);
  }
  return list;
}

std::optional<FoundAnswer> find_answer(std::string_view response) {
  constexpr size_t kShort = 100;
  if (const auto boxed = boxes_in(response)) return FoundAnswer{*boxed, *boxed};
  if (const auto inside = tagged(response))
    if (auto answer = find_answer(*inside)) return answer;
  if (const auto rest = behind_marker(response))
    if (std::string answer = answer_in(first_sentence(*rest), Pick::first); !answer.empty())
      return with_value(std::move(answer));
  const std::string_view whole = strip(response);
  if (!whole.empty() && whole.size() <= kShort && whole.find('\n') == whole.npos)
    return with_value(answer_in(first_sentence(whole), Pick::last));
  if (auto last = last_formula_or_number(response)) return with_value(std::move(*last));
  return std::nullopt;
}

}  // namespace dapo::verify
