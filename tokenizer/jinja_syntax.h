// Tokens and syntax tree of a chat template.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/jinja_value.h"

namespace dapo::jinja {

struct Token {
  enum class Kind : uint8_t { data, print_begin, print_end, tag_begin, tag_end, name, string, integer, real, op, end };
  Kind kind = Kind::end;
  std::string text;  ///< of data, names, operators ("==", "//"), numbers; strings without quotes and escapes
  int line = 1;
};

/// The tokens of a template, white space between tags and text trimmed as in transformers (trim_blocks,
/// lstrip_blocks). Every error starts with `name`.
std::vector<Token> tokenize(std::string_view source, const std::string& name);

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using StmtPtr = std::unique_ptr<Stmt>;

struct CallArguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star, star_star;
};

struct Expr {
  enum class Kind : uint8_t {
    constant,   // value
    name,       // name
    list,       // parts
    tuple,      // parts
    dict,       // parts: key, value, key, value
    attribute,  // parts[0].name
    item,       // parts[0][parts[1]]
    slice,      // parts[0][parts[1]:parts[2]:parts[3]], the last three may be null
    call,       // parts[0](arguments)
    filter,     // parts[0] | name(arguments); parts[0] is null in a filter block
    test,       // parts[0] is name(arguments)
    unary,      // op parts[0]: "-", "+", "not"
    binary,     // parts[0] op parts[1]: + - * / // % **
    logic,      // parts[0] op parts[1]: "and", "or"
    compare,    // parts[0] ops[0] parts[1] ops[1] parts[2]
    concat,     // parts, joined as text
    condition,  // parts[0] if parts[1] else parts[2], which may be null
  };
  Kind kind;
  int line;
  std::string name{};  ///< or operator
  Value value{};
  std::vector<ExprPtr> parts{};
  std::vector<std::string> ops{};
  CallArguments arguments{};
};

struct Parameter {
  std::string name;
  ExprPtr otherwise;  ///< may be null
};

/// The target of an assignment: a name, an attribute of a namespace (object.name), or several.
struct Target {
  std::string object, name;
  std::vector<Target> several;
};

struct Stmt {
  enum class Kind : uint8_t {
    text,          // text
    print,         // value
    condition,     // if value: body, else: orelse
    loop,          // for target in value if test: body, else: orelse
    set,           // target = value
    set_block,     // target = body, through the filter `value` if there is one
    macro,         // text: its name; parameters, body
    call_block,    // call value with body as caller
    filter_block,  // body through the filter `value`
    with,          // targets = values: body
    scope,         // body with variables of its own
    stop,          // break
    next,          // continue
  };
  Kind kind;
  int line;
  std::string text{};
  ExprPtr value{}, test{};
  Target target{};
  bool recursive = false;
  bool reads_caller = false, reads_varargs = false, reads_kwargs = false;  ///< a macro's body does
  std::vector<Parameter> parameters{};
  std::vector<std::pair<Target, ExprPtr>> assigned{};
  std::vector<StmtPtr> body{}, orelse{};
};

/// The template's statements. Error (exit 2) names template and line.
std::vector<StmtPtr> parse(std::string_view source, const std::string& name);

}  // namespace dapo::jinja
