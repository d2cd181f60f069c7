// Tokens that are matched in the raw text before any other processing: "<|im_start|>", "<tool_call>".
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dapo {

/// One entry of "added_tokens", with Hugging Face's flags.
struct AddedToken {
  std::string content;
  int32_t id = -1;
  bool single_word = false;  ///< only between characters that are not \w
  bool lstrip = false;       ///< includes the white space before it
  bool rstrip = false;       ///< and after it
  bool normalized = false;   ///< matched in the normalized text
  bool special = false;      ///< dropped by decode(skip_special)
};

/// Finds the tokens of a set in a text: the leftmost match, and at equal position the longest.
class AddedTokenFinder {
 public:
  void add(const AddedToken& token);
  bool empty() const { return tokens_.empty(); }

  /// A token (id >= 0) or the text between two (id = -1, never empty), in order; together they cover the text.
  struct Part {
    int32_t id;
    std::string_view text;
  };
  void split(std::string_view text, std::vector<Part>& parts) const;

 private:
  struct Node {
    uint8_t byte = 0;
    int32_t child = -1, sibling = -1;
    int32_t token = -1;  // index of the token that ends here
  };
  int32_t child_of(int32_t node, uint8_t byte) const;
  /// Index of the longest token at text[at], or -1.
  int32_t longest_at(std::string_view text, size_t at) const;
  bool stands_alone(std::string_view text, size_t begin, size_t end) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> trie_ = std::vector<Node>(1);
  std::array<bool, 256> starts_{};  // bytes that tokens begin with
};

}  // namespace dapo
