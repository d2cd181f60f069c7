// Patterns of tokenizer.json through PCRE2.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/check.h"
#include "tokenizer/pretokenize.h"

namespace dapo {

namespace {

/// Expands `\s` and `\S`: PCRE2's include U+180E, which is not White_Space.
std::string spell_out_white_space(std::string_view pattern) {
  static constexpr std::string_view kWhite = R"(\x{9}-\x{d}\x{20}\x{85}\p{Z})";
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c != '\\' || i + 1 >= pattern.size()) {
      if (c == '[') in_class = true;
      if (c == ']') in_class = false;
      out += c;
      continue;
    }
    const char escaped = pattern[++i];
    if (escaped == 's')
      out += in_class ? std::string(kWhite) : fmt::format("[{}]", kWhite);
    else if (escaped == 'S' && !in_class)
      out += fmt::format("[^{}]", kWhite);
    else
      (out += c) += escaped;
  }
  return out;
}

std::string error_text(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

template <auto F>
struct Free {
  template <class T>
  void operator()(T* p) const {
    F(p);
  }
};

class RegexSplitter : public Splitter {
 public:
  explicit RegexSplitter(std::string_view pattern) : pattern_(pattern) {
    const std::string spelled = spell_out_white_space(pattern);
    int error = 0;
    PCRE2_SIZE at = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(spelled.data()), spelled.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C, &error, &at,
                              nullptr));
    if (!code_) fail_input("the pattern '{}' does not compile: {} (near character {})", pattern, error_text(error), at);
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // without JIT the result is the same, only slower
    context_.reset(pcre2_match_context_create(nullptr));
    pcre2_set_match_limit(context_.get(), 10'000'000);
  }

  void split(std::string_view text, uint32_t base, std::vector<uint32_t>& ends) const override {
    const std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>> match(pcre2_match_data_create(1, nullptr));
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(match.get());
    const auto cut = [&](size_t at) { ends.push_back(base + static_cast<uint32_t>(at)); };
    size_t done = 0;
    for (size_t from = 0; from < text.size();) {
      const int rc = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                 PCRE2_NOTEMPTY, match.get(), context_.get());
      if (rc == PCRE2_ERROR_NOMATCH) break;
      if (rc < 0) fail_input("the pre-tokenizer's pattern '{}' failed on a text: {}", pattern_, error_text(rc));
      if (span[0] > done) cut(span[0]);
      cut(span[1]);
      done = from = span[1];
    }
    if (done < text.size()) cut(text.size());
  }

 private:
  std::string pattern_;
  std::unique_ptr<pcre2_code, Free<pcre2_code_free>> code_;
  std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>> context_;
};

}  // namespace

std::unique_ptr<const Splitter> make_regex_splitter(std::string_view pattern) {
  return std::make_unique<RegexSplitter>(pattern);
}

}  // namespace dapo
