#include <simdjson.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/check.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "data/dataset.h"
#include "host/app/json_lines.h"
#include "host/train/settings.h"
#include "host/verify/verify.h"
#include "model/config.h"
#include "tests/fuzz/fuzz.h"
#include "tests/testdata.h"
#include "tokenizer/chat.h"
#include "tokenizer/tokenizer.h"

namespace dapo::fuzz {
namespace {

namespace fs = std::filesystem;

/// A folder of this process, in memory if possible.
const fs::path& folder() {
  static const ScratchFolder one(fs::exists("/dev/shm") ? fs::path("/dev/shm") : fs::temp_directory_path());
  static const fs::path path = one.path();
  return path;
}

std::string put(const char* name, std::string_view bytes) {
  const std::string path = (folder() / name).string();
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

/// A literal including its zero bytes.
template <size_t N>
std::string bytes(const char (&literal)[N]) {
  return {literal, N - 1};
}

/// The first byte, and the rest.
std::pair<uint8_t, std::string_view> choice(std::string_view input) {
  return input.empty() ? std::pair(uint8_t{0}, input) : std::pair(static_cast<uint8_t>(input[0]), input.substr(1));
}

/// The first byte is the size of the data, or 255: then the rest is the whole file.
bool read_safetensors(std::string_view input) {
  const auto [data, header] = choice(input);
  std::string bytes(header);
  if (data != 255) {
    const uint64_t length = header.size();
    bytes.insert(0, reinterpret_cast<const char*>(&length), sizeof length);
    bytes.append(data, '\1');
  }
  const SafetensorsReader file(put("x.safetensors", bytes));
  uint64_t sum = 0;
  for (const TensorInfo& t : file.tensors()) {
    expect(t.begin <= t.end && t.end <= bytes.size(), "a tensor outside the file");
    std::string read(t.bytes(), '\0');
    file.read(t, 0, read.data(), read.size());
    sum += t.bytes();
    expect(file.find(t.name) == &t, "a tensor is not found by its name");
  }
  expect(sum <= bytes.size(), "tensors larger than their file");
  return true;
}

bool read_index(std::string_view input) {
  static const std::string shards = [] {
    fs::create_directories(folder() / "shards");
    const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
    const uint64_t length = header.size();
    put("shards/x.safetensors", std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + "1");
    return (folder() / "shards").string();
  }();
  put("shards/model.safetensors.index.json", input);
  return !SafetensorsReader(shards).tensors().empty();
}

/// Ours must agree with simdjson, except for depth and the size of numbers, which skip() does not check, and for NaN
/// and Infinity, which it accepts as Python does.
bool read_json(std::string_view input) {
  static simdjson::dom::parser parser;
  const auto theirs = parser.parse(simdjson::padded_string(input)).error();
  std::string message;
  try {
    JsonReader json(input, "text");
    json.skip();
    json.end();
  } catch (const Error& e) {
    message = e.what();
  }
  const bool python = input.find("NaN") != input.npos || input.find("Infinity") != input.npos;
  if (message.empty() && !python)
    expect(theirs == simdjson::SUCCESS || theirs == simdjson::NUMBER_ERROR, "simdjson refuses what ours takes");
  if (theirs == simdjson::SUCCESS)
    expect(message.empty() || message.find("deep") != message.npos, "simdjson takes what ours refuses");
  return message.empty();
}

bool read_tokenizer(std::string_view input) {
  const auto tokenizer = Tokenizer::load(put("tokenizer.json", input));
  const std::string text = "ab abc  \n<|endoftext|>12 \xC3\xA9\xFF";
  for (const int32_t id : tokenizer->encode(text, true)) expect(id >= 0 && id < tokenizer->vocab_size(), "a wild id");
  std::vector<int32_t> ids;
  for (int32_t id = -1; id < 300; ++id) ids.push_back(id);
  tokenizer->decode(ids);
  return true;
}

/// The first byte selects the options.
bool read_dataset(std::string_view input) {
  const auto [kind, text] = choice(input);
  DatasetOptions o;
  o.need_answer = kind & 1, o.need_response = kind & 2, o.unique = kind & 4;
  if (kind & 8) o.format = RowFormat::countdown;
  if (kind & 16) o.prompt_key = "a.b";
  const std::string path = put("rows.jsonl", text);
  const Dataset set = Dataset::load(path, o);
  for (const Example& e : set) expect(!e.text().empty() || !e.messages.empty(), "a row without a prompt");
  expect(set.duplicates().problems <= set.size(), "more problems than rows");
  read_rows(path, [](const JsonRow& row) {
    try {
      row.ids("ids");
      row.each("messages", [](const JsonRow& m) { m.text("content"); });
    } catch (const Error& e) {
      expect(e.code() == kExitUsage, "an exit code");
    }
  });
  return true;
}

bool read_config(std::string_view input) {
  const Config c = load_config(put("a.cfg", input), {});
  const std::string text = config_text(c);
  expect(config_text(load_config(put("b.cfg", text), {})) == text, "a configuration changes when written and read");
  return true;
}

bool read_model_config(std::string_view input) {
  put("config.json", input);
  const ModelConfig c = load_model_config(folder().string());
  expect(c.hidden > 0 && c.layers > 0 && c.heads > 0 && c.heads % c.kv_heads == 0, "shapes that cannot be");
  return true;
}

/// Response and ground truth, separated by a zero byte.
bool judge(std::string_view input) {
  static const std::unique_ptr<Verifier> all[] = {make_verifier("math_dapo"), make_verifier("gsm8k"),
                                                  make_verifier("boxed"), make_verifier("exact"),
                                                  make_verifier("countdown")};
  const size_t cut = std::min(input.find('\0'), input.size());
  const std::string_view response = input.substr(0, cut), truth = input.substr(std::min(cut + 1, input.size()));
  bool right = false;
  for (const auto& v : all) {
    const Verdict verdict = v->verify(response, truth);
    right |= verdict.acc;
    expect(verdict.score == (verdict.acc ? 1 : -1), "a score that is none");
    expect(!(verdict.error && verdict.acc), "right by mistake");
    expect(!verdict.error || truth.empty() || &v == &all[4], ("a fault: " + verdict.reason).c_str());
  }
  expect(math_equal(response, truth) == math_equal(truth, response), "math_equal depends on the order");
  if (const std::string one = canonical_answer(response); one.empty())
    expect(!math_equal(response, response), "an answer of which nothing is left is right");
  return right;
}

/// A template, messages as JSON and tools as JSON, separated by zero bytes; the first byte selects how the text ends.
bool render_chat(std::string_view input) {
  const auto [kind, text] = choice(input);
  const size_t first = std::min(text.find('\0'), text.size());
  const std::string_view source = text.substr(0, first), rest = text.substr(std::min(first + 1, text.size()));
  const size_t second = std::min(rest.find('\0'), rest.size());
  const std::string_view messages = rest.substr(0, second), tools = rest.substr(std::min(second + 1, rest.size()));
  const ChatTemplate chat = ChatTemplate::parse(source, "here");
  const ChatEnd end = kind % 3 == 0 ? ChatEnd::prompt : kind % 3 == 1 ? ChatEnd::closed : ChatEnd::continued;
  const std::string once =
      chat.render_json(messages.empty() ? R"([{"role":"user","content":"Hi"}])" : messages, {std::string(tools)}, end);
  expect(once.size() <= size_t{32} << 20, "more text than a template may write");
  return true;
}

/// tokenizer_config.json, special_tokens_map.json and added_tokens.json, zero-separated, for the byte tokenizer.
bool read_tokenizer_files(std::string_view input) {
  const std::string home = (folder() / "files").string();
  static const bool made = (write_byte_tokenizer(home), true);
  expect(made, "no tokenizer");
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}) {
    const size_t cut = std::min(input.find('\0'), input.size());
    put((std::string("files/") + name).c_str(), input.substr(0, cut));
    input.remove_prefix(std::min(cut + 1, input.size()));
  }
  const auto tokenizer = Tokenizer::load(home);
  for (const int32_t id : tokenizer->encode("a <x> <y>b", true))
    expect(id >= 0 && id < tokenizer->vocab_size(), "a wild id");
  if (const ChatTemplate chat = ChatTemplate::load(home)) {
    const std::vector<ChatMessage> hello = {{"user", "Hi"}};
    chat.render(hello);
  }
  return true;
}

/// decode(encode(x)) == x, byte for byte, without NFC; with NFC, a second round changes nothing.
bool encode(std::string_view input) {
  static const auto bytes = [] {
    write_byte_tokenizer((folder() / "bytes").string());
    return Tokenizer::load((folder() / "bytes").string());
  }();
  static const auto qwen = Tokenizer::load(
      golden_files("tokenizer/bpe/tokenizer.json", "tokenizer/qwen2.5_tokenizer.reconstructed.json").back());
  expect(bytes->decode_bytes(bytes->encode(input), false) == input, "bytes do not come back");
  const std::string once = qwen->decode_bytes(qwen->encode(input), false);
  expect(qwen->decode_bytes(qwen->encode(once), false) == once, "NFC is not settled after one round");
  StreamDecoder stream(*qwen, false);
  std::string streamed;
  for (const int32_t id : qwen->encode(input)) streamed += stream.push(id);
  expect(streamed + stream.finish() == qwen->decode(qwen->encode(input), false), "the stream decodes otherwise");
  return true;
}

std::string byte_tokenizer_json() {
  write_byte_tokenizer((folder() / "seed").string());
  return slurp((folder() / "seed" / "tokenizer.json").string());
}

/// `text`, and the beginning of a real file if the test data is present.
std::vector<std::string> with_file(std::vector<std::string> seeds, const char* relative, const std::string& prefix = "",
                                   size_t length = 4096) {
  if (const std::string path = test_data(relative); !path.empty()) {
    std::string text = slurp(path).substr(0, length);
    if (fs::path(relative).extension() == ".jsonl") text.resize(text.rfind('\n') + 1);
    seeds.push_back(prefix + text);
  }
  return seeds;
}

const std::vector<std::string> kJson = {
    "{",     "}",    "[",    "]",     ",",   ":",  "\"",   "\\u0000",      "\\ud83d\\ude00",
    "\\ud8", "null", "true", "false", "1e5", "\\", "\xC3", "\xEF\xBB\xBF", "\n"};

std::vector<std::string> json_words(std::vector<std::string> more) {
  more.insert(more.end(), kJson.begin(), kJson.end());
  return more;
}

/// The words separated by blanks, and a zero byte.
std::vector<std::string> words(std::string_view list) {
  std::vector<std::string> out = {bytes("\0")};
  for (size_t end; !list.empty(); list.remove_prefix(std::min(end + 1, list.size())))
    out.emplace_back(list.substr(0, end = std::min(list.find(' '), list.size())));
  return out;
}

}  // namespace

