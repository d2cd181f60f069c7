// Mathematical Unicode characters to TeX.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "host/verify/text.h"

namespace dapo::verify {

namespace {
struct Spelling {
  int32_t code;
  std::string_view tex;
};
constexpr Spelling kSpellings[] = {
    {0xA3, "\\pounds "},     {0xA5, "\\yen "},        {0xD8, "\\emptyset "},   {0x201C, "\""},
    {0x201D, "\""},          {0x2018, "'"},           {0x2044, "/"},           {0x20B9, "\\rupee "},
    {0xB0, "\\degree "},     {0xB1, "\\pm "},         {0xB7, "\\cdot "},       {0xBC, "\\frac14"},
    {0xBD, "\\frac12"},      {0xBE, "\\frac34"},      {0xD7, "\\times "},      {0xF7, "\\div "},
    {0x2010, "-"},           {0x2011, "-"},           {0x2012, "-"},           {0x2013, "-"},
    {0x2014, "-"},           {0x2019, "'"},           {0x2022, "\\cdot "},     {0x2026, "\\dots "},
    {0x2032, "'"},           {0x20AC, "\\euro "},     {0x2102, "\\mathbb{C}"}, {0x2115, "\\mathbb{N}"},
    {0x211A, "\\mathbb{Q}"}, {0x211D, "\\mathbb{R}"}, {0x2124, "\\mathbb{Z}"}, {0x2153, "\\frac13"},
    {0x2154, "\\frac23"},    {0x2155, "\\frac15"},    {0x2156, "\\frac25"},    {0x2157, "\\frac35"},
    {0x2158, "\\frac45"},    {0x2159, "\\frac16"},    {0x215A, "\\frac56"},    {0x215B, "\\frac18"},
    {0x215C, "\\frac38"},    {0x215D, "\\frac58"},    {0x215E, "\\frac78"},    {0x2192, "\\to "},
    {0x2208, "\\in "},       {0x2209, "\\notin "},    {0x2205, "\\emptyset "}, {0x2212, "-"},
    {0x2213, "\\mp "},       {0x2215, "/"},           {0x2216, "\\setminus "}, {0x2217, "*"},
    {0x2218, "\\circ "},     {0x2219, "\\cdot "},     {0x221A, "\\surd "},     {0x221E, "\\infty "},
    {0x2220, "\\angle "},    {0x2227, "\\land "},     {0x2228, "\\lor "},      {0x2229, "\\cap "},
    {0x222A, "\\cup "},      {0x2248, "\\approx "},   {0x2260, "\\ne "},       {0x2261, "\\equiv "},
    {0x2264, "\\le "},       {0x2265, "\\ge "},       {0x2282, "\\subset "},   {0x2286, "\\subseteq "},
    {0x22C5, "\\cdot "},     {0x2A7D, "\\le "},       {0x2A7E, "\\ge "},       {0xA2, "\\cent "},
    {0x2103, "\\degree C"},  {0x3001, ","},           {0x5143, "\\yuan "},     {0xFFE5, "\\yuan "}};
constexpr std::string_view kGreek[] = {"alpha",  "beta", "gamma", "delta",  "varepsilon", "zeta", "eta",
                                       "theta",  "iota", "kappa", "lambda", "mu",         "nu",   "xi",
                                       "",       "pi",   "rho",   "",       "sigma",      "tau",  "upsilon",
                                       "varphi", "chi",  "psi",   "omega"};
constexpr std::string_view kGreekCapitals[] = {"",      "",       "Gamma", "Delta", "",   "",    "",     "Theta", "",
                                               "",      "Lambda", "",      "",      "Xi", "",    "Pi",   "",      "",
                                               "Sigma", "",       "",      "Phi",   "",   "Psi", "Omega"};

/// The digit, sign or n of which `c` is the superscript (or subscript) form, or 0.
char raised(int32_t c) {
  if (c == 0xB9) return '1';
  if (c == 0xB2 || c == 0xB3) return static_cast<char>('2' + (c - 0xB2));
  if (c == 0x2070 || (c >= 0x2074 && c <= 0x2079)) return static_cast<char>('0' + (c - 0x2070));
  return c == 0x207A ? '+' : c == 0x207B ? '-' : c == 0x207F ? 'n' : '\0';
}
char lowered(int32_t c) {
  return c >= 0x2080 && c <= 0x2089 ? static_cast<char>('0' + (c - 0x2080)) : '\0';
}

std::string_view greek(int32_t c) {
  if (c >= 0x3B1 && c <= 0x3C9) return kGreek[c - 0x3B1];
  if (c >= 0x391 && c <= 0x3A9) return kGreekCapitals[c - 0x391];
  return c == 0x3D5 ? "phi" : c == 0x3F5 ? "epsilon" : c == 0x3D1 ? "vartheta" : "";
}
}  // namespace

std::string unicode_to_tex(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 16);
  char script = 0;  // '^' or '_' while inside its braces
  for (size_t at = 0, length; at < text.size(); at += length) {
    const int32_t c = decode(text, at, length);
    const char up = raised(c), down = lowered(c), wanted = up ? '^' : down ? '_' : '\0';
    if (script && wanted != script) out += '}';
    if (wanted && wanted != script) out.append(1, wanted).append(1, '{');
    script = wanted;
    if (wanted) {
      out += up ? up : down;
      continue;
    }
    if (c >= 0 && c < 0x80) {
      out += static_cast<char>(c);
      continue;
    }
    const auto* const found =
        std::find_if(std::begin(kSpellings), std::end(kSpellings), [c](const Spelling& s) { return s.code == c; });
    if (found != std::end(kSpellings))
      out += found->tex;
    else if (const std::string_view name = greek(c); !name.empty())
      out.append(1, '\\').append(name).append(1, ' ');
    else if (c >= 0xFF01 && c <= 0xFF5E)  // fullwidth
      out += static_cast<char>(c - 0xFF01 + '!');
    else if (space_at(text, at) != 0)
      out += ' ';
    else if ((c < 0x200B || c > 0x200D) && c != 0xFEFF)  // no zero-width space, no byte order mark
      out.append(text, at, length);
  }
  if (script) out += '}';
  return out;
}

}  // namespace dapo::verify
