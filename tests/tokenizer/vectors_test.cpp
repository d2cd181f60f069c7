// Ids against those of Hugging Face tokenizers, llama.cpp and SentencePiece.
#include <sentencepiece_processor.h>

#include "tests/tokenizer/support.h"

namespace dapo {
namespace {

const Tokenizer& qwen(const std::string& path) {
  static const auto tokenizer = Tokenizer::load(path);
  return *tokenizer;
}

Ids parse_ids(const std::string& line) {
  Ids ids;
  std::istringstream in(line);
  for (int32_t id; in >> id;) ids.push_back(id);
  return ids;
}

/// The cases of a pair of llama.cpp files.
std::vector<std::pair<std::string, Ids>> ggml_cases(const std::string& inputs, const std::string& outputs) {
  std::vector<std::string> texts = split_text(slurp(inputs), "\n__ggml_vocab_test__\n");
  const std::vector<std::string> lines = split_text(slurp(outputs), "\n");
  std::vector<std::pair<std::string, Ids>> cases;
  for (size_t i = 0; i < texts.size() && i < lines.size(); ++i) cases.emplace_back(texts[i], parse_ids(lines[i]));
  return cases;
}

TEST(TokenizerVectors, GgmlQwen2) {
  REQUIRE_DATA(json, kQwenJson);
  REQUIRE_DATA(inputs, "tokenizer_vectors/ggml-vocab-qwen2.gguf.inp");
  REQUIRE_DATA(outputs, "tokenizer_vectors/ggml-vocab-qwen2.gguf.out");
  auto cases = ggml_cases(inputs, outputs);
  ASSERT_GE(cases.size(), 46u);
  for (const auto& [text, ids] : cases) EXPECT_EQ(qwen(json).encode(text), ids) << text;
}

TEST(TokenizerVectors, HuggingFace) {
  REQUIRE_DATA(json, kQwenJson);
  REQUIRE_DATA(vectors, "tokenizer_vectors/qwen2.5_hf_vectors.jsonl");
  const auto rows = json_lines(vectors);
  EXPECT_EQ(rows.size(), 612u);
  int decoded = 0;
  for (const Json& row : rows) {
    const std::string text = row["text"];
    const Ids ids = row["ids"];
    EXPECT_EQ(qwen(json).encode(text), ids) << row["src"] << ' ' << text;
    decoded += row.contains("decoded");
    EXPECT_EQ(qwen(json).decode(ids, false), row.contains("decoded") ? row["decoded"].get<std::string>() : text);
  }
  EXPECT_EQ(decoded, 7);
}

/// The other merge layout, the same vocabulary and more added tokens.
TEST(TokenizerVectors, Qwen3Layout) {
  REQUIRE_DATA(json, kQwenJson);
  REQUIRE_DATA(qwen3, "tokenizer/qwen3_tokenizer.json");
  REQUIRE_DATA(vectors, "tokenizer_vectors/qwen2.5_hf_vectors.jsonl");
  const auto tokenizer = Tokenizer::load(qwen3);
  EXPECT_EQ(tokenizer->vocab_size(), 151669);
  EXPECT_EQ(qwen(json).vocab_size(), 151665);
  EXPECT_EQ(tokenizer->encode("<think>"), Ids{151667});
  EXPECT_EQ(tokenizer->id_of("</think>"), 151668);
  EXPECT_GT(qwen(json).encode("<think>").size(), 1u);
  for (const Json& row : json_lines(vectors)) {
    const std::string text = row["text"];
    if (text.find("think>") != text.npos || text.find("tool_response>") != text.npos) continue;  // tokens here
    EXPECT_EQ(tokenizer->encode(text), row["ids"].get<Ids>()) << text;
  }
}

struct Corpus {
  const char *name, *file, *field;
};

/// Whole corpora by digest (AIME 2024 is there as Parquet only, which these tests cannot read).
TEST(TokenizerVectors, BulkDigests) {
  REQUIRE_DATA(json, kQwenJson);
  REQUIRE_DATA(digests, "tokenizer_vectors/qwen2.5_bulk_digests.json");
  const std::vector<Corpus> corpora = {
      {"train/dapo_math_17k.parquet (= .jsonl.gz) prompt[0].content", "train/dapo_math_17k.jsonl.gz", "prompt"},
      {"train/gsm8k_train.jsonl question", "train/gsm8k_train.jsonl", "question"},
      {"train/gsm8k_train.jsonl answer", "train/gsm8k_train.jsonl", "answer"},
      {"eval/gsm8k_test.jsonl question", "eval/gsm8k_test.jsonl", "question"},
      {"eval/math500.jsonl problem", "eval/math500.jsonl", "problem"},
      {"eval/math500.jsonl solution", "eval/math500.jsonl", "solution"},
      {"tok/sp_botchan.txt whole file", "tokenizer/sp_botchan.txt", nullptr},
      {"tok/sp_botchan.txt by line (split \\n)", "tokenizer/sp_botchan.txt", "\n"}};
  const Json items = Json::parse(slurp(digests))["items"];
  for (const Corpus& corpus : corpora) {
    const std::string path = test_data(corpus.file);
    const auto item = std::find_if(items.begin(), items.end(), [&](const Json& i) { return i["name"] == corpus.name; });
    if (path.empty() || item == items.end()) {
      ADD_FAILURE() << corpus.name << " is absent";
      continue;
    }
    std::vector<std::string> texts;
    if (!corpus.field)
      texts = {slurp(path)};
    else if (corpus.field[0] == '\n')
      texts = split_text(slurp(path), "\n");
    else
      for (const Json& row : json_lines(path)) {
        const Json& field = row[corpus.field];
        texts.push_back(field.is_array() ? field[0]["content"] : field);
      }
    EXPECT_EQ(texts.size(), (*item)["texts"].get<size_t>()) << corpus.name;
    Sha256 digest;
    size_t tokens = 0;
    for (const std::string& text : texts) {
      const Ids ids = qwen(json).encode(text);
      const auto count = static_cast<uint32_t>(ids.size());
      digest.update(&count, sizeof count);
      digest.update(ids.data(), ids.size() * sizeof ids[0]);
      tokens += ids.size();
    }
    EXPECT_EQ(tokens, (*item)["tokens"].get<size_t>()) << corpus.name;
    EXPECT_EQ(digest.hex(), (*item)["sha256"].get<std::string>()) << corpus.name;
  }
}

TEST(TokenizerVectors, Sha256OfNothingAndAbc) {
  Sha256 empty, abc;
  EXPECT_EQ(empty.hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  abc.update("abc", 3);
  EXPECT_EQ(abc.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(SentencePiece, Llama2) {
  REQUIRE_DATA(model, "tokenizer/llama2_tokenizer.model");
  REQUIRE_DATA(inputs, "tokenizer_vectors/ggml-vocab-llama-spm.gguf.inp");
  REQUIRE_DATA(outputs, "tokenizer_vectors/ggml-vocab-llama-spm.gguf.out");
  const auto tokenizer = Tokenizer::load(model);
  EXPECT_EQ(tokenizer->vocab_size(), 32000);
  EXPECT_EQ(tokenizer->id_of("<s>"), 1);
  EXPECT_EQ(tokenizer->id_of("no such piece"), -1);
  EXPECT_TRUE(tokenizer->is_special(1));
  auto cases = ggml_cases(inputs, outputs);
  ASSERT_GE(cases.size(), 46u);
  for (const auto& [text, ids] : cases) {
    EXPECT_EQ(tokenizer->encode(text), ids) << text;
    EXPECT_EQ(tokenizer->decode(ids), text);
    Ids with_bos = ids;
    with_bos.insert(with_bos.begin(), 1);
    EXPECT_EQ(tokenizer->encode(text, true), with_bos);
    EXPECT_EQ(tokenizer->decode(with_bos), text) << "a special token goes, and takes no space with it";
  }
}

TEST(SentencePiece, AgreesWithTheLibraryOnItsTestModel) {
  REQUIRE_DATA(model, "tokenizer/sp_test_model.model");
  REQUIRE_DATA(book, "tokenizer/sp_botchan.txt");
  const auto tokenizer = Tokenizer::load(model);
  sentencepiece::SentencePieceProcessor processor;
  ASSERT_TRUE(processor.Load(model).ok());
  for (const std::string& line : split_text(slurp(book), "\n")) {
    const Ids ids = tokenizer->encode(line);
    ASSERT_EQ(ids, processor.EncodeAsIds(line));
    ASSERT_EQ(tokenizer->decode(ids), processor.DecodeIds(ids));
  }
}

TEST(SentencePiece, HostileModel) {
  const ScratchFolder folder;
  EXPECT_NE(error_of(kExitUsage, [&] { Tokenizer::load(folder.write("tokenizer.model", "no model at all")); })
                .find("SentencePiece"),
            std::string::npos);
  EXPECT_NE(error_of(kExitUsage, [&] { Tokenizer::load(folder.write("tokenizer.model", "")); }), "");
}

}  // namespace
}  // namespace dapo
