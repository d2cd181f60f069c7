// countdown: an arithmetic expression, parsed here (two stacks, no recursion) and evaluated in exact fractions.
#include <simdjson.h>

#include <algorithm>
#include <vector>

#include "core/check.h"
#include "core/last_boxed.h"
#include "host/verify/makers.h"
#include "host/verify/number.h"
#include "host/verify/text.h"

namespace dapo {

namespace {
using verify::Fraction;

constexpr size_t kLongest = 4096;  // bytes of an expression: enough for every number and much white space

struct Task {
  std::vector<int64_t> numbers;  // ascending
  int64_t target;
};

Task parse_task(std::string_view ground_truth) {
  if (ground_truth.size() > 4096) fail_input("the ground truth of countdown is longer than 4096 bytes");
  simdjson::dom::parser parser;
  simdjson::dom::element row;
  simdjson::dom::array numbers;
  Task task;
  bool ok = parser.parse(ground_truth.data(), ground_truth.size()).get(row) == simdjson::SUCCESS &&
            row["target"].get(task.target) == simdjson::SUCCESS && row["numbers"].get(numbers) == simdjson::SUCCESS;
  if (ok) {
    for (const simdjson::dom::element e : numbers) {
      int64_t v;
      ok = ok && e.get(v) == simdjson::SUCCESS;
      if (ok) task.numbers.push_back(v);
    }
  }
  if (!ok || task.numbers.empty())
    fail_input("the ground truth \"{}\" is not {{\"target\":23,\"numbers\":[30,100,93]}}", ground_truth.substr(0, 100));
  std::sort(task.numbers.begin(), task.numbers.end());
  return task;
}

/// Operator precedence with explicit stacks; the only state is whether a value or an operator is expected next.
class Calculator {
 public:
  explicit Calculator(size_t most_numbers) : most_(most_numbers) {}

  /// Evaluates the expression, or returns the reason why it cannot.
  std::optional<std::string> run(std::string_view text) {
    while (!text.empty()) {
      size_t length = 0;
      const char c = token(text, length);
      if (c == 0) return "not an arithmetic expression";
      if (c != ' ')
        if (auto why = c == '0' ? number(text.substr(0, length)) : symbol(c)) return why;
      text.remove_prefix(length);
    }
    if (want_value_) return numbers_.empty() ? "empty expression" : "the expression ends in an operator";
    while (!ops_.empty()) {
      if (ops_.back() == '(') return "a parenthesis is not closed";
      if (auto why = apply()) return why;
    }
    return std::nullopt;
  }
  Fraction result() const { return values_.back(); }
  /// The numbers used, ascending.
  std::vector<int64_t> numbers() {
    std::sort(numbers_.begin(), numbers_.end());
    return numbers_;
  }

 private:
  /// Kind of the next token: '0' a number, ' ' skipped white space, 0 invalid, else the symbol itself.
  static char token(std::string_view text, size_t& length) {
    static constexpr std::pair<std::string_view, char> kSpelled[] = {
        {"\u00D7", '*'}, {"\u00F7", '/'}, {"\u00B7", '*'}, {"\u2212", '-'}, {"\\times", '*'},
        {"\\cdot", '*'}, {"\\div", '/'},  {"\\left", ' '}, {"\\right", ' '}};
    length = 1;
    const char c = text[0];
    if (c == '+' || c == '-' || c == '*' || c == '/' || c == '(' || c == ')') return c;
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '$') return ' ';
    if (c >= '0' && c <= '9') {
      length = std::min(text.find_first_not_of("0123456789"), text.size());
      return '0';
    }
    for (const auto& [spelling, symbol] : kSpelled)
      if (text.starts_with(spelling)) {
        length = spelling.size();
        return symbol;
      }
    return 0;
  }

  std::optional<std::string> number(std::string_view digits) {
    if (!want_value_) return "no operator between two numbers";
    if (digits.size() > 18) return "a number is too long";
    if (numbers_.size() == most_) return "more numbers than given";
    int64_t v = 0;
    for (const char c : digits) v = v * 10 + (c - '0');
    numbers_.push_back(v);
    values_.push_back({v, 1});
    want_value_ = false;
    return std::nullopt;
  }

  std::optional<std::string> symbol(char c) {
    if (c == '(') {
      if (!want_value_) return "an operator is missing before a parenthesis";
      ops_.push_back(c);
    } else if (c == ')') {
      if (want_value_) return "nothing before a closing parenthesis";
      while (!ops_.empty() && ops_.back() != '(')
        if (auto why = apply()) return why;
      if (ops_.empty()) return "a closing parenthesis without an opening one";
      ops_.pop_back();
    } else if (want_value_) {
      if (c != '-' && c != '+') return "an operator without a value before it";
      if (c == '-') ops_.push_back('~');
    } else {
      while (!ops_.empty() && rank(ops_.back()) >= rank(c))
        if (auto why = apply()) return why;
      ops_.push_back(c);
      want_value_ = true;
    }
    return std::nullopt;
  }

  static int rank(char op) { return op == '(' ? 0 : op == '+' || op == '-' ? 1 : op == '~' ? 3 : 2; }

  std::optional<std::string> apply() {
    const char op = ops_.back();
    ops_.pop_back();
    const Fraction b = values_.back();
    values_.pop_back();
    if (op == '~') {
      values_.push_back({-b.num, b.den});
      return std::nullopt;
    }
    const auto r = verify::compute(op, values_.back(), b);
    if (!r) return op == '/' && b.num == 0 ? "division by zero" : "a result is too large";
    values_.back() = *r;
    return std::nullopt;
  }

  size_t most_;
  bool want_value_ = true;
  std::vector<Fraction> values_;
  std::vector<char> ops_;
  std::vector<int64_t> numbers_;
};

std::optional<std::string_view> expression_of(std::string_view response) {
  const size_t close = response.rfind("</answer>");
  if (close != response.npos) {
    const size_t open = response.substr(0, close).rfind("<answer>");
    if (open != response.npos) return response.substr(open + 8, close - open - 8);
  }
  if (const auto boxed = last_boxed(response)) return boxed;
  return verify::last_answer(response);
}

class CountdownVerifier final : public AnswerVerifier {
 public:
  using AnswerVerifier::AnswerVerifier;

 private:
  void judge(std::string_view response, std::string_view ground_truth, Verdict& out) const override {
    const Task task = parse_task(ground_truth);
    const auto expression = expression_of(response);
    out.found = expression.has_value();
    out.reason = "no <answer>, \\boxed{} or \"Answer:\"";
    if (!out.found) return;
    out.pred = verify::strip(expression->substr(0, expression->find('=')));
    if (out.pred.size() > kLongest) {
      out.reason = "the expression is too long";
      return;
    }
    Calculator calculator(task.numbers.size());
    if (auto why = calculator.run(out.pred)) {
      out.reason = std::move(*why);
    } else if (calculator.numbers() != task.numbers) {
      out.reason = "not each number exactly once";
    } else if (calculator.result() != Fraction{task.target, 1}) {
      const Fraction r = calculator.result();
      out.reason = r.den == 1 ? fmt::format("makes {}", r.num) : fmt::format("makes {}/{}", r.num, r.den);
    } else {
      out.acc = true;
      out.reason = "reached";
    }
  }
};
}  // namespace

std::unique_ptr<Verifier> verify::make_countdown(const VerifierOptions& options) {
  return std::make_unique<CountdownVerifier>(options);
}

}  // namespace dapo
