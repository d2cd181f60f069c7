// TeX's old infix commands and the two bars of a set, as tokens in the usual order.
#include <iterator>
#include <utility>

#include "host/verify/tex.h"
#include "host/verify/tex_names.h"

namespace dapo::verify {

namespace {
constexpr size_t kNone = std::string::npos;
constexpr int kMostRewritten = 40;  // each may copy all tokens

struct Group {
  size_t begin;          ///< of its content
  size_t infix = kNone;  ///< of \over or \choose, which divides all of its group
  bool plain = true;     ///< it has one of them, and no relation or comma, over which \over would reach too
};

bool is_infix(const Token& t) {
  return t.kind == Tok::command && (t.text == "over" || t.text == "choose");
}

/// {a \over b} -> \frac{a}{b}
void rewrite(std::vector<Token>& out, const Group& group) {
  const auto at = [&](size_t i) { return out.begin() + static_cast<std::ptrdiff_t>(i); };
  const size_t upper = group.infix - group.begin, lower = out.size() - group.infix - 1;
  if (upper == 0 || lower == 0) return;
  const Token name{Tok::command, false, true, out[group.infix].text == "over" ? "frac" : "binom"},
      open{Tok::open, false, false, "{"}, close{Tok::close, false, false, "}"};
  std::vector<Token> now = {name, open};
  now.insert(now.end(), std::make_move_iterator(at(group.begin)), std::make_move_iterator(at(group.infix)));
  now.insert(now.end(), {close, open});
  now.insert(now.end(), std::make_move_iterator(at(group.infix + 1)), std::make_move_iterator(out.end()));
  now.push_back(close);
  out.resize(group.begin);
  // After a number without its braces, as \frac would stand there: 2{1\over2} is a mixed number.
  if (out.size() > 1 && out.back().is(Tok::open, "{") && out[out.size() - 2].kind == Tok::number) out.pop_back();
  out.insert(out.end(), std::make_move_iterator(now.begin()), std::make_move_iterator(now.end()));
}
}  // namespace

void read_infix(std::vector<Token>& tokens) {
  int left = kMostRewritten;
  bool any = false;
  for (const Token& t : tokens) any |= is_infix(t) || t.is(Tok::open, "\\{");
  if (!any) return;
  std::vector<Token> out;
  std::vector<Group> groups = {{0}};
  const auto finish = [&] {  // whether the group has lost its opening brace
    const Group group = groups.back();
    groups.pop_back();
    const bool rewritten = group.infix != kNone && group.plain && left-- > 0;
    if (rewritten) rewrite(out, group);
    return rewritten && group.begin > 0 && out[group.begin - 1].kind != Tok::open;
  };
  for (Token& t : tokens) {
    if (t.kind == Tok::close && groups.size() > 1 && finish()) continue;
    const bool infix = is_infix(t), opens = t.kind == Tok::open;
    if (t.kind == Tok::op) {
      if (any_of({",", "=", "<", ">", "<=", ">=", "!=", "in", "&", "\\\\"}, t.text)) groups.back().plain = false;
      if (t.text == ":" && groups.size() > 1 && out[groups.back().begin - 1].text == "\\{") t.text = "|";
    }
    out.push_back(std::move(t));
    if (infix) {
      groups.back().plain &= groups.back().infix == kNone;
      groups.back().infix = out.size() - 1;
    }
    if (opens) groups.push_back({out.size()});
  }
  if (groups.size() == 1) finish();
  tokens = std::move(out);
}

}  // namespace dapo::verify
