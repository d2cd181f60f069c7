// tokenizer.json: supported features, and errors.
#include "tests/growth.h"
#include "tests/tokenizer/support.h"
#include "tokenizer/byte_level.h"

namespace dapo {
namespace {

/// The demo's tokenizer as JSON, to be changed.
Json byte_json() {
  const ScratchFolder folder;
  write_byte_tokenizer(folder.path());
  return Json::parse(slurp(folder.path() + "/tokenizer.json"));
}

std::unique_ptr<const Tokenizer> load_text(const std::string& text) {
  const ScratchFolder folder;
  return Tokenizer::load(folder.write("tokenizer.json", text));
}

/// The error that a changed tokenizer.json must give.
template <class F>
std::string refused(F change) {
  Json json = byte_json();
  change(json);
  return error_of(kExitUsage, [&] { load_text(json.dump()); });
}

Json added(const std::string& content, int64_t id) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", false}};
}

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(ByteTokenizer, EqualsTheReferenceFolder) {
  const ScratchFolder folder;
  write_byte_tokenizer(folder.path() + "/deeper/still");
  const auto read = [](const std::string& path) {
    Json json = Json::parse(slurp(path));
    if (json.contains("model")) json["model"].erase("ignore_merges");  // false; only written by later versions
    return json;
  };
  for (const std::string file : {"tokenizer.json", "tokenizer_config.json"})
    for (const std::string& given : golden_files("tokenizer/byte/" + file, "chain/cold_start/" + file))
      EXPECT_EQ(read(folder.path() + "/deeper/still/" + file), read(given)) << given;
}

TEST(ByteTokenizer, BytesAreIds) {
  const auto t = load_text(byte_json().dump());
  EXPECT_EQ(t->vocab_size(), 258);
  std::string all;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  const Ids ids = t->encode(all);
  ASSERT_EQ(ids.size(), 256u);
  for (int32_t b = 0; b < 256; ++b) EXPECT_EQ(ids[static_cast<size_t>(b)], b);
  EXPECT_EQ(t->decode_bytes(ids), all);
  EXPECT_EQ(t->encode("1+1<|endoftext|><|pad|>"), (Ids{'1', '+', '1', 256, 257}));
  EXPECT_EQ(t->decode(Ids{'a', 256, -5, 300, INT32_MAX, 'b'}), "ab");
  EXPECT_EQ(t->decode(Ids{'a', 256}, false), "a<|endoftext|>");
  EXPECT_EQ(t->id_of("<|pad|>"), 257);
  EXPECT_EQ(t->id_of("Ġ"), 32);
  EXPECT_EQ(t->id_of("nothing"), -1);
  EXPECT_EQ(t->token(32), "Ġ");
  EXPECT_EQ(t->token(258), "");
  EXPECT_TRUE(t->is_special(256));
  EXPECT_FALSE(t->is_special(255));
  EXPECT_FALSE(t->is_special(-1));
  EXPECT_EQ(t->encode(""), Ids{});
}

TEST(Json, MergesInBothLayouts) {
  Json json = byte_json();
  json["model"]["vocab"]["ab"] = 300;
  json["model"]["vocab"]["abc"] = 301;
  json["model"]["vocab"]["Ġab"] = 302;
  json["model"]["merges"] = {"a b", "ab c", "Ġ ab"};
  const Ids expected = {301, 302, 'b', 300};
  EXPECT_EQ(load_text(json.dump())->encode("abc abbab"), expected);
  json["model"]["merges"] = Json::parse(R"([["a","b"],["ab","c"],["Ġ","ab"]])");
  EXPECT_EQ(load_text(json.dump())->encode("abc abbab"), expected);
  // Order of keys is free.
  Json model = {{"merges", json["model"]["merges"]}, {"vocab", json["model"]["vocab"]}};
  json["model"] = model;
  EXPECT_EQ(load_text(json.dump())->encode("abc abbab"), expected);
}

TEST(Json, IgnoreMerges) {
  Json json = byte_json();
  json["model"]["vocab"]["Ġab"] = 300;
  EXPECT_EQ(load_text(json.dump())->encode(" ab"), (Ids{32, 'a', 'b'}));
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(load_text(json.dump())->encode(" ab"), Ids{300});
}

/// Results of Hugging Face tokenizers 0.23 for the same files.
TEST(Json, AddedTokenFlags) {
  Json json = byte_json();
  Json strip = added("<s>", 258), word = added("cat", 259), both = added("<m>", 260);
  strip["lstrip"] = true;
  word["single_word"] = true;
  both["lstrip"] = both["rstrip"] = true;
  for (const Json& token : {strip, word, both, added("<s>x", 261)}) json["added_tokens"].push_back(token);
  const auto t = load_text(json.dump());
  EXPECT_EQ(t->encode("a \n<s> b"), (Ids{'a', 258, 32, 'b'}));
  EXPECT_EQ(t->encode("<s>x<s>y"), (Ids{261, 258, 'y'})) << "the longest wins";
  EXPECT_EQ(t->encode("cat concat cats"), (Ids{259, 32, 'c', 'o', 'n', 'c', 'a', 't', 32, 'c', 'a', 't', 's'}));
  EXPECT_EQ(t->encode("(cat)"), (Ids{'(', 259, ')'}));
  EXPECT_EQ(t->encode(" <m>\u3000 <m> a"), (Ids{260, 260, 'a'}));
  EXPECT_EQ(t->decode(t->encode("<s>")), "<s>") << "not special";
}

TEST(Json, NormalizedAddedTokens) {
  Json json = byte_json();
  json["normalizer"] = {{"type", "NFC"}};
  Json raw = added("e\u0301!", 258), normal = added("e\u0301?", 259);
  normal["normalized"] = true;
  json["added_tokens"].push_back(raw);
  json["added_tokens"].push_back(normal);
  const auto t = load_text(json.dump());
  EXPECT_EQ(t->encode("e\u0301!"), Ids{258});
  EXPECT_EQ(t->encode("\u00E9!"), (Ids{0xC3, 0xA9, '!'})) << "looked for before normalizing";
  EXPECT_EQ(t->encode("e\u0301?\u00E9?"), (Ids{259, 259})) << "looked for after";
}

TEST(Json, TemplateProcessing) {
  Json json = byte_json();
  json["post_processor"] = Json::parse(R"({"type":"TemplateProcessing",
    "single":[{"SpecialToken":{"id":"<|endoftext|>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],
    "special_tokens":{"<|endoftext|>":{"id":"<|endoftext|>","ids":[256],"tokens":["<|endoftext|>"]}}})");
  const auto t = load_text(json.dump());
  EXPECT_EQ(t->encode("a"), Ids{'a'});
  EXPECT_EQ(t->encode("a", true), (Ids{256, 'a'}));
}

TEST(Json, OtherPatternsUsePcre2) {
  Json json = byte_json();
  json["model"]["vocab"]["12"] = 300;
  json["model"]["vocab"]["23"] = 301;
  json["model"]["merges"] = {"2 3", "1 2"};
  json["pre_tokenizer"] = Json::parse(R"({"type":"Sequence","pretokenizers":[
    {"type":"Split","pattern":{"Regex":"\\p{N}{1,2}|\\s+"},"behavior":"Isolated","invert":false},
    {"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})");
  EXPECT_EQ(load_text(json.dump())->encode("123 23"), (Ids{300, '3', 32, 301}));
}

TEST(Json, UnknownComponentsAreNamed) {
  EXPECT_SAYS(refused([](Json& j) { j["normalizer"] = {{"type", "Lowercase"}}; }), "Lowercase");
  EXPECT_SAYS(refused([](Json& j) { j["pre_tokenizer"] = {{"type", "Metaspace"}}; }), "Metaspace");
  EXPECT_SAYS(refused([](Json& j) { j["pre_tokenizer"] = nullptr; }), "ByteLevel");
  EXPECT_SAYS(refused([](Json& j) { j["pre_tokenizer"]["add_prefix_space"] = true; }), "add_prefix_space");
  EXPECT_SAYS(refused([](Json& j) { j["post_processor"] = {{"type", "BertProcessing"}}; }), "BertProcessing");
  EXPECT_SAYS(refused([](Json& j) { j["decoder"] = {{"type", "WordPiece"}}; }), "WordPiece");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["type"] = "Unigram"; }), "Unigram");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["dropout"] = 0.1; }), "dropout");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["byte_fallback"] = true; }), "'ByteLevel' needs");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["novelty"] = 1; }), "novelty");
  EXPECT_SAYS(refused([](Json& j) { j["novelty"] = 1; }), "novelty");
  EXPECT_SAYS(refused([](Json& j) { j["added_tokens"][0]["novelty"] = 1; }), "novelty");
  Json split = Json::parse(R"({"type":"Split","pattern":{"Regex":"a"},"behavior":"Removed","invert":false})");
  EXPECT_SAYS(refused([&](Json& j) { j["pre_tokenizer"] = split; }), "Removed");
  split["behavior"] = "Isolated";
  split["pattern"] = {{"Regex", "(["}};
  EXPECT_SAYS(refused([&](Json& j) { j["pre_tokenizer"] = split; }), "([");
}

