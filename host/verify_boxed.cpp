// boxed: the last \boxed{...}, compared by value where both sides are numbers, else as the MATH benchmark's checker
// does.
#include <algorithm>
#include <vector>

#include "core/check.h"
#include "host/verify_impl.h"

namespace dapo {

namespace {
using verify::replace_all;

/// \sqrt3 -> \sqrt{3}
void brace_sqrts(std::string& s) {
  std::string out;
  size_t done = 0;
  for (size_t at = 0; (at = s.find("\\sqrt", at)) != std::string::npos;) {
    at += 5;
    if (at >= s.size() || s[at] == '{') continue;
    const size_t n = verify::length_at(s, at);
    out.append(s, done, at - done).append("{").append(s, at, n).append("}");
    done = at += n;
  }
  s = out.append(s, done);
}

/// \frac12 -> \frac{1}{2}, \frac1{72} -> \frac{1}{72}; unchanged as a whole where a \frac has too little behind it.
void brace_fracs(std::string& s) {
  std::string out;
  size_t done = 0;
  for (size_t at = 0; (at = s.find("\\frac", at)) != std::string::npos;) {
    const size_t a = at += 5;
    const size_t end = std::min(s.find("\\frac", a), s.size());
    if (a < end && s[a] == '{') continue;
    const size_t b = a < end ? a + verify::length_at(s, a) : end;
    if (b >= end) return;
    out.append(s, done, a - done).append("{").append(s, a, b - a).append("}");
    done = at = b;
    if (s[b] == '{') continue;
    at = done = b + verify::length_at(s, b);
    out.append("{").append(s, b, at - b).append("}");
  }
  s = out.append(s, done);
}

/// "3/4" -> \frac{3}{4}, for whole numbers without leading zeros, as Python prints them.
void brace_slash(std::string& s) {
  const size_t slash = s.find('/');
  if (slash == std::string::npos || s.find('/', slash + 1) != std::string::npos) return;
  const auto whole = [](std::string_view t) {
    if (t.starts_with('-')) t.remove_prefix(1), t = t == "0" ? "" : t;
    return !t.empty() && t.find_first_not_of("0123456789") == t.npos && (t == "0" || t[0] != '0');
  };
  const std::string a = s.substr(0, slash), b = s.substr(slash + 1);
  if (whole(a) && whole(b)) s = fmt::format("\\frac{{{}}}{{{}}}", a, b);
}

/// "$x$" -> "x", with white space at the ends dropped.
std::string_view without_dollars(std::string_view s) {
  s = verify::strip(s);
  while (s.size() >= 2 && s[0] == '$' && s.back() == '$') s = verify::strip(s.substr(1, s.size() - 2));
  return s;
}

/// Elements of "(a, b)", "[a, b)" and the like, split at commas outside of all brackets; empty where it is not such.
std::vector<std::string_view> elements(std::string_view s) {
  std::vector<std::string_view> out;
  if (s.size() < 2 || (s[0] != '(' && s[0] != '[') || (s.back() != ')' && s.back() != ']')) return out;
  int64_t depth = 0;
  size_t begin = 1;
  for (size_t i = 1; i + 1 < s.size(); ++i) {
    depth += s[i] == '(' || s[i] == '[' || s[i] == '{';
    depth -= s[i] == ')' || s[i] == ']' || s[i] == '}';
    if (depth < 0) return {};
    if (s[i] == ',' && depth == 0) {
      out.push_back(s.substr(begin, i - begin));
      begin = i + 1;
    }
  }
  out.push_back(s.substr(begin, s.size() - 1 - begin));
  return out;
}

bool element_equal(std::string_view a, std::string_view b) {
  const auto x = verify::parse_number(a);
  if (x)
    if (const auto y = verify::parse_number(b)) return verify::same_number(*x, *y);
  return normalize_math(a) == normalize_math(b);
}

/// Bytes of "x =" at the beginning.
size_t name_length(std::string_view s) {
  const size_t at = s.find('=');
  return at <= 2 && s.find('=', at + 1) == s.npos && s.find_first_of("0123456789") > at ? at + 1 : 0;
}
}  // namespace

std::string normalize_math(std::string_view answer) {
  std::string s(answer);
  replace_all(s, "\n", "");
  replace_all(s, "\\!", "");
  replace_all(s, "\\\\", "\\");
  for (const std::string_view frac : {"tfrac", "dfrac"}) replace_all(s, frac, "frac");
  for (const std::string_view gone : {"\\left", "\\right", "^{\\circ}", "^\\circ", "\\$"}) replace_all(s, gone, "");
  s.erase(std::min(s.find("\\text{ "), s.size()));  // units on the right
  replace_all(s, "\\%", "");
  replace_all(s, " .", " 0.");
  replace_all(s, "{.", "{0.");
  if (s.starts_with('.')) s.insert(s.begin(), '0');
  s.erase(0, name_length(s));
  brace_sqrts(s);
  std::erase(s, ' ');
  brace_fracs(s);
  if (s == "0.5") s = "\\frac{1}{2}";
  brace_slash(s);
  return s;
}

bool math_equal(std::string_view a, std::string_view b) {
  a = without_dollars(a), b = without_dollars(b);
  if (element_equal(a, b)) return true;
  const std::string x = normalize_math(a), y = normalize_math(b);
  const auto xs = elements(x), ys = elements(y);
  if (xs.size() < 2 || xs.size() != ys.size() || x[0] != y[0] || x.back() != y.back()) return false;
  for (size_t i = 0; i < xs.size(); ++i)
    if (!element_equal(xs[i], ys[i])) return false;
  return true;
}

namespace {
std::string canonical_element(std::string_view s) {
  const auto n = verify::parse_number(s);
  return n ? verify::canonical(*n) : normalize_math(s);
}
}  // namespace

std::string canonical_answer(std::string_view answer) {
  answer = without_dollars(answer);
  if (answer.size() > 10'000) return std::string(answer);  // no answer of a sane model: not worth three more passes
  if (const auto n = verify::parse_number(verify::strip(answer.substr(name_length(answer)))))
    return verify::canonical(*n);
  const std::string s = normalize_math(answer);
  const auto parts = elements(s);
  if (parts.size() < 2) return s;
  std::string out(1, s[0]);
  for (const std::string_view part : parts) out += (out.size() > 1 ? "," : "") + canonical_element(part);
  return out + s.back();
}

namespace {
class Boxed final : public Verifier {
 public:
  using Verifier::Verifier;

 private:
  void judge(std::string_view response, std::string_view ground_truth, Verdict& out) const override {
    const auto boxed = verify::last_boxed(response);
    out.found = boxed.has_value();
    out.reason = "no closed \\boxed{}";
    if (!out.found) return;
    const std::string_view answer = verify::strip(*boxed);
    out.pred = canonical_answer(answer);
    out.acc = !answer.empty() && math_equal(answer, verify::last_boxed(ground_truth).value_or(ground_truth));
    out.reason = out.acc ? "equal" : "differs";
  }
};
}  // namespace

std::unique_ptr<Verifier> verify::make_boxed(const VerifierOptions& options) {
  return std::make_unique<Boxed>(options);
}

}  // namespace dapo
