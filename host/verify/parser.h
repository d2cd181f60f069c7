// Part of `boxed`: the parser behind read_expression. expression.cpp parses relations, sums and products,
// factors.cpp their factors.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "host/verify/expression.h"
#include "host/verify/terms.h"

namespace dapo::verify {

/// Recursive descent without backtracking, at most kDeepest levels deep; every part is returned in canonical spelling.
class Parser {
 public:
  Parser(std::span<const Token> tokens, PlusMinus plus_minus) : tokens_(tokens), plus_minus_(plus_minus) {}
  Expression whole();

 private:
  static constexpr int kDeepest = 40;
  struct Deeper {
    explicit Deeper(int& depth) : depth_(depth) {
      if (++depth_ > kDeepest) throw Unreadable();
    }
    ~Deeper() { --depth_; }
    int& depth_;
  };

  bool more() const { return at_ < tokens_.size(); }
  const Token& token(size_t ahead = 0) const {
    if (at_ + ahead >= tokens_.size()) throw Unreadable();
    return tokens_[at_ + ahead];
  }
  bool is(Tok kind) const { return more() && tokens_[at_].kind == kind; }
  bool is(Tok kind, std::string_view text, size_t ahead = 0) const {
    return at_ + ahead < tokens_.size() && tokens_[at_ + ahead].is(kind, text);
  }
  bool is_op(std::string_view text) const { return is(Tok::op, text); }
  bool is_whole_number(size_t ahead = 0) const;
  bool take(Tok kind, std::string_view text);
  void need(Tok kind, std::string_view text) {
    if (!take(kind, text)) throw Unreadable();
  }

  /// `first`: the part that is already parsed.
  std::string relation(Expression* out, Sum* first = nullptr);
  std::string united(bool* name, Sum* first);
  std::vector<std::string> list(Sum* first = nullptr);
  Sum sum();
  Sign plus_minus(bool plus_first);

  bool factor_follows() const;
  bool function_follows() const;
  bool stands_within(std::string_view letter) const;
  Term term();
  Term side_by_side();
  void factor(Term& out, bool lone);
  void number(Term& out, bool lone);
  void mix(Term& out, const Token& whole, const Term& part);
  void repeat(Term& out, const Token& begin, const std::string& again);
  std::string whole_digits();
  std::string braced_digits();
  std::string dotted_digits();
  bool inverse_follows() const;
  void word(Term& out);
  void postfix(Term& value);
  Sum script();

  Term atom();
  Term opened();
  Sum group();
  std::string bracket();
  std::string bracket(const std::string& open, Sum* first);
  Term environment();
  Term absolute();
  Term command(const std::string& name);
  Term fraction();
  Sum argument();
  Term root(bool tex);

  const std::span<const Token> tokens_;
  const PlusMinus plus_minus_;
  size_t at_ = 0;
  size_t taken_ = 0;  // bytes of the token that a \frac has consumed
  int depth_ = 0, bars_ = 0, signs_ = 0;
  bool open_argument_ = false;  // the last factor was a function whose argument has no parentheses
};

}  // namespace dapo::verify
