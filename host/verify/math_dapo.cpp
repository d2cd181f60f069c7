// math_dapo: the scorer that the DAPO paper's runs used, step for step, so that scores are comparable bit for bit. Its
// quirks (word lists, "a ", greedy \boxed) are the specification; the test vectors pin them down.
#include <algorithm>
#include <array>
#include <utility>

#include "host/verify/makers.h"
#include "host/verify/text.h"

namespace dapo {

namespace {
using verify::length_at;
using verify::replace_all;

// In this order.
constexpr std::pair<std::string_view, std::string_view> kReplaced[] = {
    {"an ", ""}, {"a ", ""},       {".$", "$"},           {"\\$", ""},          {"\\ ", ""},
    {" ", ""},   {"mbox", "text"}, {",\\text{and}", ","}, {"\\text{and}", ","}, {"\\text{m}", "\\text{}"}};
constexpr std::string_view kRemoved[] = {"square",     "ways",       "integers",  "dollars",      "mph",
                                         "inches",     "hours",      "km",        "units",        "\\ldots",
                                         "sue",        "points",     "feet",      "minutes",      "digits",
                                         "cents",      "degrees",    "cm",        "gm",           "pounds",
                                         "meters",     "meals",      "edges",     "students",     "childrentickets",
                                         "multiples",  "\\text{s}",  "\\text{.}", "\\text{\ns}",  "\\text{}^2",
                                         "\\text{}^3", "\\text{\n}", "\\text{}",  "\\mathrm{th}", "^\\circ",
                                         "^{\\circ}",  "\\;",        ",\\!",      "{,}",          "\"",
                                         "\\dots"};

/// A line with two dollar signs becomes the text between them: "$...$".
void keep_between_dollars(std::string& s) {
  if (s.find('$') == std::string::npos) return;
  std::string out;
  for (size_t begin = 0; begin <= s.size();) {
    const size_t end = std::min(s.find('\n', begin), s.size());
    const std::string_view line = std::string_view(s).substr(begin, end - begin);
    const size_t one = line.find('$'), two = one == line.npos ? one : line.find('$', one + 1);
    out += two == line.npos ? line : line.substr(one, two - one + 1);
    if (end < s.size()) out += '\n';
    begin = end + 1;
  }
  s = std::move(out);
}

/// Drops `open` and its closing brace on the same line: the first one, or if `greedy` the line's last.
void unwrap(std::string& s, std::string_view open, bool greedy) {
  size_t at = s.find(open);
  if (at == std::string::npos) return;
  std::string out;
  size_t done = 0;
  for (; at != std::string::npos; at = s.find(open, at)) {
    const size_t begin = at + open.size();
    size_t close = s.find_first_of("}\n", begin);
    if (close == std::string::npos || s[close] == '\n') {  // no closing brace on this line
      if (close == std::string::npos) break;
      at = close;
      continue;
    }
    if (greedy) close = s.rfind('}', std::min(s.find('\n', begin), s.size() - 1));
    out.append(s, done, at - done).append(s, begin, close - begin);
    at = done = close + 1;
  }
  s = out.append(s, done);
}

/// \frac12 -> \frac{1}{2}, as (frac)([^{])(.) does: also in the middle of words.
void brace_fracs(std::string& s) {
  size_t at = s.find("frac");
  if (at == std::string::npos) return;
  std::string out;
  size_t done = 0;
  for (; at != std::string::npos; at = s.find("frac", at)) {
    const size_t a = at += 4;
    if (a >= s.size() || s[a] == '{') continue;
    const size_t b = a + length_at(s, a);
    if (b >= s.size() || s[b] == '\n') continue;
    at = b + length_at(s, b);
    out.append(s, done, a - done).append("{").append(s, a, b - a).append("}{").append(s, b, at - b).append("}");
    done = at;
  }
  s = out.append(s, done);
}

void brace_sqrts(std::string& s) {
  size_t at = s.find("sqrt");
  if (at == std::string::npos) return;
  std::string out;
  size_t done = 0;
  for (; at != std::string::npos; at = s.find("sqrt", at)) {
    const size_t a = at += 4;
    if (a >= s.size() || s[a] == '{') continue;
    at = a + length_at(s, a);
    out.append(s, done, a - done).append("{").append(s, a, at - a).append("}");
    done = at;
  }
  s = out.append(s, done);
}
}  // namespace

std::string normalize_dapo(std::string_view answer) {
  std::string s(answer.substr(answer.rfind('=') + 1));  // npos + 1 is 0: the whole
  for (const auto& [from, to] : kReplaced) replace_all(s, from, to);
  for (const std::string_view word : kRemoved) replace_all(s, word, "");
  keep_between_dollars(s);
  unwrap(s, "\\text{", false);
  unwrap(s, "\\textbf{", false);
  unwrap(s, "\\overline{", false);
  unwrap(s, "\\boxed{", true);
  brace_fracs(s);
  brace_sqrts(s);
  std::erase(s, '$');
  if (s.find(',') != std::string::npos) {
    std::string plain = s;
    std::erase(plain, ',');
    if (verify::all_digits(plain)) s = std::move(plain);
  }
  return std::string(verify::strip(s));
}

namespace {
class MathDapo final : public AnswerVerifier {
 public:
  using AnswerVerifier::AnswerVerifier;

 private:
  void judge(std::string_view response, std::string_view ground_truth, Verdict& out) const override {
    const std::string_view text = verify::tail(response, 300);
    if (options_.strict_box) {
      const auto boxed = verify::last_braced_box(verify::tail(text, 100));
      out.found = boxed.has_value();
      out.pred = boxed.value_or("");
      out.acc = out.found && out.pred == ground_truth;
      out.reason = !out.found ? "no \\boxed{} in the last 100 characters" : out.acc ? "equal" : "differs";
    } else {
      const auto answer = verify::last_answer(text);
      out.found = answer.has_value();
      out.pred = normalize_dapo(answer.value_or("[INVALID]"));
      out.acc = out.pred == normalize_dapo(ground_truth);
      out.reason = !out.found ? "no \"Answer:\" in the last 300 characters" : out.acc ? "equal" : "differs";
    }
  }
};
}  // namespace

std::unique_ptr<Verifier> verify::make_math_dapo(const VerifierOptions& options) {
  return std::make_unique<MathDapo>(options);
}

}  // namespace dapo
