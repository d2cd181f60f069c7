// The demo's tokenizer: bytes are tokens.
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "tokenizer/bpe.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

namespace {

using Json = nlohmann::ordered_json;

Json added_token(int id, const char* content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

Json byte_level(bool add_prefix_space, bool use_regex) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

void write(const std::filesystem::path& path, const Json& json) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << json.dump() << '\n';
  out.flush();
  if (!out) fail(kExitResources, "{}: cannot be written: check the folder's permissions and the disk", path.string());
}

}  // namespace

void write_byte_tokenizer(const std::string& folder) {
  constexpr const char *kEndOfText = "<|endoftext|>", *kPad = "<|pad|>";
  Json vocabulary = Json::object();
  for (int b = 0; b < 256; ++b) vocabulary[byte_name(static_cast<uint8_t>(b))] = b;
  const Json model = {{"type", "BPE"},
                      {"dropout", nullptr},
                      {"unk_token", nullptr},
                      {"continuing_subword_prefix", nullptr},
                      {"end_of_word_suffix", nullptr},
                      {"fuse_unk", false},
                      {"byte_fallback", false},
                      {"vocab", vocabulary},
                      {"merges", Json::array()}};
  const Json tokenizer = {{"version", "1.0"},
                          {"truncation", nullptr},
                          {"padding", nullptr},
                          {"added_tokens", Json::array({added_token(256, kEndOfText), added_token(257, kPad)})},
                          {"normalizer", nullptr},
                          {"pre_tokenizer", byte_level(false, false)},
                          {"post_processor", nullptr},
                          {"decoder", byte_level(true, true)},
                          {"model", model}};
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail(kExitResources, "{}: cannot be created: {}", folder, error.message());
  write(std::filesystem::path(folder) / "tokenizer.json", tokenizer);
  write(std::filesystem::path(folder) / "tokenizer_config.json",
        {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"eos_token", kEndOfText}, {"pad_token", kPad}});
}

}  // namespace dapo
