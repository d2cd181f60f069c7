// Part of `boxed`: the TeX commands that read_tokens knows.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string_view>

namespace dapo::verify {

using std::string_view;

struct Alias {
  string_view name, is;
};
template <size_t N>
const Alias* find(const Alias (&table)[N], string_view name) {
  const Alias* const found = std::find_if(table, table + N, [&](const Alias& a) { return a.name == name; });
  return found == table + N ? nullptr : found;
}
inline bool any_of(std::initializer_list<string_view> words, string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

/// Commands that are operators.
inline constexpr Alias kOperators[] = {{"cdot", "*"},
                                       {"times", "*"},
                                       {"ast", "*"},
                                       {"div", "/"},
                                       {"pm", "+-"},
                                       {"mp", "-+"},
                                       {"le", "<="},
                                       {"leq", "<="},
                                       {"leqslant", "<="},
                                       {"ge", ">="},
                                       {"geq", ">="},
                                       {"geqslant", ">="},
                                       {"lt", "<"},
                                       {"gt", ">"},
                                       {"ne", "!="},
                                       {"neq", "!="},
                                       {"in", "in"},
                                       {"notin", "notin"},
                                       {"subset", "subset"},
                                       {"subseteq", "subseteq"},
                                       {"cup", "cup"},
                                       {"cap", "cap"},
                                       {"setminus", "minus"},
                                       {"backslash", "minus"},
                                       {"mid", "|"},
                                       {"vert", "|"},
                                       {"lvert", "|"},
                                       {"rvert", "|"},
                                       {"Vert", "||"},
                                       {"lVert", "||"},
                                       {"rVert", "||"},
                                       {"to", "to"},
                                       {"rightarrow", "to"},
                                       {"implies", "implies"},
                                       {"Rightarrow", "implies"},
                                       {"iff", "iff"},
                                       {"Leftrightarrow", "iff"},
                                       {"approx", "approx"},
                                       {"equiv", "equiv"},
                                       {"sim", "sim"},
                                       {"cong", "cong"},
                                       {"colon", ":"},
                                       {"land", "and"},
                                       {"wedge", "and"},
                                       {"lor", "or"},
                                       {"vee", "or"},
                                       {"prime", "'"},
                                       {"parallel", "parallel"},
                                       {"perp", "perp"}};
/// Commands that are brackets: "(" for "\lparen" and so on.
inline constexpr Alias kOpening[] = {
    {"lbrace", "\\{"}, {"lbrack", "["}, {"langle", "<"}, {"lfloor", "lfloor"}, {"lceil", "lceil"}};
inline constexpr Alias kClosing[] = {
    {"rbrace", "\\}"}, {"rbrack", "]"}, {"rangle", ">"}, {"rfloor", "rfloor"}, {"rceil", "rceil"}};
/// Commands that stand for a letter or a value. Only these may be reordered in a product.
inline constexpr string_view kSymbols[] = {
    "alpha",   "beta",  "gamma",  "delta", "epsilon", "varepsilon", "zeta",  "eta",   "theta", "vartheta",
    "iota",    "kappa", "lambda", "mu",    "nu",      "xi",         "pi",    "rho",   "sigma", "tau",
    "upsilon", "phi",   "varphi", "chi",   "psi",     "omega",      "Gamma", "Delta", "Theta", "Lambda",
    "Xi",      "Pi",    "Sigma",  "Phi",   "Psi",     "Omega",      "infty", "ell",   "hbar"};
/// Aliases of other commands, also without a backslash.
inline constexpr Alias kSpellings[] = {{"dfrac", "frac"},     {"tfrac", "frac"},        {"cfrac", "frac"},
                                       {"dbinom", "binom"},   {"tbinom", "binom"},      {"surd", "root"},
                                       {"infinity", "infty"}, {"inf", "infty"},         {"varphi", "phi"},
                                       {"vartheta", "theta"}, {"varepsilon", "epsilon"}};
inline constexpr string_view kFunctions[] = {"sin",  "cos",  "tan",    "cot",    "sec",    "csc", "sinh",
                                             "cosh", "tanh", "arcsin", "arccos", "arctan", "log", "ln",
                                             "lg",   "exp",  "gcd",    "lcm",    "max",    "min"};
inline constexpr string_view kUprightFonts[] = {"text",   "textbf", "textit",       "textrm", "textnormal",
                                                "textsf", "texttt", "textsc",       "textup", "mbox",
                                                "hbox",   "mathrm", "operatorname", "mathsf", "mathtt"};
inline constexpr string_view kMathFonts[] = {"mathbf", "boldsymbol", "bm",   "mathit",     "mathnormal",
                                             "pmb",    "boxed",      "fbox", "ensuremath", "underline"};
/// Commands whose first argument does not belong to the formula: "\\color{red}{5}" is 5.
inline constexpr string_view kIgnoredArgument[] = {"hspace", "vspace",    "phantom",  "hphantom", "vphantom",
                                                   "color",  "textcolor", "colorbox", "label",    "tag"};
/// Commands and abbreviations of currencies; those with a sign of their own and words ("dollars") are elsewhere.
inline constexpr Alias kCurrencies[] = {
    {"textdollar", "dollar"}, {"USD", "dollar"},      {"euro", "euro"}, {"texteuro", "euro"}, {"EUR", "euro"},
    {"pounds", "lb"},         {"textsterling", "lb"}, {"GBP", "lb"},    {"yen", "yen"},       {"textyen", "yen"},
    {"JPY", "yen"},           {"yuan", "yuan"},       {"RMB", "yuan"},  {"CNY", "yuan"},      {"rupee", "rupee"},
    {"rupees", "rupee"},      {"Rs", "rupee"},        {"INR", "rupee"}, {"cent", "cent"}};
inline constexpr string_view kNothing[] = {
    "displaystyle", "tiny", "scriptsize", "footnotesize", "small",  "normalsize", "large", "Large", "LARGE",
    "huge",         "Huge", "textstyle",  "scriptstyle",  "limits", "nolimits",   "bf",    "it",    "sf",
    "tt",           "left", "right",      "middle",       "big",    "bigl",       "bigr",  "Big",   "Bigl",
    "Bigr",         "bigg", "biggl",      "biggr",        "Bigg",   "Biggl",      "Biggr"};
inline constexpr string_view kSpaces[] = {"quad",     "qquad",      "enspace", "thinspace",
                                          "medspace", "thickspace", "space",   "nobreakspace"};

template <size_t N>
bool has(const string_view (&table)[N], string_view name) {
  return std::find(table, table + N, name) != table + N;
}

}  // namespace dapo::verify
