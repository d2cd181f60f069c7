#include "tokenizer/pretokenize.h"

#include "core/check.h"
#include "tokenizer/unicode.h"

namespace dapo {

namespace {

using namespace unicode;

/// Reads the characters of one piece by class.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text), table_(properties().data()) {}

  bool at_end(size_t at) const { return at >= text_.size(); }
  Class at(size_t at, size_t& bytes) const { return class_at(table_, text_, at, bytes); }
  /// First position from `at` on whose class differs from `wanted`.
  size_t skip(size_t at, Class wanted) const {
    for (size_t bytes; at < text_.size() && class_at(table_, text_, at, bytes) == wanted;) at += bytes;
    return at;
  }
  size_t skip_newlines(size_t at) const {
    while (at < text_.size() && (text_[at] == '\r' || text_[at] == '\n')) ++at;
    return at;
  }
  /// Length of 's, 't, 're, 've, 'm, 'll, 'd after the apostrophe at `at`, itself included; 0 if there is none.
  size_t contraction(size_t at, bool any_case) const {
    const auto letter = [&](size_t i) {
      const char c = i < text_.size() ? text_[i] : '\0';
      return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    };
    const char a = letter(at + 1), b = letter(at + 2);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
    // U+017F, the long s, folds to s.
    return any_case && text_.substr(at + 1, 2) == "\xC5\xBF" ? 3 : 0;
  }
  struct WhiteRun {
    size_t end;           // end of the run
    size_t last;          // start of its last character
    size_t newlines_end;  // after its last \r or \n; 0 if it has none
  };
  WhiteRun white_run(size_t at) const {
    WhiteRun run{at, at, 0};
    for (size_t bytes; run.end < text_.size();) {
      const Class c = class_at(table_, text_, run.end, bytes);
      if (!is_white(c)) break;
      run.last = run.end;
      run.end += bytes;
      if (c == kNewline) run.newlines_end = run.end;
    }
    return run;
  }
  /// The match of `\s+(?!\S)|\s+`: the run without its last character if text follows and something remains.
  size_t white_end(const WhiteRun& run, size_t begin) const {
    return run.end < text_.size() && run.last > begin ? run.last : run.end;
  }

 private:
  std::string_view text_;
  const uint8_t* table_;
};

class Qwen2Splitter : public Splitter {
 public:
  void split(std::string_view text, uint32_t base, std::vector<uint32_t>& ends) const override {
    const Reader r(text);
    for (size_t at = 0; at < text.size();) {
      at = word_end(r, text, at);
      ends.push_back(base + static_cast<uint32_t>(at));
    }
  }

 private:
  static size_t word_end(const Reader& r, std::string_view text, size_t at) {
    size_t bytes, next_bytes;
    const Class c = r.at(at, bytes);
    if (c == kLetter) return r.skip(at + bytes, kLetter);
    if (c == kNumber) return at + bytes;
    if (text[at] == '\'') {
      if (const size_t n = r.contraction(at, true)) return at + n;
    }
    const size_t next = at + bytes;
    if (c != kNewline && !r.at_end(next)) {
      const Class d = r.at(next, next_bytes);
      if (d == kLetter) return r.skip(next + next_bytes, kLetter);
      if (text[at] == ' ' && d == kOther) return r.skip_newlines(r.skip(next + next_bytes, kOther));
    }
    if (c == kOther) return r.skip_newlines(r.skip(next, kOther));
    const Reader::WhiteRun run = r.white_run(at);
    return run.newlines_end ? run.newlines_end : r.white_end(run, at);
  }
};

class Gpt2Splitter : public Splitter {
 public:
  void split(std::string_view text, uint32_t base, std::vector<uint32_t>& ends) const override {
    const Reader r(text);
    for (size_t at = 0; at < text.size();) {
      at = word_end(r, text, at);
      ends.push_back(base + static_cast<uint32_t>(at));
    }
  }

 private:
  static size_t word_end(const Reader& r, std::string_view text, size_t at) {
    size_t bytes;
    if (text[at] == '\'') {
      if (const size_t n = r.contraction(at, false)) return at + n;
    }
    Class c = r.at(at, bytes);
    if (!is_white(c)) return r.skip(at + bytes, c);
    if (text[at] == ' ' && !r.at_end(at + 1)) {
      c = r.at(at + 1, bytes);
      if (!is_white(c)) return r.skip(at + 1 + bytes, c);
    }
    return r.white_end(r.white_run(at), at);
  }
};

class DigitsSplitter : public Splitter {
 public:
  explicit DigitsSplitter(bool individual) : individual_(individual) {}
  void split(std::string_view text, uint32_t base, std::vector<uint32_t>& ends) const override {
    const Reader r(text);
    bool in_number = true;  // no piece is open before the first character
    for (size_t at = 0, bytes; at < text.size(); at += bytes) {
      const bool number = r.at(at, bytes) == kNumber;
      if (at > 0 && (number != in_number || (number && individual_))) ends.push_back(base + static_cast<uint32_t>(at));
      in_number = number;
    }
    if (!text.empty()) ends.push_back(base + static_cast<uint32_t>(text.size()));
  }

 private:
  bool individual_;
};

}  // namespace

std::unique_ptr<const Splitter> make_qwen2_splitter() {
  return std::make_unique<Qwen2Splitter>();
}
std::unique_ptr<const Splitter> make_gpt2_splitter() {
  return std::make_unique<Gpt2Splitter>();
}
std::unique_ptr<const Splitter> make_digits_splitter(bool individual) {
  return std::make_unique<DigitsSplitter>(individual);
}

std::unique_ptr<const Splitter> make_pattern_splitter(std::string_view pattern) {
  if (pattern == kQwen2Pattern) return make_qwen2_splitter();
  if (pattern == kGpt2Pattern) return make_gpt2_splitter();
  return make_regex_splitter(pattern);
}

void PreTokenizer::split(std::string_view text, std::vector<uint32_t>& ends, std::vector<uint32_t>& scratch) const {
  CHECK_LT(text.size(), size_t{UINT32_MAX});
  ends.clear();
  if (text.empty()) return;
  if (steps_.empty()) ends.push_back(static_cast<uint32_t>(text.size()));
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (i == 0) {
      steps_[0]->split(text, 0, ends);
      continue;
    }
    scratch.swap(ends);
    ends.clear();
    uint32_t begin = 0;
    for (const uint32_t end : scratch) {
      steps_[i]->split(text.substr(begin, end - begin), begin, ends);
      begin = end;
    }
  }
}

}  // namespace dapo
