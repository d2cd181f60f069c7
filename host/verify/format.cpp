// format: whether a response has a form, such as "<think>*</think>*<answer>*</answer>".
#include <algorithm>

#include "core/check.h"
#include "host/verify/makers.h"
#include "host/verify/text.h"

namespace dapo::verify {
namespace {

/// The fixed pieces between the stars; empty ones where stars touch or stand at an end.
std::vector<std::string> pieces_of(const std::string& pattern) {
  std::vector<std::string> out;
  for (size_t begin = 0, end = 0; begin <= pattern.size(); begin = end + 1) {
    end = std::min(pattern.find('*', begin), pattern.size());
    out.push_back(pattern.substr(begin, end - begin));
  }
  return out;
}

class Format final : public Verifier {
 public:
  explicit Format(const VerifierOptions& options) : Verifier(options), pieces_(pieces_of(options.pattern)) {
    if (options.pattern.find_first_not_of('*') == std::string::npos)
      fail_input("verifier \"format\" needs a pattern, such as \"<think>*</think>*<answer>*</answer>\"");
  }

 private:
  void judge_item(const VerifyItem& item, Verdict& out) const override {
    out.reason = mismatch(strip(item.response));
    out.acc = out.found = out.reason.empty();
    if (out.acc) out.reason = "has the form";
    out.score = out.acc ? options_.right : options_.wrong;
  }

  /// Why the text does not have the form; "" if it does. Each piece must stand once: a text that opens its answer a
  /// second time has another form.
  std::string mismatch(std::string_view text) const {
    size_t at = 0;
    for (size_t i = 0; i < pieces_.size(); ++i) {
      const std::string_view piece = pieces_[i];
      const bool first = i == 0, last = i + 1 == pieces_.size();
      const size_t begin = first  ? 0
                           : last ? std::max(at, text.size() - std::min(text.size(), piece.size()))
                                  : text.find(piece, at);
      if (begin == text.npos || text.substr(begin, piece.size()) != piece)
        return fmt::format("\"{}\" is not {}", piece,
                           first  ? "at the beginning"
                           : last ? "at the end"
                                  : "in its place");
      at = begin + piece.size();
      if (last && at != text.size()) return fmt::format("there is text after \"{}\"", piece);
    }
    for (const std::string& piece : pieces_) {
      const auto times = std::ranges::count(pieces_, piece);
      int64_t found = 0;
      for (size_t p = piece.empty() ? text.npos : text.find(piece); p != text.npos;
           p = text.find(piece, p + piece.size()))
        ++found;
      if (found > times) return fmt::format("\"{}\" is repeated", piece);
    }
    return {};
  }

  const std::vector<std::string> pieces_;
};
}  // namespace

std::unique_ptr<Verifier> make_format(const VerifierOptions& options) {
  return std::make_unique<Format>(options);
}

}  // namespace dapo::verify
