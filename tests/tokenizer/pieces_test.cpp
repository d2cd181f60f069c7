// SentencePiece's BPE from tokenizer.json alone, against Hugging Face tokenizers (tests/goldens/pieces, made by
// make.py there).
#include "tests/tokenizer/support.h"

namespace dapo {
namespace {

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

const std::string kGoldens = "tests/goldens/pieces/";

class Pieces : public testing::Test {
 protected:
  Pieces() : model_(Json::parse(slurp(kGoldens + "pieces.json"))), kinds_(model_["kinds"]) { model_.erase("kinds"); }
  std::unique_ptr<const Tokenizer> load(const Json& parts) const {
    Json json = model_;
    json.update(parts);
    folder_.write("tokenizer.json", json.dump());
    return Tokenizer::load(folder_.path());
  }
  std::string refusal(const Json& parts) const {
    return error_of(kExitUsage, [&] { load(parts); });
  }
  const ScratchFolder folder_;
  Json model_, kinds_;
};

TEST_F(Pieces, EqualHuggingFace) {
  const auto rows = json_lines(kGoldens + "pieces.jsonl");
  ASSERT_GE(rows.size(), 400u) << "run from the project's root";
  std::unique_ptr<const Tokenizer> t;
  std::string kind;
  for (const Json& row : rows) {
    if (row["kind"].get<std::string>() != kind) t = load(kinds_[kind = row["kind"].get<std::string>()]);
    const std::string text = row["text"];
    const Ids plain = row["plain"];
    EXPECT_EQ(t->encode(text, true), row["ids"].get<Ids>()) << kind << ": " << text;
    EXPECT_EQ(t->encode(text), plain) << kind << ": " << text;
    EXPECT_EQ(t->decode(plain), row["decoded"].get<std::string>()) << kind << ": " << text;
  }
}

TEST_F(Pieces, AnyBytesRoundTrip) {
  const auto t = load(kinds_["mistral"]);
  const std::string bytes = "a\xff\xc3 \xe4\xb8 z";
  EXPECT_EQ(t->decode_bytes(t->encode(bytes)), bytes);
  EXPECT_EQ(t->id_of("<s>"), 1);
  EXPECT_EQ(t->token(1), "<s>");
  EXPECT_TRUE(t->is_special(1));
  EXPECT_FALSE(t->is_special(t->id_of("[TOOL]")));
  EXPECT_EQ(t->vocab_size(), t->id_of("a b") + 1);
}

TEST_F(Pieces, ConfigurationsAddTokens) {
  folder_.write("tokenizer_config.json", R"({"eos_token": "<|end|>"})");
  const auto t = load(kinds_["llama"]);
  const Ids ids = t->encode("cat<|end|>");
  EXPECT_EQ(ids.back(), t->vocab_size() - 1);
  EXPECT_EQ(t->decode(ids), "cat");
}

TEST_F(Pieces, ErrorsNameAMissingModelFile) {
  Json parts = kinds_["llama"];
  parts["normalizer"] = {{"type", "NFKC"}};
  EXPECT_SAYS(refusal(parts), "a normalizer 'NFKC' needs the model's tokenizer.model");
  parts = kinds_["mistral"];
  parts["pre_tokenizer"] = nullptr;
  EXPECT_SAYS(refusal(parts), "leaves spaces as they are");
  parts = kinds_["mistral"];
  parts["model"] = {{"type", "Unigram"}, {"unk_id", 0}, {"vocab", Json::array({Json::array({"<unk>", 0.0})})}};
  EXPECT_SAYS(refusal(parts), "a model of the type 'Unigram' needs");
  parts["model"] = model_["model"];
  parts["model"]["vocab"].erase("<0x41>");
  EXPECT_SAYS(refusal(parts), "lacks the byte <0x41>");
  parts["model"] = model_["model"];
  parts["model"]["merges"].push_back({"the", "zzz"});
  EXPECT_SAYS(refusal(parts), "'zzz', which the vocabulary lacks");
  parts["model"] = model_["model"];
  parts["post_processor"]["special_tokens"]["<s>"]["ids"] = {100000};
  EXPECT_SAYS(refusal(parts), "id 100000 is not a token");
}

}  // namespace
}  // namespace dapo