TEST(Json, HostileFilesAreRefused) {
  EXPECT_SAYS(refused([](Json& j) { j["model"].erase("merges"); }), "merges");
  EXPECT_SAYS(refused([](Json& j) { j["model"].erase("vocab"); }), "vocab");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["vocab"] = Json::object(); }), "vocab");
  EXPECT_SAYS(refused([](Json& j) { j.erase("model"); }), "model");
  EXPECT_SAYS(refused([](Json& j) { j.erase("decoder"); }), "decoder");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["merges"] = {"a b"}; }), "'ab'");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["merges"] = {"ab"}; }), "merge 0");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["merges"] = {" b"}; }), "merge 0");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["merges"] = {"a b c"}; }), "merge 0");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["merges"] = Json::parse(R"([["a"]])"); }), "merge 0");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["merges"] = Json::parse(R"([["a","b","c"]])"); }), "merge 0");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["merges"] = Json::parse("[7]"); }), "tokenizer.json");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["vocab"]["x\u4E2D"] = 5; }), "same id 5");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["vocab"]["zz"] = -1; }), "-1");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["vocab"]["zz"] = 4000000000u; }), "4000000000");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["vocab"]["zz"] = 1e300; }), "tokenizer.json");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["vocab"]["zz"] = "5"; }), "tokenizer.json");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["vocab"][""] = 300; }), "empty");
  EXPECT_SAYS(refused([](Json& j) { j["added_tokens"].push_back(added("<x>", 256)); }), "256");
  EXPECT_SAYS(refused([](Json& j) { j["added_tokens"].push_back(added("<x>", 65)); }), "65");
  EXPECT_SAYS(refused([](Json& j) { j["added_tokens"].push_back(added("A", 258)); }), "twice");
  EXPECT_SAYS(refused([](Json& j) { j["added_tokens"].push_back(added("<x>", int64_t{1} << 40)); }), "<x>");
  EXPECT_SAYS(refused([](Json& j) { j["added_tokens"].push_back(added("", 258)); }), "empty");
  EXPECT_SAYS(refused([](Json& j) { j["added_tokens"] = 3; }), "tokenizer.json");
  EXPECT_SAYS(refused([](Json& j) { j["model"]["vocab"] = {{"\u4E2D", 0}}; }), "no byte tokens");
}

