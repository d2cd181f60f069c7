// The parts individually: UTF-8, NFC, splitters, merges, added tokens, streaming.
#include <array>
#include <map>
#include <thread>

#include "tests/tokenizer/support.h"
#include "tokenizer/bpe.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/unicode.h"

namespace dapo {
namespace {

std::vector<std::string> pieces(const Splitter& splitter, const std::string& text) {
  std::vector<uint32_t> ends;
  splitter.split(text, 7, ends);
  std::vector<std::string> out;
  uint32_t begin = 7;
  for (const uint32_t end : ends) {
    EXPECT_GT(end, begin);
    out.push_back(text.substr(begin - 7, end - begin));
    begin = end;
  }
  EXPECT_EQ(begin - 7, text.size());
  return out;
}

using Pieces = std::vector<std::string>;

TEST(Unicode, MoveValidReplacesMaximalParts) {
  // What Python's bytes.decode("utf-8", "replace") gives.
  const std::string r = "\uFFFD";
  const std::vector<std::pair<std::string, std::string>> cases = {{"a\xFF", "a" + r},
                                                                  {"\xE4\xB8", r},
                                                                  {"\xE4\xB8z", r + "z"},
                                                                  {"\xC0\x80", r + r},
                                                                  {"\xED\xA0\x80", r + r + r},
                                                                  {"\xF0\x9F\xA6", r},
                                                                  {"\xF4\x90\x80\x80", r + r + r + r},
                                                                  {"\xF0\x9Fz\x80", r + "z" + r},
                                                                  {"\xE0\x9F\x80", r + r + r},
                                                                  {"\U0001F999é", "\U0001F999é"},
                                                                  {"\xF8", r},
                                                                  {"", ""}};
  for (const auto& [bytes, text] : cases) {
    std::string held = bytes, out;
    unicode::move_valid(held, true, out);
    EXPECT_EQ(out, text);
    EXPECT_EQ(held, "");
  }
  std::string held = "ab\xF0\x9F\xA6", out;
  unicode::move_valid(held, false, out);
  EXPECT_EQ(out, "ab");
  EXPECT_EQ(held.size(), 3u);
}

TEST(Unicode, Nfc) {
  std::string storage;
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"e\u0301", "\u00E9"},
      {"x\u0323\u0307", "\u1E8B\u0323"},  // reordered before it is composed
      {"x\u0307\u0323", "\u1E8B\u0323"},
      {"\u212B", "\u00C5"},
      {"\u1100\u1161\u11A8", "\uAC01"},
      {"\u0958", "\u0915\u093C"},  // composition exclusion
      {"\u0344", "\u0308\u0301"},
      {"\u09C7\u09BE", "\u09CB"},
      {"a\xFF\u0301"
       "e\u0301\xFF",
       "a\xFF\u0301\u00E9\xFF"}};
  for (const auto& [in, out] : cases) {
    EXPECT_EQ(unicode::nfc(in, storage), out);
    EXPECT_EQ(unicode::nfc("caf\u00E9 " + in + " z", storage), "caf\u00E9 " + out + " z");
  }
  const std::string plain = "plain caf\u00E9 \u4E2D\u6587 \U0001F999";
  EXPECT_EQ(unicode::nfc(plain, storage).data(), plain.data()) << "no copy where nothing changes";
}

TEST(Split, Qwen2ByHand) {
  const auto s = make_qwen2_splitter();
  EXPECT_EQ(pieces(*s, "I'LL say 'hello' 123"), (Pieces{"I", "'LL", " say", " '", "hello", "'", " ", "1", "2", "3"}));
  EXPECT_EQ(pieces(*s, "a  b\n\n  c  \n d   "), (Pieces{"a", " ", " b", "\n\n", " ", " c", "  \n", " d", "   "}));
  EXPECT_EQ(pieces(*s, "x = y;\r\n\tz"), (Pieces{"x", " =", " y", ";\r\n", "\tz"}));
  EXPECT_EQ(pieces(*s, "'\u017Fo"), (Pieces{"'\u017F", "o"}));
}

TEST(Split, Gpt2AndDigitsByHand) {
  EXPECT_EQ(pieces(*make_gpt2_splitter(), "I'll I'LL  12 34!\n\nx"),
            (Pieces{"I", "'ll", " I", "'", "LL", " ", " 12", " 34", "!", "\n", "\n", "x"}));
  EXPECT_EQ(pieces(*make_digits_splitter(true), "a12b"), (Pieces{"a", "1", "2", "b"}));
  EXPECT_EQ(pieces(*make_digits_splitter(false), "12b3"), (Pieces{"12", "b", "3"}));
}

