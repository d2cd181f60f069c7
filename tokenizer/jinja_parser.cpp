#include "tokenizer/jinja_parser.h"

namespace dapo::jinja {

Token Parser::take() {
  const Token token = now();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool Parser::skip_name(std::string_view text) {
  const bool there = is_name(text);
  if (there) take();
  return there;
}

bool Parser::skip_op(std::string_view text) {
  const bool there = is_op(text);
  if (there) take();
  return there;
}

std::string Parser::shown() const {
  switch (now().kind) {
    case Token::Kind::data:
      return "text";
    case Token::Kind::print_begin:
      return "'{{'";
    case Token::Kind::print_end:
      return "'}}'";
    case Token::Kind::tag_begin:
      return "'{%'";
    case Token::Kind::tag_end:
      return "'%}'";
    case Token::Kind::end:
      return "the end of the template";
    default:
      return fmt::format("'{}'", now().text.substr(0, 80));
  }
}

void Parser::expect(Token::Kind kind, const char* what) {
  if (!is(kind)) error("{} where {} is expected", shown(), what);
  take();
}
void Parser::expect_op(std::string_view text) {
  if (!skip_op(text)) error("{} where '{}' is expected", shown(), text);
}
void Parser::expect_name(std::string_view text) {
  if (!skip_name(text)) error("{} where '{}' is expected", shown(), text);
}
std::string Parser::expect_any_name() {
  if (!is(Token::Kind::name)) error("{} where a name is expected", shown());
  return take().text;
}

std::vector<StmtPtr> Parser::run() {
  return statements({});
}

std::vector<StmtPtr> parse(std::string_view source, const std::string& name) {
  return Parser(source, name).run();
}

}  // namespace dapo::jinja