TEST(Json, BrokenTextIsRefused) {
  const std::string good = byte_json().dump();
  for (const std::string& text : {std::string(), std::string("{"), std::string("[]"), std::string("nil"),
                                  std::string("\xFF\xFE{}"), good + "x", good + good, good.substr(0, good.size() - 1),
                                  std::string(1 << 20, '['), R"({"model":)" + std::string(1 << 20, '[')}) {
    EXPECT_SAYS(error_of(kExitUsage, [&] { load_text(text); }), "tokenizer.json") << text.substr(0, 40);
  }
  for (size_t n = 1; n < good.size(); n += 97)
    EXPECT_NE(error_of(kExitUsage, [&] { load_text(good.substr(0, n)); }), "") << n;
  const std::string twice = good.substr(0, good.size() - 1) + R"(,"model":{}})";
  EXPECT_SAYS(error_of(kExitUsage, [&] { load_text(twice); }), "duplicated");
  std::string deep = good;
  deep.replace(deep.find(R"("normalizer":null)"), 17,
               R"("normalizer":)" + std::string(30000, '[') + std::string(30000, ']'));
  EXPECT_SAYS(error_of(kExitUsage, [&] { load_text(deep); }), "normalizer");
  const ScratchFolder folder;
  EXPECT_SAYS(error_of(kExitUsage, [&] { Tokenizer::load(folder.path()); }), "tokenizer.model");
  EXPECT_SAYS(error_of(kExitUsage, [&] { Tokenizer::load(folder.path() + "/absent"); }), "absent");
  EXPECT_SAYS(error_of(kExitUsage, [&] { load_text(good.substr(0, 20) + std::string(33 << 20, ' ')); }), "bytes");
}