/// PCRE2 may have an older Unicode version than ours: a text with a character they disagree on is skipped.
bool same_classes(const std::string& text) {
  static const auto letters = make_regex_splitter("\\p{L}"), numbers = make_regex_splitter("\\p{N}");
  static std::map<std::string, bool> known;
  for (size_t at = 0; at < text.size();) {
    const auto symbol = unicode::decode_one(std::string_view(text).substr(at, 4));
    const std::string character = text.substr(at, symbol.bytes);
    at += symbol.bytes;
    const auto [entry, is_new] = known.try_emplace(character, true);
    if (is_new) {
      const auto c = static_cast<unicode::Class>(unicode::properties()[symbol.code] & unicode::kClassMask);
      const std::string twice = character + character;
      // Split into single characters if it is of the class, else left whole.
      const bool letter = pieces(*letters, twice).size() == 2, number = pieces(*numbers, twice).size() == 2;
      entry->second = letter == (c == unicode::kLetter) && number == (c == unicode::kNumber);
    }
    if (!entry->second) return false;
  }
  return true;
}

/// The scanners against PCRE2 with the pattern itself, on random texts and on all vectors.
TEST(Split, ScannersAgreeWithTheirPatterns) {
  const std::vector<std::pair<std::unique_ptr<const Splitter>, std::unique_ptr<const Splitter>>> pairs = [] {
    std::vector<std::pair<std::unique_ptr<const Splitter>, std::unique_ptr<const Splitter>>> p;
    p.emplace_back(make_qwen2_splitter(), make_regex_splitter(kQwen2Pattern));
    p.emplace_back(make_gpt2_splitter(), make_regex_splitter(kGpt2Pattern));
    return p;
  }();
  std::vector<std::string> texts;
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) texts.push_back(random_text(random, 24));
  for (const std::string& path :
       golden_files("tokenizer/bpe/vectors.jsonl", "tokenizer_vectors/qwen2.5_hf_vectors.jsonl"))
    for (const Json& row : json_lines(path)) texts.push_back(row["text"]);
  size_t compared = 0;
  for (const std::string& text : texts) {
    if (!same_classes(text)) continue;
    ++compared;
    for (const auto& [scanner, regex] : pairs) ASSERT_EQ(pieces(*scanner, text), pieces(*regex, text)) << text;
  }
  EXPECT_GT(compared, texts.size() * 9 / 10);
}

TEST(Split, RegexErrors) {
  EXPECT_NE(error_of(kExitUsage, [] { make_regex_splitter("(a"); }).find("(a"), std::string::npos);
  // Exponential: stopped by the limit.
  const auto bad = make_regex_splitter("(?:(?:a+)+)+[0-9]");
  std::vector<uint32_t> ends;
  EXPECT_NE(error_of(kExitUsage, [&] { bad->split(std::string(64, 'a') + "c", 0, ends); }).find("failed on a text"),
            std::string::npos);
  EXPECT_EQ(pieces(*make_regex_splitter("b*"), "abba\xFF"), (Pieces{"a", "bb", "a\xFF"})) << "no empty pieces";
}

/// Merges against the definition, word by word, on random rules (the second half of the words uses the queue).
TEST(Merge, EqualsTheDefinition) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 60; ++round) {
    Merges merges;
    std::array<int32_t, 256> bytes;
    bytes.fill(-1);
    for (int32_t i = 0; i < 3; ++i) bytes[static_cast<size_t>('a' + i)] = i;
    merges.set_bytes(bytes);
    std::map<std::pair<int32_t, int32_t>, std::pair<int32_t, int32_t>> rules;  // pair -> rank, merged
    for (int32_t rank = 0, next = 3; rank < 40; ++rank, ++next) {
      const auto left = static_cast<int32_t>(random() % static_cast<uint64_t>(next));
      const auto right = static_cast<int32_t>(random() % static_cast<uint64_t>(next));
      merges.add(left, right, rank, next);
      rules[{left, right}] = {rank, next};
    }
    for (const size_t length : {2u, 5u, 17u, 64u, 65u, 130u, 300u}) {
      std::string word;
      Ids expected;
      for (size_t i = 0; i < length; ++i) {
        word += static_cast<char>('a' + random() % 4);  // 'd' has no token and is dropped
        if (word.back() != 'd') expected.push_back(word.back() - 'a');
      }
      while (true) {
        size_t best = 0;
        int32_t best_rank = INT32_MAX, merged = -1;
        for (size_t i = 0; i + 1 < expected.size(); ++i) {
          const auto rule = rules.find({expected[i], expected[i + 1]});
          if (rule != rules.end() && rule->second.first < best_rank) {
            best = i;
            std::tie(best_rank, merged) = rule->second;
          }
        }
        if (merged < 0) break;
        expected[best] = merged;
        expected.erase(expected.begin() + static_cast<std::ptrdiff_t>(best) + 1);
      }
      Ids ids;
      merges.encode(word, ids);
      ASSERT_EQ(ids, expected) << word;
    }
  }
}

