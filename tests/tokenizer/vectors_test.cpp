// Ids compared with those of Hugging Face tokenizers, llama.cpp and SentencePiece.
#include <sentencepiece_processor.h>

#include <functional>
#include <map>

#include "tests/tokenizer/support.h"

namespace dapo {
namespace {

/// By view: g++ 14 suspects a reference that a function of a temporary `const std::string&` returns (-Wdangling-reference).
const Tokenizer& loaded(std::string_view path) {
  static std::map<std::string, std::unique_ptr<const Tokenizer>> all;
  auto& tokenizer = all[std::string(path)];
  if (!tokenizer) tokenizer = Tokenizer::load(std::string(path));
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

/// The cases that come with a vocabulary of llama.cpp.
void expect_llama_cpp(const std::string& tokenizer, const std::string& name) {
  REQUIRE_DATA(path, tokenizer);
  REQUIRE_DATA(inputs, "tokenizer_vectors/ggml-vocab-" + name + ".gguf.inp");
  REQUIRE_DATA(outputs, "tokenizer_vectors/ggml-vocab-" + name + ".gguf.out");
  auto cases = ggml_cases(inputs, outputs);
  ASSERT_GE(cases.size(), 46u);
  for (const auto& [text, ids] : cases) EXPECT_EQ(loaded(path).encode(text), ids) << text;
}

TEST(TokenizerVectors, LlamaCpp) {
  expect_llama_cpp(kQwenJson, "qwen2");
  expect_llama_cpp("tokenizer/llama2_tokenizer.model", "llama-spm");
}

void expect_vectors(const Tokenizer& tokenizer, const std::string& vectors, size_t expected_rows,
                    int expected_decoded) {
  SCOPED_TRACE(vectors);
  const auto rows = json_lines(vectors);
  EXPECT_EQ(rows.size(), expected_rows);
  int decoded = 0;
  for (const Json& row : rows) {
    const std::string text = row["text"];
    const Ids ids = row["ids"];
    EXPECT_EQ(tokenizer.encode(text), ids) << text;
    decoded += row.contains("decoded");
    EXPECT_EQ(tokenizer.decode(ids, false), row.contains("decoded") ? row["decoded"].get<std::string>() : text);
  }
  EXPECT_EQ(decoded, expected_decoded);
}

const char* const kOwnVectors = "tokenizer/bpe/vectors.jsonl";
const char* const kQwenVectors = "tokenizer_vectors/qwen2.5_hf_vectors.jsonl";

TEST(TokenizerVectors, HuggingFace) {
  expect_vectors(loaded(golden(kOwnJson)), golden(kOwnVectors), 284, 78);
  const std::string json = test_data(kQwenJson);
  if (!json.empty()) expect_vectors(loaded(json), test_data(kQwenVectors), 612, 7);
}

/// The other merge layout, the same vocabulary and more added tokens.
void expect_same_with_pairs(const Tokenizer& one, const Tokenizer& pairs, const std::string& vectors) {
  SCOPED_TRACE(vectors);
  EXPECT_EQ(pairs.encode("<think>"), Ids{pairs.id_of("<think>")});
  EXPECT_EQ(pairs.id_of("</think>"), pairs.id_of("<think>") + 1);
  EXPECT_GT(one.encode("<think>").size(), 1u);
  for (const Json& row : json_lines(vectors)) {
    const std::string text = row["text"];
    if (text.find("think>") != text.npos || text.find("tool_response>") != text.npos) continue;  // tokens here
    EXPECT_EQ(pairs.encode(text), row["ids"].get<Ids>()) << text;
  }
}

TEST(TokenizerVectors, MergesAsPairs) {
  const Tokenizer &one = loaded(golden(kOwnJson)), &pairs = loaded(golden("tokenizer/bpe/tokenizer_pairs.json"));
  EXPECT_EQ(one.vocab_size(), 1024 + 5);
  EXPECT_EQ(pairs.vocab_size(), 1024 + 7);
  expect_same_with_pairs(one, pairs, golden(kOwnVectors));
  const std::string qwen = test_data(kQwenJson), qwen3 = test_data("tokenizer/qwen3_tokenizer.json");
  if (qwen.empty() || qwen3.empty()) return;
  EXPECT_EQ(loaded(qwen).vocab_size(), 151665);
  EXPECT_EQ(loaded(qwen3).vocab_size(), 151669);
  EXPECT_EQ(loaded(qwen3).id_of("<think>"), 151667);
  expect_same_with_pairs(loaded(qwen), loaded(qwen3), test_data(kQwenVectors));
}

struct Corpus {
  const char *name, *file, *field;
};

void expect_digests(const Tokenizer& tokenizer, const std::string& digests, const std::vector<Corpus>& corpora,
                    const std::function<std::string(const std::string&)>& find_file) {
  const Json items = Json::parse(slurp(digests))["items"];
  for (const Corpus& corpus : corpora) {
    const std::string path = find_file(corpus.file);
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
      const Ids ids = tokenizer.encode(text);
      const auto count = static_cast<uint32_t>(ids.size());
      digest.update(&count, sizeof count);
      digest.update(ids.data(), ids.size() * sizeof ids[0]);
      tokens += ids.size();
    }
    EXPECT_EQ(tokens, (*item)["tokens"].get<size_t>()) << corpus.name;
    EXPECT_EQ(digest.hex(), (*item)["sha256"].get<std::string>()) << corpus.name;
  }
}

/// Whole corpora by digest (AIME 2024 is only available as Parquet, which these tests cannot read).
TEST(TokenizerVectors, BulkDigests) {
  expect_digests(loaded(golden(kOwnJson)), golden("tokenizer/bpe/digests.json"),
                 {{"whole file", "tokenizer/corpus.txt", nullptr}, {"by line", "tokenizer/corpus.txt", "\n"}}, golden);
  const std::string json = test_data(kQwenJson);
  if (json.empty()) return;
  const std::vector<Corpus> corpora = {
      {"train/dapo_math_17k.parquet (= .jsonl.gz) prompt[0].content", "train/dapo_math_17k.jsonl.gz", "prompt"},
      {"train/gsm8k_train.jsonl question", "train/gsm8k_train.jsonl", "question"},
      {"train/gsm8k_train.jsonl answer", "train/gsm8k_train.jsonl", "answer"},
      {"eval/gsm8k_test.jsonl question", "eval/gsm8k_test.jsonl", "question"},
      {"eval/math500.jsonl problem", "eval/math500.jsonl", "problem"},
      {"eval/math500.jsonl solution", "eval/math500.jsonl", "solution"},
      {"tok/sp_botchan.txt whole file", "tokenizer/sp_botchan.txt", nullptr},
      {"tok/sp_botchan.txt by line (split \\n)", "tokenizer/sp_botchan.txt", "\n"}};
  expect_digests(loaded(json), test_data("tokenizer_vectors/qwen2.5_bulk_digests.json"), corpora, test_data);
}

TEST(TokenizerVectors, Sha256OfNothingAndAbc) {
  Sha256 empty, abc;
  EXPECT_EQ(empty.hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  abc.update("abc", 3);
  EXPECT_EQ(abc.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

void expect_pieces(const Tokenizer& tokenizer, const std::string& text, const Ids& ids, const std::string& decoded) {
  EXPECT_EQ(tokenizer.encode(text), ids) << text;
  EXPECT_EQ(tokenizer.decode(ids), decoded);
  Ids with_bos = ids;
  with_bos.insert(with_bos.begin(), 1);
  EXPECT_EQ(tokenizer.encode(text, true), with_bos);
  EXPECT_EQ(tokenizer.decode(with_bos), decoded) << "a special token goes, and takes no space with it";
}

TEST(SentencePiece, IdsOfTheLibrary) {
  const auto rows = json_lines(golden("tokenizer/sp/vectors.jsonl"));
  EXPECT_EQ(rows.size(), 524u);
  for (const Json& row : rows) {
    const Tokenizer& tokenizer = loaded(golden("tokenizer/sp/" + row["model"].get<std::string>() + ".model"));
    expect_pieces(tokenizer, row["text"], row["ids"], row["decoded"]);
  }
  EXPECT_EQ(loaded(golden("tokenizer/sp/bpe.model")).vocab_size(), 640);
}

TEST(SentencePiece, SpecialPieces) {
  for (const std::string& model : golden_files("tokenizer/sp/bpe.model", "tokenizer/llama2_tokenizer.model")) {
    EXPECT_EQ(loaded(model).id_of("<s>"), 1);
    EXPECT_EQ(loaded(model).id_of("no such piece"), -1);
    EXPECT_TRUE(loaded(model).is_special(1));
  }
}

TEST(SentencePiece, AgreesWithTheLibrary) {
  const auto models = golden_files("tokenizer/sp/unigram.model", "tokenizer/sp_test_model.model");
  const auto books = golden_files("tokenizer/corpus.txt", "tokenizer/sp_botchan.txt");
  for (size_t i = 0; i < models.size(); ++i) {
    sentencepiece::SentencePieceProcessor processor;
    ASSERT_TRUE(processor.Load(models[i]).ok());
    for (const std::string& line : split_text(slurp(books.at(i)), "\n")) {
      const Ids ids = loaded(models[i]).encode(line);
      ASSERT_EQ(ids, processor.EncodeAsIds(line));
      ASSERT_EQ(loaded(models[i]).decode(ids), processor.DecodeIds(ids));
    }
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
