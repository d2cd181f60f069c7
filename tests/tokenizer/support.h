// Shared by the tokenizer's tests: vector files, scratch folders, SHA-256 of id lists.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "core/check.h"
#include "tests/testdata.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

using Json = nlohmann::ordered_json;
using Ids = std::vector<int32_t>;

inline constexpr const char* kQwenJson = "tokenizer/qwen2.5_tokenizer.reconstructed.json";
inline constexpr const char* kOwnJson = "tokenizer/bpe/tokenizer.json";
/// Byte-level BPE: the project's own small one and, if present, Qwen2.5's.
inline std::vector<std::string> byte_level_files() {
  return golden_files(kOwnJson, kQwenJson);
}

/// The rows of a JSONL file, gzipped or not.
inline std::vector<Json> json_lines(const std::string& path) {
  std::vector<Json> rows;
  std::string text;
  if (path.ends_with(".gz")) {
    const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(fmt::format("gzip -dc '{}'", path).c_str(), "r"), pclose);
    std::array<char, 1 << 16> block;
    for (size_t n; pipe && (n = fread(block.data(), 1, block.size(), pipe.get())) > 0;) text.append(block.data(), n);
  } else {
    text = slurp(path);
  }
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);)
    if (!line.empty()) rows.push_back(Json::parse(line));
  return rows;
}

inline std::vector<std::string> split_text(const std::string& text, const std::string& by) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t at; (at = text.find(by, begin)) != std::string::npos; begin = at + by.size())
    parts.push_back(text.substr(begin, at - begin));
  parts.push_back(text.substr(begin));
  return parts;
}

/// FIPS 180-4.
class Sha256 {
 public:
  void update(const void* data, size_t size);
  std::string hex();

 private:
  void block(const uint8_t* p);
  uint32_t h_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::string pending_;
  uint64_t total_ = 0;
};

/// Text of a random kind: ASCII, any script, marks, white space, quotes, specials.
std::string random_text(std::mt19937_64& random, size_t max_characters);

}  // namespace dapo