void expect_round_trips(const std::string& json) {
  const auto tokenizer = Tokenizer::load(json);
  std::mt19937_64 random(3);
  std::string storage;
  for (int i = 0; i < 3000; ++i) {
    std::string bytes(random() % 80, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    const Ids ids = tokenizer->encode(bytes);
    ASSERT_EQ(tokenizer->decode_bytes(ids, false), unicode::nfc(bytes, storage));
  }
  for (int i = 0; i < 5000; ++i) {
    const std::string text = random_text(random, 30);
    const Ids ids = tokenizer->encode(text);
    ASSERT_EQ(tokenizer->decode(ids, false), unicode::nfc(text, storage));
    for (const int32_t id : ids) ASSERT_LT(id, tokenizer->vocab_size());
  }
}

TEST(RoundTrip, AnyBytes) {
  for (const std::string& json : byte_level_files()) expect_round_trips(json);
}

void expect_streams(const std::string& json) {
  const auto tokenizer = Tokenizer::load(json);
  std::mt19937_64 random(4);
  for (int i = 0; i < 3000; ++i) {
    Ids ids = tokenizer->encode(random_text(random, 20));
    for (uint64_t n = random() % 4; n > 0; --n)  // any token anywhere: broken characters too
      ids.insert(ids.begin() + static_cast<std::ptrdiff_t>(random() % (ids.size() + 1)),
                 static_cast<int32_t>(random() % (static_cast<uint64_t>(tokenizer->vocab_size()) + 300)));
    const bool skip = random() % 2;
    StreamDecoder stream(*tokenizer, skip);
    std::string text;
    for (int repeat = 0; repeat < 2; ++repeat) {
      text.clear();
      for (const int32_t id : ids) text += stream.push(id);
      text += stream.finish();
      ASSERT_EQ(text, tokenizer->decode(ids, skip));
    }
  }
}

TEST(Stream, EqualsDecodeWhereverTokensCut) {
  for (const std::string& json : byte_level_files()) expect_streams(json);
}

TEST(Stream, HoldsBackHalfACharacter) {
  const ScratchFolder folder;
  write_byte_tokenizer(folder.path());
  const auto tokenizer = Tokenizer::load(folder.path());
  StreamDecoder stream(*tokenizer);
  EXPECT_EQ(stream.push('a'), "a");
  EXPECT_EQ(stream.push(0xC3), "");
  EXPECT_EQ(stream.push(256), "") << "a special token, skipped";
  EXPECT_EQ(stream.push(0xA9), "é");
  EXPECT_EQ(stream.push(0xF0), "");
  EXPECT_EQ(stream.push('b'), "\uFFFDb");
  EXPECT_EQ(stream.push(0xE4), "");
  EXPECT_EQ(stream.push(263), "") << "an id without a token";
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

void expect_threads_share(const std::string& json, const std::string& book) {
  const auto tokenizer = Tokenizer::load(json), twin = Tokenizer::load(json);
  const auto lines = split_text(slurp(book), "\n");
  std::vector<Ids> expected;
  for (const std::string& line : lines) expected.push_back(tokenizer->encode(line));
  std::array<size_t, 4> wrong{};
  std::vector<std::jthread> threads;
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < lines.size(); ++i)
        wrong[t] += (i % 2 ? *tokenizer : *twin).encode(lines[i]) != expected[i] ||
                    tokenizer->decode(expected[i], false) != lines[i];
    });
  }
  threads.clear();
  for (const size_t n : wrong) EXPECT_EQ(n, 0u);
}

TEST(Threads, ShareATokenizer) {
  const auto files = byte_level_files(), books = golden_files("tokenizer/corpus.txt", "tokenizer/sp_botchan.txt");
  for (size_t i = 0; i < files.size(); ++i) expect_threads_share(files[i], books.at(i));
}

}  // namespace
}  // namespace dapo