const std::vector<Target>& targets() {
  static const std::vector<Target> all = {
      {"safetensors",
       5000,
       read_safetensors,
       {"\x08{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
        "\x0c{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[8,12]},"
        "\"a\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[0,8]}}   ",
        bytes("\xff\x02\0\0\0\0\0\0\0{}")},
       json_words({"\"dtype\":", "\"shape\":", "\"data_offsets\":", "\"F4\"", "\"F64\"", "\"I64\"", "[0,0]"})},
      {"index",
       3000,
       read_index,
       {"{\"weight_map\":{\"a\":\"x.safetensors\"}}",
        "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"a\":\"x.safetensors\",\"b\":\"y.safetensors\"}}"},
       json_words({"\"weight_map\":", "\"x.safetensors\"", "..", "/"})},
      {"json", 50000, read_json,
       with_file({"{\"a\":[1,-2.5e3,true,false,null,\"\\u00e9\\n\"],\"b\":{}}", " [[[]], {\"\":0}] ", "1"},
                 "config/Qwen2.5-0.5B_config.json"),
       kJson},
      {"tokenizer_json",
       500,
       read_tokenizer,
       {byte_tokenizer_json()},
       json_words({"\"merges\":", "\"vocab\":", "\"a b\"", "[\"a\",\"b\"]", "\"ab\":300", "\"type\":", "\"NFC\"",
                   "\"Split\"", "\"Digits\"", "\"Sequence\"", "\"Regex\":\"\\\\p{N}\"",
                   "\"pretokenizers\":", "\"normalizers\":", "\"TemplateProcessing\"", "\"ignore_merges\":true"})},
      {"rows", 5000, read_dataset,
       with_file(
           {"a{\"prompt\":\"q\",\"answer\":\"1\",\"response\":\"r\"}\n{\"question\":\"q\",\"answer\":\"#### 1,2\"}\n",
            bytes("\0{\"prompt\":[{\"role\":\"user\",\"content\":\"q\"}],\"reward_model\":{\"ground_truth\":3}}"),
            "\x08{\"input\":\"30,100,93\",\"output\":\"23\"}\n", "\x10{\"a\":{\"b\":\"q\"},\"ids\":[1,2]}\r\n\n",
            "@{\"problem\":\"p\",\"solution\":\"\\\\boxed{x^{2}}\",\"messages\":[{\"content\":\"c\"}]}",
            "a[{\"instruction\":\"i\",\"input\":\"j\",\"output\":[\"1\",\"2\"],\"history\":[[\"a\",\"b\"]]},\n{"
            "\"system\":\"s\"}]",
            "b{\n\"conversations\":[{\"from\":\"gpt\",\"value\":\"v\"}],\n\"x\":[NaN,-Infinity,99999999999999999999]\n}"
            "\n"},
           "eval/gsm8k_test.jsonl", "a"),
       json_words({"\"prompt\":",
                   "\"messages\":",
                   "\"role\":",
                   "\"content\":",
                   "\"answer\":",
                   "\"solution\":",
                   "\\\\boxed{",
                   "#### ",
                   "\"reward_model\":{\"ground_truth\":",
                   "\"output\":",
                   "\"input\":",
                   "\r\n",
                   "NaN",
                   "-Infinity",
                   "123456789012345678901",
                   "\"instruction\":",
                   "\"conversations\":",
                   "\"from\":",
                   "\"value\":",
                   "\"history\":",
                   "\"system\":",
                   "\"choices\":",
                   "\x1f\x8b\x08"})},
      {"config",
       3000,
       read_config,
       {"[model]\npath = \"m\"\n[data]\ntrain_files = [\"t.jsonl\"]\n",
        "# x\n[model]\npath = 'm'\nthreads = 2\n[data]\ntrain_files = \"t\"\nshuffle = false\n[actor]\nlr = 1e-6\n"
        "[eval]\npass_k = [1, 4]\n[trainer]\nseed = 0x10\n"},
       {"[",
        "]",
        "=",
        "\n",
        "\"",
        "'''",
        "\"\"\"",
        "\\u00e9",
        "1979-05-27T07:32:00Z",
        "inf",
        "nan",
        "true",
        "{a = 1}",
        "[[x]]",
        ".",
        "actor.lr",
        "rollout.n = 1",
        "top_p = 0.5\n",
        "[rollout]\n",
        "[reward]\n",
        "0b1",
        "1_000",
        "#"}},
      {"model_config", 5000, read_model_config,
       with_file({"{\"model_type\":\"qwen2\",\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":2,"
                  "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":264,\"rms_norm_eps\":1e-6,"
                  "\"rope_theta\":10000.0,\"max_position_embeddings\":512,\"tie_word_embeddings\":true,"
                  "\"hidden_act\":\"silu\",\"eos_token_id\":256}"},
                 "config/Qwen2.5-7B-Instruct_config.json"),
       json_words({"\"llama\"", "\"rope_scaling\":{}", "\"head_dim\":", "\"sliding_window\":", "\"eos_token_id\":[1,2]",
                   "\"use_sliding_window\":true", "0", "-1"})},
      {"verifiers",
       10000,
       judge,
       {bytes("so\nAnswer: \\boxed{\\frac12}\0\\frac{1}{2}"),
        bytes("#### 1,234\0"
              "1234"),
        bytes("<answer>(30+93)-100</answer>\0{\"target\":23,\"numbers\":[30,100,93]}"),
        bytes("\\boxed{(1, 50\\%)}\0(1,0.5)"), bytes("Answer: $x = \\text{a}$\0a"), bytes("$\\boxed 3 1/2$\0\\frac72"),
        bytes("\\boxed{1\\pm\\sqrt[3]{x^{2}}}\0x_1=1"),
        bytes("\\boxed{\\begin{pmatrix}1&2\\\\3&\\sin 2x\\end{pmatrix}}\0\\{1\\,000,5\\text{ cm}^2\\}")},
       words("Answer: \\boxed{ \\boxed \\fbox \\frac \\sqrt \\sin \\text{ { } $ \\% #### <answer> </answer> ( ) [ ] + "
             "* / - "
             "99999999999999999999 1e9 {,} \\left( \\pm \xC2\xA0 \xE2\x88\x92 \xC2\xBD \xC2\xB2 = \\overline{ , . ^ _ "
             "| ! ' x & "
             "\\begin{matrix} \\end{matrix} \\\\ \\{ \\} \\cup \\times10^ ^\\circ \\text{and}")},
      {"chat",
       3000,
       render_chat,
       {bytes("a{% for m in messages %}{{ m.role | upper }}{{ m['content'][1:] }}{% endfor %}\0"),
        bytes("b{%- set ns = namespace(x=0) -%}{% for m in messages if m.content %}{% set ns.x = ns.x + loop.index %}"
              "{% else %}-{% endfor %}{{ ns.x ~ '%s' % (ns.x,) }}\0[{\"role\":\"a\",\"content\":\"b\"}]"),
        bytes("c{% macro f(a, b=[1]) %}{{ a|tojson(indent=2) }}{{ caller() }}{% endmacro %}{% call f(tools) %}x"
              "{{ messages|map(attribute='role')|join(', ') }}{% endcall %}\0[{\"content\":\"y\"}]\0[{\"x\":1.50}]"),
        bytes("a{{ '{:>5}'.format(2 ** 3 // 2) if messages is defined and not messages[0].x else raise_exception('n') "
              "}}{# c #}{% raw %}{{{% endraw %}\0")},
       json_words({bytes("\0"), "{%",        "%}",      "{{",      "}}",        "{#",    "#}",     "-%}",
                   "{%-",       "for ",      "endfor",  "if ",     "endif",     "set ",  "endset", "macro ",
                   "endmacro",  "call ",     "endcall", "filter ", "endfilter", " in ",  " is ",   "not ",
                   "else",      "elif ",     "|",       "~",       "**",        "//",    "loop.",  "namespace(",
                   "messages",  ".items()",  ".split(", "|tojson", "|join(",    "|map(", "'%5s'",  "{:>9}",
                   "[::-1]",    "recursive", "break",   "raw"})},
      {"tokenizer_files",
       2000,
       read_tokenizer_files,
       {bytes("{\"eos_token\":\"<x>\",\"added_tokens_decoder\":{\"258\":{\"content\":\"<x>\",\"lstrip\":true}},"
              "\"chat_template\":[{\"name\":\"default\",\"template\":\"{{ messages }}\"}]}\0{}\0{}"),
        bytes("{\"chat_template\":\"x\",\"add_bos_token\":true}\0{\"eos_token\":{\"content\":\"<y>\"}}\0"
              "{\"<x>\":258,\"<y>\":300}")},
       json_words({bytes("\0"), "\"added_tokens_decoder\":", "\"content\":", "\"special\":true",
                   "\"300\":", "\"additional_special_tokens\":", "\"chat_template\":", "\"pad_token\":"})},
      {"encode",
       3000,
       encode,
       with_file({"Hello, world! 123", "\xE4\xB8\xAD\xE6\x96\x87 e\xCC\x81\xCC\xA3", "<|im_start|>user\nhi<|im_end|>",
                  "\xE1\x84\x80\xE1\x85\xA1\xFF\xC3"},
                 "tokenizer/sp_botchan.txt", "", 1000),
       {" ",
        "  ",
        "\n",
        "\r\n",
        "'s",
        "'",
        "\xCC\x81",
        "\xCC\xA3",
        "\xEF\xBF\xBD",
        "<|im_end|>",
        "<|endoftext|>",
        "1",
        "\xE1\x84\x80",
        "\xE1\x85\xA1",
        "\xE1\x86\xA8",
        "\xF0\x9F\x98\x80",
        "\xC3",
        "\xFF",
        "\xE3\x80\x80",
        "\t"}},
  };
  return all;
}

}  // namespace dapo::fuzz
