// Expressions of chat templates, with Jinja's own precedence: a if b else c; or; and; not; comparisons; + -; ~;
// * / // %; ** (from the left); signs; then subscripts and calls; then filters and tests.
#include <charconv>
#include <cstdlib>

#include "tokenizer/jinja_parser.h"

namespace dapo::jinja {

using K = Expr::Kind;

ExprPtr Parser::make(Expr::Kind kind, int line, std::string name) const {
  return std::make_unique<Expr>(Expr{kind, line, std::move(name)});
}

ExprPtr Parser::join(Expr::Kind kind, int line, std::string op, ExprPtr left, ExprPtr right) {
  ExprPtr node = make(kind, line, std::move(op));
  node->parts.push_back(std::move(left));
  node->parts.push_back(std::move(right));
  return node;
}

/// Expressions separated by commas: a single one is not a tuple.
ExprPtr Parser::tuple(TupleRules rules) {
  const int line = now().line;
  std::vector<ExprPtr> parts;
  bool comma = false;
  while (true) {
    if (is(Token::Kind::print_end) || is(Token::Kind::tag_end) || is_op(")")) break;
    if (!rules.ends_at.empty() && is_name(rules.ends_at)) break;
    parts.push_back(rules.condition ? condition() : either());
    if (!is_op(",")) break;
    comma = true;
    take();
  }
  if (!comma && !parts.empty()) return std::move(parts[0]);
  if (parts.empty() && !rules.parentheses) error("{} where an expression is expected", shown());
  ExprPtr node = make(K::tuple, line);
  node->parts = std::move(parts);
  return node;
}

ExprPtr Parser::condition() {
  const Level level(*this);
  ExprPtr node = either();
  std::vector<std::unique_ptr<Level>> chain;
  while (is_name("if")) {
    chain.push_back(std::make_unique<Level>(*this));
    const int line = take().line;
    ExprPtr test = either();
    node = join(K::condition, line, "", std::move(node), std::move(test));
    node->parts.push_back(skip_name("else") ? condition() : nullptr);
  }
  return node;
}

// Left-associative chains are as deep as they are long, so each link counts as a level.
#define DAPO_JINJA_CHAIN(kind, next)                              \
  ExprPtr node = next();                                          \
  std::vector<std::unique_ptr<Level>> chain;                      \
  while (more()) {                                                \
    chain.push_back(std::make_unique<Level>(*this));              \
    const Token op = take();                                      \
    node = join(kind, op.line, op.text, std::move(node), next()); \
  }                                                               \
  return node

ExprPtr Parser::either() {
  const auto more = [&] { return is_name("or"); };
  DAPO_JINJA_CHAIN(K::logic, both);
}

ExprPtr Parser::both() {
  const auto more = [&] { return is_name("and"); };
  DAPO_JINJA_CHAIN(K::logic, negation);
}

ExprPtr Parser::negation() {
  if (!is_name("not")) return comparison();
  const Level level(*this);
  ExprPtr node = make(K::unary, take().line, "not");
  node->parts.push_back(negation());
  return node;
}

ExprPtr Parser::comparison() {
  const int line = now().line;
  ExprPtr first = sum();
  ExprPtr node;
  while (true) {
    std::string op;
    if (is(Token::Kind::op) && (now().text == "==" || now().text == "!=" || now().text == "<" || now().text == "<=" ||
                                now().text == ">" || now().text == ">="))
      op = take().text;
    else if (skip_name("in"))
      op = "in";
    else if (is_name("not") && ahead().kind == Token::Kind::name && ahead().text == "in")
      take(), take(), op = "not in";
    else
      break;
    if (!node) {
      node = make(K::compare, line);
      node->parts.push_back(std::move(first));
    }
    node->ops.push_back(op);
    node->parts.push_back(sum());
  }
  return node ? std::move(node) : std::move(first);
}

ExprPtr Parser::sum() {
  const auto more = [&] { return is_op("+") || is_op("-"); };
  DAPO_JINJA_CHAIN(K::binary, concat);
}

ExprPtr Parser::concat() {
  const int line = now().line;
  ExprPtr first = product();
  if (!is_op("~")) return first;
  ExprPtr node = make(K::concat, line);
  node->parts.push_back(std::move(first));
  while (skip_op("~")) node->parts.push_back(product());
  return node;
}

ExprPtr Parser::product() {
  const auto more = [&] { return is_op("*") || is_op("/") || is_op("//") || is_op("%"); };
  DAPO_JINJA_CHAIN(K::binary, power);
}

ExprPtr Parser::power() {
  const auto more = [&] { return is_op("**"); };
  const auto next = [&] { return unary(true); };
  DAPO_JINJA_CHAIN(K::binary, next);
}
#undef DAPO_JINJA_CHAIN

ExprPtr Parser::unary(bool with_filters) {
  const Level level(*this);
  ExprPtr node;
  if (is_op("-") || is_op("+")) {
    const Token op = take();
    node = make(K::unary, op.line, op.text);
    node->parts.push_back(unary(false));
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return with_filters ? filtered(std::move(node)) : std::move(node);
}

ExprPtr Parser::primary() {
  const int line = now().line;
  const auto constant = [&](Value value) {
    ExprPtr node = make(K::constant, line);
    node->value = std::move(value);
    return node;
  };
  if (is(Token::Kind::name)) {
    const std::string name = take().text;
    if (name == "true" || name == "True") return constant(true);
    if (name == "false" || name == "False") return constant(false);
    if (name == "none" || name == "None") return constant(Value::none());
    reads_caller_ |= name == "caller", reads_varargs_ |= name == "varargs", reads_kwargs_ |= name == "kwargs";
    return make(K::name, line, name);
  }
  if (is(Token::Kind::string)) {
    std::string text;
    while (is(Token::Kind::string)) text += take().text;
    return constant(std::move(text));
  }
  if (is(Token::Kind::integer) || is(Token::Kind::real)) return constant(number()->value);
  if (skip_op("(")) {
    ExprPtr node = tuple({.parentheses = true});
    expect_op(")");
    return node;
  }
  if (is_op("[")) return bracketed_list();
  if (is_op("{")) return braced_dict();
  error("{} where an expression is expected", shown());
}

ExprPtr Parser::number() {
  const Token token = take();
  ExprPtr node = make(K::constant, token.line);
  if (token.kind == Token::Kind::real) {
    node->value = std::strtod(token.text.c_str(), nullptr);
    return node;
  }
  std::string_view digits = token.text;
  int base = 10;
  if (digits.size() > 2 && digits[0] == '0' && (digits[1] | 32) >= 'a') {
    base = (digits[1] | 32) == 'x' ? 16 : (digits[1] | 32) == 'o' ? 8 : 2;
    digits.remove_prefix(2);
  }
  int64_t value = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (failure == std::errc() && end == digits.data() + digits.size())
    node->value = value;
  else if (base == 10 && failure == std::errc::result_out_of_range)
    node->value = Value::big(std::string(digits));
  else
    error("'{}' is not a number that is supported", token.text.substr(0, 40));
  return node;
}

ExprPtr Parser::bracketed_list() {
  ExprPtr node = make(K::list, take().line);
  while (!is_op("]")) {
    node->parts.push_back(expression());
    if (!skip_op(",")) break;
  }
  expect_op("]");
  return node;
}

ExprPtr Parser::braced_dict() {
  ExprPtr node = make(K::dict, take().line);
  while (!is_op("}")) {
    node->parts.push_back(expression());
    expect_op(":");
    node->parts.push_back(expression());
    if (!skip_op(",")) break;
  }
  expect_op("}");
  return node;
}

ExprPtr Parser::postfix(ExprPtr node) {
  std::vector<std::unique_ptr<Level>> chain;
  while (true) {
    if (is_op(".") || is_op("["))
      node = subscript(std::move(node));
    else if (is_op("("))
      node = call(std::move(node));
    else
      return node;
    chain.push_back(std::make_unique<Level>(*this));
  }
}

ExprPtr Parser::filtered(ExprPtr node) {
  std::vector<std::unique_ptr<Level>> chain;
  while (true) {
    if (is_op("|"))
      node = filters(std::move(node), false);
    else if (is_name("is"))
      node = test(std::move(node));
    else if (is_op("("))
      node = call(std::move(node));
    else
      return node;
    chain.push_back(std::make_unique<Level>(*this));
  }
}

ExprPtr Parser::subscript(ExprPtr node) {
  const Token opening = take();
  if (opening.text == ".") {
    if (is(Token::Kind::integer)) return join(K::item, opening.line, "", std::move(node), number());
    ExprPtr attribute = make(K::attribute, opening.line, expect_any_name());
    attribute->parts.push_back(std::move(node));
    return attribute;
  }
  std::vector<ExprPtr> parts;  // begin, end, step; or the index alone
  const auto bound = [&]() -> ExprPtr { return is_op(":") || is_op("]") ? nullptr : expression(); };
  parts.push_back(bound());
  const bool slice = is_op(":");
  while (parts.size() < 3 && skip_op(":")) parts.push_back(bound());
  if (!parts[0] && !slice) error("{} where an index is expected", shown());
  if (!slice && is_op(",")) {  // a tuple as the key
    ExprPtr key = make(K::tuple, opening.line);
    key->parts.push_back(std::move(parts[0]));
    while (skip_op(","))
      if (!is_op("]")) key->parts.push_back(expression());
    parts[0] = std::move(key);
  }
  expect_op("]");
  if (!slice) return join(K::item, opening.line, "", std::move(node), std::move(parts[0]));
  ExprPtr cut = make(K::slice, opening.line);
  cut->parts.push_back(std::move(node));
  parts.resize(3);
  for (ExprPtr& part : parts) cut->parts.push_back(std::move(part));
  return cut;
}

CallArguments Parser::call_arguments() {
  CallArguments out;
  expect_op("(");
  while (!is_op(")")) {
    const bool named = is(Token::Kind::name) && ahead().kind == Token::Kind::op && ahead().text == "=";
    const bool star = is_op("*"), star_star = is_op("**");
    const bool open = !out.star && !out.star_star && out.named.empty();  // positional arguments are still allowed
    if (out.star_star || (star && out.star) || (!named && !star && !star_star && !open))
      error("this kind of argument is not allowed after the previous ones");
    if (star)
      take(), out.star = expression();
    else if (star_star)
      take(), out.star_star = expression();
    else if (named) {
      std::string key = take().text;
      take();
      out.named.emplace_back(std::move(key), expression());
    } else {
      out.positional.push_back(expression());
    }
    if (!skip_op(",")) break;
  }
  expect_op(")");
  return out;
}

ExprPtr Parser::call(ExprPtr node) {
  ExprPtr out = make(K::call, now().line);
  out->parts.push_back(std::move(node));
  out->arguments = call_arguments();
  return out;
}

std::string Parser::dotted_name() {
  std::string name = expect_any_name();
  while (skip_op(".")) (name += '.') += expect_any_name();
  return name;
}

ExprPtr Parser::filters(ExprPtr node, bool begun) {
  std::vector<std::unique_ptr<Level>> chain;
  while (begun || skip_op("|")) {
    begun = false;
    chain.push_back(std::make_unique<Level>(*this));
    const int line = now().line;
    ExprPtr filter = make(K::filter, line, dotted_name());
    if (is_op("(")) filter->arguments = call_arguments();
    filter->parts.push_back(std::move(node));
    node = std::move(filter);
  }
  return node;
}

ExprPtr Parser::test(ExprPtr node) {
  const int line = take().line;
  const bool negated = skip_name("not");
  ExprPtr out = make(K::test, line, dotted_name());
  const bool value = is(Token::Kind::name) ? !is_name("else") && !is_name("or") && !is_name("and")
                                           : is(Token::Kind::string) || is(Token::Kind::integer) ||
                                                 is(Token::Kind::real) || is_op("[") || is_op("{");
  if (is_op("(")) {
    out->arguments = call_arguments();
  } else if (value) {
    if (is_name("is")) error("tests cannot be chained with 'is': use 'and'");
    out->arguments.positional.push_back(postfix(primary()));
  }
  out->parts.push_back(std::move(node));
  if (!negated) return out;
  ExprPtr no = make(K::unary, line, "not");
  no->parts.push_back(std::move(out));
  return no;
}

}  // namespace dapo::jinja
