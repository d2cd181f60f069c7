// Statements of chat templates.
#include "tokenizer/jinja_parser.h"

namespace dapo::jinja {

using K = Stmt::Kind;

namespace {

StmtPtr statement_of(Stmt::Kind kind, int line, std::string text = "") {
  return std::make_unique<Stmt>(Stmt{kind, line, std::move(text)});
}

}  // namespace

/// Up to a tag in `ends`; its name is the next token.
std::vector<StmtPtr> Parser::statements(Ends ends) {
  const Level level(*this);
  std::vector<StmtPtr> out;
  while (!is(Token::Kind::end)) {
    const int line = now().line;
    if (is(Token::Kind::data)) {
      out.push_back(statement_of(K::text, line, take().text));
    } else if (is(Token::Kind::print_begin)) {
      take();
      out.push_back(statement_of(K::print, line));
      out.back()->value = tuple({});
      expect(Token::Kind::print_end, "'}}'");
    } else {
      expect(Token::Kind::tag_begin, "a tag");
      for (const std::string_view end : ends)
        if (is_name(end)) return out;
      out.push_back(statement());
      expect(Token::Kind::tag_end, "'%}'");
    }
  }
  if (ends.size() > 0) error("the template ends where '{}' is expected", fmt::join(ends, "' or '"));
  return out;
}

/// The body of a block whose opening tag has been read except for its end.
std::vector<StmtPtr> Parser::body(Ends ends, bool drop_end) {
  skip_op(":");
  expect(Token::Kind::tag_end, "'%}'");
  std::vector<StmtPtr> out = statements(ends);
  if (drop_end) take();
  return out;
}

StmtPtr Parser::statement() {
  if (!is(Token::Kind::name)) error("{} where a tag's name is expected", shown());
  const std::string& tag = now().text;
  if (tag == "for") return loop();
  if (tag == "if") return conditional();
  if (tag == "set") return set();
  if (tag == "macro") return macro();
  if (tag == "call") return call_block();
  if (tag == "filter") return filter_block();
  if (tag == "with") return with();
  if (tag == "generation") return take(), scope("endgeneration");
  if (tag == "autoescape") return take(), expression(), scope("endautoescape");
  if (tag == "block") return block();
  if (tag == "print") return print();
  if (tag == "break") return loop_control(K::stop);
  if (tag == "continue") return loop_control(K::next);
  if (tag == "include" || tag == "import" || tag == "from" || tag == "extends")
    error("the tag '{}' needs other templates, which a model does not have", tag);
  error("unknown tag '{}'", tag);
}

Target Parser::one_target(bool attributes) {
  if (skip_op("(")) {
    Target out = target(attributes, "");
    expect_op(")");
    return out;
  }
  Target out{"", expect_any_name(), {}};
  if (out.name == "true" || out.name == "false" || out.name == "none" || out.name == "True" || out.name == "False" ||
      out.name == "None")
    error("'{}' cannot be assigned to", out.name);
  if (attributes && skip_op(".")) out = {out.name, expect_any_name(), {}};
  return out;
}

Target Parser::target(bool attributes, std::string_view ends_at) {
  const Level level(*this);
  Target first = one_target(attributes);
  if (!is_op(",")) return first;
  Target out;
  out.several.push_back(std::move(first));
  while (skip_op(",")) {
    if (is(Token::Kind::tag_end) || is_op(")") || is_op("=") || (!ends_at.empty() && is_name(ends_at))) break;
    out.several.push_back(one_target(attributes));
  }
  return out;
}

StmtPtr Parser::set() {
  StmtPtr out = statement_of(K::set, take().line);
  out->target = target(true, "");
  if (skip_op("=")) {
    out->value = tuple({});
    return out;
  }
  out->kind = K::set_block;
  out->value = filters(nullptr, false);
  out->body = body({"endset"}, true);
  return out;
}

StmtPtr Parser::loop() {
  StmtPtr out = statement_of(K::loop, take().line);
  out->target = target(false, "in");
  expect_name("in");
  out->value = tuple({.condition = false, .ends_at = "recursive"});
  if (skip_name("if")) out->test = expression();
  out->recursive = skip_name("recursive");
  ++loops_;
  out->body = body({"endfor", "else"}, false);
  --loops_;
  if (take().text == "else") out->orelse = body({"endfor"}, true);
  return out;
}

StmtPtr Parser::conditional() {
  const Level level(*this);
  StmtPtr out = statement_of(K::condition, take().line);
  out->value = tuple({.condition = false});
  out->body = body({"elif", "else", "endif"}, false);
  if (is_name("elif"))
    out->orelse.push_back(conditional());
  else if (take().text == "else")
    out->orelse = body({"endif"}, true);
  return out;
}

StmtPtr Parser::with() {
  StmtPtr out = statement_of(K::with, take().line);
  while (!is(Token::Kind::tag_end)) {
    Target name = target(false, "");
    expect_op("=");
    out->assigned.emplace_back(std::move(name), expression());
    if (!skip_op(",")) break;
  }
  out->body = body({"endwith"}, true);
  return out;
}

void Parser::signature(std::vector<Parameter>& parameters) {
  expect_op("(");
  while (!is_op(")")) {
    Parameter p{expect_any_name(), nullptr};
    if (skip_op("="))
      p.otherwise = expression();
    else if (!parameters.empty() && parameters.back().otherwise)
      error("the parameter '{}' without a default follows one with a default", p.name);
    parameters.push_back(std::move(p));
    if (!skip_op(",")) break;
  }
  expect_op(")");
}

std::vector<StmtPtr> Parser::macro_body(Stmt& macro, std::string_view end) {
  const bool caller = std::exchange(reads_caller_, false), varargs = std::exchange(reads_varargs_, false),
             kwargs = std::exchange(reads_kwargs_, false);
  const int loops = std::exchange(loops_, 0);  // a break does not leave a macro
  std::vector<StmtPtr> out = body({end}, true);
  loops_ = loops;
  macro.reads_caller = std::exchange(reads_caller_, caller);
  macro.reads_varargs = std::exchange(reads_varargs_, varargs);
  macro.reads_kwargs = std::exchange(reads_kwargs_, kwargs);
  return out;
}

StmtPtr Parser::macro() {
  StmtPtr out = statement_of(K::macro, take().line);
  out->text = expect_any_name();
  signature(out->parameters);
  out->body = macro_body(*out, "endmacro");
  return out;
}

StmtPtr Parser::call_block() {
  StmtPtr out = statement_of(K::call_block, take().line, "caller");
  if (is_op("(")) signature(out->parameters);
  out->value = expression();
  if (out->value->kind != Expr::Kind::call) error("'call' must be followed by a call");
  out->body = macro_body(*out, "endcall");
  return out;
}

StmtPtr Parser::filter_block() {
  StmtPtr out = statement_of(K::filter_block, take().line);
  out->value = filters(nullptr, true);
  out->body = body({"endfilter"}, true);
  return out;
}

StmtPtr Parser::scope(std::string_view end) {
  StmtPtr out = statement_of(K::scope, now().line);
  const int loops = end == "endgeneration" ? std::exchange(loops_, 0) : loops_;
  out->body = body({end}, true);
  loops_ = loops;
  return out;
}

StmtPtr Parser::block() {
  take();
  const std::string name = expect_any_name();
  skip_name("scoped");
  StmtPtr out = scope("endblock");
  skip_name(name);
  return out;
}

StmtPtr Parser::print() {
  StmtPtr out = statement_of(K::scope, take().line);
  while (!is(Token::Kind::tag_end)) {
    out->body.push_back(statement_of(K::print, now().line));
    out->body.back()->value = expression();
    if (!skip_op(",")) break;
  }
  return out;
}

StmtPtr Parser::loop_control(Stmt::Kind kind) {
  if (loops_ == 0) error("'{}' outside a loop", now().text);
  return statement_of(kind, take().line);
}

}  // namespace dapo::jinja
