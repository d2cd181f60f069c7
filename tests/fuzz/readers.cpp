#include "tests/fuzz/readers.h"

#include <simdjson.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/check.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "data/dataset.h"
#include "host/app/chart.h"
#include "host/app/html.h"
#include "host/app/json_lines.h"
#include "host/app/manifest.h"
#include "host/app/run_log.h"
#include "host/train/run_state.h"
#include "host/train/settings.h"
#include "host/verify/verify.h"
#include "model/config.h"
#include "tests/fuzz/fuzz.h"
#include "tests/testdata.h"
#include "tokenizer/chat.h"
#include "tokenizer/tokenizer.h"

namespace dapo::fuzz {

namespace fs = std::filesystem;

const fs::path& scratch_folder() {
  static const ScratchFolder one(fs::exists("/dev/shm") ? fs::path("/dev/shm") : fs::temp_directory_path());
  static const fs::path path = one.path();
  return path;
}

namespace {
std::string put(const char* name, std::string_view bytes) {
  const std::string path = (scratch_folder() / name).string();
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

/// The first byte, and the rest.
std::pair<uint8_t, std::string_view> choice(std::string_view input) {
  return input.empty() ? std::pair(uint8_t{0}, input) : std::pair(static_cast<uint8_t>(input[0]), input.substr(1));
}
}  // namespace

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
    fs::create_directories(scratch_folder() / "shards");
    const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
    const uint64_t length = header.size();
    put("shards/x.safetensors", std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + "1");
    return (scratch_folder() / "shards").string();
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
    expect(
        theirs == simdjson::SUCCESS || theirs == simdjson::NUMBER_ERROR ||
            std::string_view(simdjson::error_message(theirs)).find("integer") != std::string_view::npos,  // since 3.10
        "simdjson refuses what ours takes");
  const bool marked = input.starts_with("\xEF\xBB\xBF");  // simdjson passes over a byte order mark since 3.2
  if (marked) expect(!message.empty(), "ours takes a byte order mark");
  if (theirs == simdjson::SUCCESS && !marked)
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
  const ModelConfig c = load_model_config(scratch_folder().string());
  expect(c.hidden > 0 && c.layers > 0 && c.heads > 0 && c.heads % c.kv_heads == 0, "shapes that cannot be");
  return true;
}

/// Response and ground truth, separated by a zero byte.
bool judge(std::string_view input) {
  static const std::unique_ptr<Verifier> all[] = {make_verifier("math_dapo"), make_verifier("gsm8k"),
                                                  make_verifier("boxed"),     make_verifier("math"),
                                                  make_verifier("exact"),     make_verifier("countdown")};
  const size_t cut = std::min(input.find('\0'), input.size());
  const std::string_view response = input.substr(0, cut), truth = input.substr(std::min(cut + 1, input.size()));
  bool right = false;
  for (const auto& v : all) {
    const Verdict verdict = v->verify(response, truth);
    right |= verdict.acc;
    expect(verdict.score == (verdict.acc ? 1 : -1), "a score that is none");
    expect(!(verdict.error && verdict.acc), "right by mistake");
    expect(!verdict.error || truth.empty() || &v == &all[5], ("a fault: " + verdict.reason).c_str());
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
  const std::string home = (scratch_folder() / "files").string();
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
    write_byte_tokenizer((scratch_folder() / "bytes").string());
    return Tokenizer::load((scratch_folder() / "bytes").string());
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

/// A checkpoint's manifest: nothing outside of the folder is read or removed, even if it is listed.
bool read_manifest(std::string_view input) {
  const fs::path folder = scratch_folder() / "checkpoint", outside = scratch_folder() / "outside";
  fs::create_directories(folder);
  put("checkpoint/a", "a");
  put("outside", "o");
  put("checkpoint/MANIFEST.json", input);
  const bool whole = find_damage(folder.string()).empty();
  remove_listed(folder.string());
  expect(fs::exists(outside), "a file outside of the checkpoint is gone");
  return whole || !fs::exists(folder / "a");
}

std::string run_state_json() {
  const fs::path folder = scratch_folder() / "state";
  fs::create_directories(folder);
  RunState state;
  Group g;
  g.prompt = {1, 2};
  g.samples.resize(1);
  g.samples[0].response = {{3, 4}, {-1, -2}, Finish::stop};
  state.trainer.bank = {g};
  state.evaluation = {{g}, {}};
  state.unwritten.emplace();
  StateImage(state).write(folder.string());
  return slurp((folder / "state.json").string());
}

bool read_run_state(std::string_view input) {
  static const std::string valid = run_state_json();  // groups.safetensors of it stays
  put("state/state.json", input);
  read_state((scratch_folder() / "state").string());
  return true;
}

/// Lines of metrics.jsonl, as a chart and as text of a page.
bool read_metrics(std::string_view input) {
  MetricsLog log;
  bool any = false;
  for (std::string_view rest = input; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    if (std::optional<MetricsLine> line = parse_metrics(rest.substr(0, end))) log.add(std::move(*line)), any = true;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  Chart chart;
  chart.title = chart.help = input;
  for (const MetricsLog::Column& c : log.columns()) {
    expect(std::ranges::is_sorted(c.steps) && c.steps.size() == c.values.size(), "steps out of order");
    if (chart.curves.size() < 3) {
      Curve curve;
      curve.name = c.name;
      curve.x = c.steps;
      curve.y = c.values;
      chart.curves.push_back(std::move(curve));
    }
  }
  chart.stacked = input.size() % 2 == 0;
  const std::string page = chart_html(chart), text = html(input);
  expect(page.find("nan") == page.npos || input.find("nan") != input.npos, "a chart with nan");
  expect(text.find_first_of("<>\"'") == text.npos, "markup that is not escaped");
  return any;
}

}  // namespace dapo::fuzz
