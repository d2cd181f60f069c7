// Tokenizers of folders: added tokens of companion files, vocab.json with merges.txt, SentencePiece.
#include "tests/tokenizer/support.h"

namespace dapo {
namespace {

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

Json flags(const std::string& content, const Json& more = Json::object()) {
  Json token = {{"content", content}, {"lstrip", false},      {"normalized", false},
                {"rstrip", false},    {"single_word", false}, {"special", true}};
  token.update(more);
  return token;
}

/// The byte tokenizer (256 <|endoftext|>, 257 <|pad|>) with other files in its folder.
class ByteFolder : public testing::Test {
 protected:
  ByteFolder() { write_byte_tokenizer(folder_.path()); }
  void config(const Json& json) { folder_.write("tokenizer_config.json", json.dump()); }
  std::unique_ptr<const Tokenizer> load() const { return Tokenizer::load(folder_.path()); }
  Ids encode(const std::string& text) const { return load()->encode(text); }
  std::string refusal() const {
    return error_of(kExitUsage, [&] { load(); });
  }
  const ScratchFolder folder_;
};

// The ids are what transformers 5.24 gives for the same folders (AutoTokenizer, PreTrainedTokenizerFast).
const std::string kText = "a<|endoftext|>b <x> c <y>d";

TEST_F(ByteFolder, AddedTokensDecoder) {
  config({{"added_tokens_decoder",
           {{"256", flags("<|endoftext|>", {{"special", false}})},
            {"258", flags("<x>")},
            {"259", flags("<y>", {{"special", false}, {"lstrip", true}})}}}});
  EXPECT_EQ(encode(kText), (Ids{97, 256, 98, 32, 258, 32, 99, 259, 100}));
  const auto t = load();
  EXPECT_EQ(t->decode(t->encode(kText)), "ab  c<y>d") << "what was special stays so";
  EXPECT_EQ(t->vocab_size(), 260);
  config({{"added_tokens_decoder",
           {{"256", flags("<|endoftext|>", {{"rstrip", true}})},
            {"258", flags("<x>", {{"single_word", true}})},
            {"259", flags("<y>", {{"lstrip", true}, {"rstrip", true}})}}}});
  EXPECT_EQ(encode("a<|endoftext|>  b"), (Ids{97, 256, 98}));
  EXPECT_EQ(encode("a<x>b <x> c"), (Ids{97, 60, 120, 62, 98, 32, 258, 32, 99}));
  EXPECT_EQ(encode("q <y> z"), (Ids{113, 259, 122}));
}

TEST_F(ByteFolder, SpecialTokensByName) {
  config({{"eos_token", "<x>"}, {"pad_token", "<|pad|>"}, {"additional_special_tokens", {"<y>"}}});
  EXPECT_EQ(encode(kText), (Ids{97, 256, 98, 32, 258, 32, 99, 32, 259, 100}));
  config({{"eos_token", "b"}});
  EXPECT_TRUE(load()->is_special('b')) << "a token of the vocabulary";
  config({{"eos_token", flags("<x>", {{"lstrip", true}})}});
  EXPECT_EQ(encode(kText), (Ids{97, 256, 98, 258, 32, 99, 32, 60, 121, 62, 100}));
  config({{"image_token", "<y>"}});
  EXPECT_EQ(encode("<y>"), Ids{258});
  config({{"extra_special_tokens", {{"image", "<x>"}}}});
  EXPECT_EQ(encode("<x>"), Ids{258});
  config({{"pad_token", "[PAD]"}});
  EXPECT_EQ(load()->vocab_size(), 258) << "padding that no text holds takes no id";
}

TEST_F(ByteFolder, FilesOfOlderVersions) {
  config({{"eos_token", "<y>"}});
  folder_.write("added_tokens.json", "\xEF\xBB\xBF{\"<x>\": 258, \"<y>\": 259}");
  EXPECT_EQ(encode(kText), (Ids{97, 256, 98, 32, 258, 32, 99, 32, 259, 100}));
  EXPECT_EQ(load()->decode(Ids{97, 258, 259}), "a<x>") << "special is what the configuration names";
  folder_.write("special_tokens_map.json", Json{{"eos_token", flags("<z>", {{"lstrip", true}})}}.dump());
  EXPECT_EQ(encode("a <z>"), (Ids{97, 260}));
  config({{"added_tokens_decoder", {{"256", flags("<|endoftext|>")}}}});
  EXPECT_EQ(load()->vocab_size(), 258) << "these files count only without added_tokens_decoder";
}

TEST_F(ByteFolder, WrongFilesAreNamed) {
  const auto refused = [&](const Json& json, const char* key) {
    config(json);
    const std::string error = refusal();
    EXPECT_SAYS(error, "tokenizer_config.json");
    EXPECT_SAYS(error, key);
  };
  refused({{"added_tokens_decoder", 5}}, "added_tokens_decoder");
  refused({{"added_tokens_decoder", {{"x", flags("<x>")}}}}, "\"x\"");
  refused({{"added_tokens_decoder", {{"258", "<x>"}, {"259", 1}}}}, "added_tokens_decoder");
  refused({{"added_tokens_decoder", {{"258", flags("<x>", {{"lstrip", "no"}})}}}}, "lstrip");
  refused({{"additional_special_tokens", 3}}, "additional_special_tokens");
  refused({{"add_bos_token", "yes"}}, "add_bos_token");
  config({{"added_tokens_decoder", {{"97", flags("<x>")}}}});
  EXPECT_SAYS(refusal(), "97");
  config({{"added_tokens_decoder", {{"258", flags("")}}}});
  EXPECT_SAYS(refusal(), "258");
  config(Json::object());
  folder_.write("added_tokens.json", R"({"<x>": "258"})");
  EXPECT_SAYS(refusal(), "added_tokens.json");
}

TEST(VocabAndMerges, AreReadAsByQwen2Tokenizer) {
  const ScratchFolder folder;
  write_byte_tokenizer(folder.path());
  const Json vocab = Json::parse(slurp(folder.path("tokenizer.json")))["model"]["vocab"];
  std::filesystem::remove(folder.path("tokenizer.json"));
  Json bigger = vocab;
  bigger["ab"] = 256;
  bigger["Ġab"] = 257;
  folder.write("vocab.json", bigger.dump());
  folder.write("merges.txt", "#version: 0.2\na b\r\nĠ ab\n");
  folder.write("tokenizer_config.json",
               Json{{"tokenizer_class", "Qwen2Tokenizer"},
                    {"added_tokens_decoder", {{"258", flags("<|endoftext|>")}, {"259", flags("<|im_end|>")}}}}
                   .dump());
  const auto t = Tokenizer::load(folder.path());
  EXPECT_EQ(t->encode("ab ab<|im_end|>12<|endoftext|>"), (Ids{256, 257, 259, '1', '2', 258}));
  EXPECT_EQ(t->encode("e\u0301"), (Ids{0xC3, 0xA9})) << "NFC";
  folder.write("merges.txt", "#version: 0.2\na b c\n");
  EXPECT_SAYS(error_of(kExitUsage, [&] { Tokenizer::load(folder.path()); }), "merges.txt:2:");
  folder.write("merges.txt", "a z\n");
  EXPECT_SAYS(error_of(kExitUsage, [&] { Tokenizer::load(folder.path()); }), "'az'");
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "RobertaTokenizer"})");
  EXPECT_SAYS(error_of(kExitUsage, [&] { Tokenizer::load(folder.path()); }), "RobertaTokenizer");
  std::filesystem::remove(folder.path("merges.txt"));
  EXPECT_SAYS(error_of(kExitUsage, [&] { Tokenizer::load(folder.path()); }), "merges.txt");
}

