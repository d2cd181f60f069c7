// The parser's two halves: expressions (jinja_expressions.cpp) and statements (jinja_statements.cpp).
#pragma once

#include <fmt/format.h>

#include <initializer_list>

#include "core/check.h"
#include "tokenizer/jinja_syntax.h"

namespace dapo::jinja {

class Parser {
 public:
  Parser(std::string_view source, const std::string& name) : tokens_(tokenize(source, name)), name_(name) {}
  std::vector<StmtPtr> run();

 private:
  static constexpr int kMaxNesting = 200;  ///< parsing, evaluating and freeing are recursive

  // tokens
  const Token& now() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token take();
  bool is(Token::Kind kind) const { return now().kind == kind; }
  bool is_name(std::string_view text) const { return is(Token::Kind::name) && now().text == text; }
  bool is_op(std::string_view text) const { return is(Token::Kind::op) && now().text == text; }
  bool skip_name(std::string_view text);
  bool skip_op(std::string_view text);
  void expect_name(std::string_view text);
  void expect_op(std::string_view text);
  std::string expect_any_name();
  void expect(Token::Kind kind, const char* what);
  std::string shown() const;  ///< the current token, for errors
  template <class... A>
  [[noreturn]] void error(fmt::format_string<A...> text, A&&... args) const {
    fail_input("{}:{}: {}", name_, now().line, fmt::format(text, std::forward<A>(args)...));
  }
  class Level {  ///< one level of nesting
   public:
    explicit Level(Parser& parser) : parser_(parser) {
      if (++parser_.nesting_ > kMaxNesting) parser_.error("nested deeper than {} levels", kMaxNesting);
    }
    ~Level() { --parser_.nesting_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Parser& parser_;
  };

  // expressions
  ExprPtr make(Expr::Kind kind, int line, std::string name = "") const;
  ExprPtr join(Expr::Kind kind, int line, std::string op, ExprPtr left, ExprPtr right);
  struct TupleRules {
    bool condition = true, parentheses = false;
    std::string_view ends_at{};
  };
  ExprPtr tuple(TupleRules rules);
  ExprPtr expression() { return condition(); }
  ExprPtr condition();
  ExprPtr either();
  ExprPtr both();
  ExprPtr negation();
  ExprPtr comparison();
  ExprPtr sum();
  ExprPtr concat();
  ExprPtr product();
  ExprPtr power();
  ExprPtr unary(bool with_filters);
  ExprPtr primary();
  ExprPtr number();
  ExprPtr bracketed_list();
  ExprPtr braced_dict();
  ExprPtr postfix(ExprPtr node);
  ExprPtr filtered(ExprPtr node);
  ExprPtr subscript(ExprPtr node);
  ExprPtr call(ExprPtr node);
  ExprPtr filters(ExprPtr node, bool begun);
  ExprPtr test(ExprPtr node);
  std::string dotted_name();
  CallArguments call_arguments();

  // statements
  using Ends = std::initializer_list<std::string_view>;
  std::vector<StmtPtr> statements(Ends ends);
  std::vector<StmtPtr> body(Ends ends, bool drop_end);
  StmtPtr statement();
  StmtPtr set();
  StmtPtr loop();
  StmtPtr conditional();
  StmtPtr with();
  StmtPtr macro();
  StmtPtr call_block();
  StmtPtr filter_block();
  StmtPtr scope(std::string_view end);
  StmtPtr block();
  StmtPtr print();
  StmtPtr loop_control(Stmt::Kind kind);
  void signature(std::vector<Parameter>& parameters);
  Target target(bool attributes, std::string_view ends_at);
  Target one_target(bool attributes);
  std::vector<StmtPtr> macro_body(Stmt& macro, std::string_view end);

  const std::vector<Token> tokens_;
  const std::string& name_;
  size_t at_ = 0;
  int nesting_ = 0, loops_ = 0;
  bool reads_caller_ = false, reads_varargs_ = false, reads_kwargs_ = false;  // names seen in the macro at hand
};

}  // namespace dapo::jinja