/// Bytes flipped anywhere: an error or a tokenizer, never a crash.
TEST(Json, FlippedBytes) {
  const std::string good = byte_json().dump();
  std::mt19937_64 random(5);
  for (int i = 0; i < 3000; ++i) {
    std::string text = good;
    for (uint64_t n = 1 + random() % 3; n > 0; --n) text[random() % text.size()] = static_cast<char>(random());
    try {
      load_text(text)->encode("any <|pad|> text");
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), kExitUsage) << error.what();
    }
  }
}

/// The byte tokenizer with a merge of every two bytes of which the first is one of `firsts`.
std::string large_json(size_t firsts) {
  Json json = byte_json();
  std::vector<std::string> bytes;
  for (const auto& [byte, id] : json["model"]["vocab"].items()) bytes.push_back(byte);
  std::string vocab, merges;
  for (size_t i = 0; i < bytes.size(); ++i) vocab += fmt::format("{}{}:{}", i ? "," : "", Json(bytes[i]).dump(), i);
  int64_t id = 258;  // after the added tokens
  for (size_t i = 0; i < firsts; ++i)
    for (const std::string& b : bytes) {
      const std::string& a = bytes[i];
      vocab += fmt::format(",{}:{}", Json(a + b).dump(), id++);
      merges += (merges.empty() ? "" : ",") + Json(a + " " + b).dump();
    }
  json["model"]["vocab"] = "VOCAB", json["model"]["merges"] = "MERGES";
  std::string text = json.dump();
  for (const auto& [mark, content] : {std::pair{"\"VOCAB\"", "{" + vocab + "}"}, {"\"MERGES\"", "[" + merges + "]"}})
    text.replace(text.find(mark), std::string(mark).size(), content);
  return text;
}

TEST(Json, TimeToLoadGrowsWithTheVocabulary) {
  const ScratchFolder folder;
  const std::string whole = folder.write("whole.json", large_json(256)),
                    part = folder.write("part.json", large_json(256 / kGrowthParts));
  EXPECT_EQ(Tokenizer::load(whole)->vocab_size(), 258 + 256 * 256);
  EXPECT_EQ(Tokenizer::load(part)->vocab_size(), 258 + 256 / kGrowthParts * 256);
  const Growth g = growth([&] { Tokenizer::load(whole); }, [&] { Tokenizer::load(part); });
  RecordProperty("seconds", std::to_string(g.seconds));
  RecordProperty("ratio", std::to_string(g.ratio));
  EXPECT_LT(g.ratio, kGrowthBound);
}

}  // namespace
}  // namespace dapo