void expect_same_tokenizer(const std::string& vocab, const std::string& merges, const std::string& config,
                           const std::string& json) {
  const ScratchFolder folder;
  std::filesystem::copy_file(vocab, folder.path("vocab.json"));
  std::filesystem::copy_file(merges, folder.path("merges.txt"));
  std::filesystem::copy_file(config, folder.path("tokenizer_config.json"));
  const auto ours = Tokenizer::load(folder.path()), whole = Tokenizer::load(json);
  EXPECT_EQ(ours->vocab_size(), whole->vocab_size());
  std::mt19937_64 random(5);
  for (int i = 0; i < 300; ++i) {
    const std::string text = random_text(random, 200);
    ASSERT_EQ(ours->encode(text), whole->encode(text)) << text;
  }
}

TEST(VocabAndMerges, EqualTokenizerJson) {
  const std::string own = "tokenizer/bpe/", qwen = test_data(kQwenJson);
  expect_same_tokenizer(golden(own + "vocab.json"), golden(own + "merges.txt"), golden(own + "tokenizer_config.json"),
                        golden(kOwnJson));
  if (!qwen.empty())
    expect_same_tokenizer(test_data("tokenizer/qwen2.5_vocab.json"), test_data("tokenizer/qwen2.5_merges.txt"),
                          test_data("tokenizer/qwen2.5-7B-Instruct_tokenizer_config.json"), qwen);
}

