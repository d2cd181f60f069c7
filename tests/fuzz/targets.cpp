#include <algorithm>
#include <filesystem>

#include "core/json.h"
#include "host/verify/verify.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/readers.h"
#include "tests/testdata.h"
#include "tokenizer/tokenizer.h"

namespace dapo::fuzz {
namespace {

namespace fs = std::filesystem;

/// A literal including its zero bytes.
template <size_t N>
std::string bytes(const char (&literal)[N]) {
  return {literal, N - 1};
}

std::string byte_tokenizer_json() {
  write_byte_tokenizer((scratch_folder() / "seed").string());
  return slurp((scratch_folder() / "seed" / "tokenizer.json").string());
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
        "[eval]\npass_k = [1, 4]\n[trainer]\nseed = 0x10\n",
        "[model]\npath = \"m\"\n[data]\ntrain_files = \"t\"\n[algorithm]\npreset = \"gspo\"\n[actor]\nclip_ratio_low = "
        "0.1\n"},
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
        "[algorithm]\n",
        "preset = \"dr_grpo\"\n",
        "preset = \"cispo\"\n",
        "terms = [{name = \"a\", verifier = \"format\", pattern = \"*\"}]\n",
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
      {"manifest",
       5000,
       read_manifest,
       {"{\"format\": 1, \"step\": 2, \"open\": false, \"files\": [{\"name\": \"a\", \"bytes\": 1, \"xxh128\": "
        "\"a96faf705af16834e6c632b61e964e1f\"}], \"about\": {}, \"xxh128\": \"0\"}",
        "{\"files\": [{\"name\": \"../outside\", \"bytes\": 1}]}",
        "{\"files\": [{\"name\": true}, 1, {\"name\": \"a\"}]}"},
       json_words({"\"files\": [", "\"name\": ", "\"../outside\"", "/", "..", "\"bytes\": ", "\"xxh128\": "})},
      {"run_state",
       2000,
       read_run_state,
       {run_state_json()},
       json_words({"\"bank\": [", "\"evaluation\": [[", "\"format\": 1",
                   "\"tokens\": ", "\"prompt_tokens\": ", "\"nan\"", "\"inf\"", "-1", "1e99"})},
      {"metrics",
       5000,
       read_metrics,
       {"{\"step\": 1, \"reward/acc\": 0.5, \"seconds\": null, \"alarms\": [\"a <b>\"]}\n{\"step\": 2, \"reward/acc\": "
        "-1e308}\n{\"step\": 1, \"reward/acc\": 1e308, \"x\": 3}",
        "{\"step\": 0, \"eval/avg\": 1}\n{\"step\": 0, \"y\": NaN}\n{\"step\": 9007199254740991, \"eval/avg\": "
        "5e-324}"},
       json_words({"\"step\": ", "\"alarms\": [", "<", "'", "&", "1e308", "-1e-300", "\xE2\x80\xAE", "\xED\xA0\x80"})},
  };
  return all;
}

}  // namespace dapo::fuzz