/// A SentencePiece model and the ids that transformers 5.24 gives (LlamaTokenizer, which, unlike SentencePiece itself,
/// joins two spaces before anything else: not so here).
struct Pieces {
  std::string name, model;
  Json ids;
};
std::vector<Pieces> piece_models() {
  std::vector<Pieces> models = {{"Own", "tokenizer/sp/bpe.model", {}}};
  if (!test_data("tokenizer/llama2_tokenizer.model").empty())
    models.push_back({"Llama2",
                      "tokenizer/llama2_tokenizer.model",
                      {{"pieces", 32000},
                       {"turns", {32001, 1792, 13, 18567, 727, 32000, 13, 32001, 465, 22137, 13}},
                       {"turns, legacy", {32001, 1404, 13, 18567, 727, 32000, 29871, 13, 32001, 20255, 13}},
                       {"spaces", {6324, 29871, 32000, 727}},
                       {"marks", {1, 29916, 2, 343, 0}},
                       {"marks, legacy", {1, 921, 2, 343, 0}},
                       {"one more space", {29871, 6324}},
                       {"word", {6324}},
                       {"space and word", {6324}}}});
  return models;
}

/// A folder with a model's pieces, two added tokens, and the changes of a case.
class PieceFolder : public testing::TestWithParam<Pieces> {
 protected:
  void SetUp() override {
    const bool own = GetParam().name == "Own";
    const std::string model = own ? golden(GetParam().model) : test_data(GetParam().model);
    ids_ = own ? Json::parse(slurp(golden("tokenizer/sp/folders.json"))) : GetParam().ids;
    end_ = ids_["pieces"], start_ = end_ + 1;
    std::filesystem::create_symlink(std::filesystem::absolute(model), folder_.path("tokenizer.model"));
    config_ = {{"tokenizer_class", "LlamaTokenizer"},
               {"eos_token", "<|im_end|>"},
               {"legacy", false},
               {"added_tokens_decoder",
                {{"0", flags("<unk>")},
                 {"1", flags("<s>")},
                 {"2", flags("</s>")},
                 {std::to_string(end_), flags("<|im_end|>")},
                 {std::to_string(start_), flags("<|im_start|>")}}}};
  }
  Ids ids(const std::string& name) const { return ids_.at(name); }
  std::unique_ptr<const Tokenizer> load() const {
    folder_.write("tokenizer_config.json", config_.dump());
    return Tokenizer::load(folder_.path());
  }
  const ScratchFolder folder_;
  Json config_, ids_;
  int32_t end_ = 0, start_ = 0;
};
INSTANTIATE_TEST_SUITE_P(Models, PieceFolder, testing::ValuesIn(piece_models()),
                         [](const auto& model) { return model.param.name; });

constexpr const char* kTurns = "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n";

TEST_P(PieceFolder, AddedTokens) {
  const auto t = load();
  const Ids turns = ids("turns");
  EXPECT_EQ(t->encode(kTurns), turns);
  EXPECT_EQ(t->decode(turns, false), kTurns);
  EXPECT_EQ(t->encode("Hi <|im_end|> there"), ids("spaces"));
  EXPECT_EQ(t->encode("<s>x</s> y<unk>"), ids("marks"));
  Ids with_bos = ids("word");
  with_bos.insert(with_bos.begin(), 1);
  EXPECT_EQ(t->encode("Hi", true), with_bos);
  EXPECT_EQ(t->encode(" Hi"), ids("space and word"));
  EXPECT_EQ(t->encode("a\u2581b"), t->encode("a b"));
  EXPECT_EQ(t->encode(""), Ids{});
  EXPECT_EQ(t->vocab_size(), start_ + 1);
  EXPECT_EQ(t->id_of("<|im_end|>"), end_);
  EXPECT_EQ(t->token(start_), "<|im_start|>");
  EXPECT_TRUE(t->is_special(end_));
  const int32_t user = t->id_of("\u2581user"), newline = t->id_of("<0x0A>");
  EXPECT_EQ(t->decode(Ids{start_, user, newline, end_}), "user\n");
}

TEST_P(PieceFolder, LegacySpaces) {
  config_["legacy"] = true;
  EXPECT_EQ(load()->encode(kTurns), ids("turns, legacy"));
  EXPECT_EQ(load()->encode("<s>x</s> y<unk>"), ids("marks, legacy"));
}

TEST_P(PieceFolder, AddedTokensJson) {
  config_.erase("added_tokens_decoder");
  folder_.write("added_tokens.json", Json{{"<|im_end|>", end_}, {"<|im_start|>", start_}}.dump());
  EXPECT_EQ(load()->encode(kTurns), ids("turns"));
  EXPECT_TRUE(load()->is_special(end_)) << "the configuration's eos_token";
  EXPECT_FALSE(load()->is_special(start_));
}

TEST_P(PieceFolder, TokenizerJsonTakesPrecedence) {
  config_.erase("added_tokens_decoder");
  Json added = Json::array();
  for (const auto& [content, id] : {std::pair{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}, {"<|new|>", end_}}) {
    added.push_back(flags(content));
    added.back()["id"] = id;
  }
  Json json = {{"version", "1.0"},
               {"added_tokens", added},
               {"normalizer", nullptr},
               {"pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "first"}}},
               {"post_processor",
                {{"type", "TemplateProcessing"},
                 {"single", {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}}}}}}}},
               {"model", {{"type", "BPE"}, {"byte_fallback", true}, {"vocab", Json::object()}}}};
  config_["eos_token"] = "</s>";
  folder_.write("tokenizer.json", json.dump());
  const Ids word = ids("word"), turns = ids("turns"), legacy = ids("turns, legacy");
  const auto newline = std::find(turns.begin(), turns.end(), load()->id_of("<0x0A>"));
  Ids expected = {1};
  expected.insert(expected.end(), word.begin(), word.end());
  expected.push_back(end_);
  expected.insert(expected.end(), turns.begin() + 1, newline);  // "user" without a space before it
  EXPECT_EQ(load()->encode("Hi<|new|>user", true), expected);
  json["pre_tokenizer"] = nullptr;
  json["normalizer"] = {{"type", "Sequence"},
                        {"normalizers", {{{"type", "Prepend"}, {"prepend", "\u2581"}}, {{"type", "Replace"}}}}};
  folder_.write("tokenizer.json", json.dump());
  expected = word;
  expected.insert(expected.end(), {end_, legacy[1]});
  EXPECT_EQ(load()->encode("Hi<|new|>user"), expected);
  EXPECT_EQ(load()->encode(" Hi"), ids("one more space")) << "Prepend asks not whether there is a space";
}

}  // namespace
}  // namespace dapo
