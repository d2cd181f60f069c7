#include "data/rows.h"

#include <simdjson.h>

#include <array>
#include <cmath>
#include <initializer_list>
#include <optional>

#include "core/check.h"
#include "data/lines.h"
#include "data/random.h"
#include "data/synthetic.h"

namespace dapo {

namespace {
using simdjson::dom::element;
using simdjson::dom::element_type;

std::string_view reason_of(simdjson::error_code code) {
  switch (code) {
    case simdjson::DEPTH_ERROR:
      return "nested deeper than 64 levels";
    case simdjson::UTF8_ERROR:
      return "not valid UTF-8";
    case simdjson::UNCLOSED_STRING:
      return "a string is not closed: the line is cut off, or holds a bare line break";
    case simdjson::UNESCAPED_CHARS:
      return "a control character inside a string: write it as \\u00XX";
    case simdjson::EMPTY:
      return "nothing there";
    case simdjson::MEMALLOC:
      return "out of memory";
    case simdjson::CAPACITY:
      return "too long";
    default:
      return simdjson::error_message(code);
  }
}

std::string_view type_of(const element& e) {
  switch (e.type()) {
    case element_type::ARRAY:
      return "a list";
    case element_type::OBJECT:
      return "an object";
    case element_type::STRING:
      return "a string";
    case element_type::BOOL:
      return "a bool";
    case element_type::NULL_VALUE:
      return "null";
    default:
      return "a number";
  }
}

/// The field at a dotted path, or nothing where it is absent or null.
std::optional<element> field(element from, std::string_view path) {
  while (true) {
    const size_t dot = path.find('.');
    simdjson::dom::object object;
    if (from.get(object) != simdjson::SUCCESS || object.at_key(path.substr(0, dot)).get(from) != simdjson::SUCCESS)
      return std::nullopt;
    if (dot == std::string_view::npos) break;
    path.remove_prefix(dot + 1);
  }
  if (from.is_null()) return std::nullopt;
  return from;
}

struct Found {
  element value;
  std::string_view key;
};
std::optional<Found> first_of(element row, const std::string& override_key,
                              std::initializer_list<std::string_view> keys) {
  if (!override_key.empty()) {
    if (const auto v = field(row, override_key)) return Found{*v, override_key};
    return std::nullopt;
  }
  for (const std::string_view key : keys)
    if (const auto v = field(row, key)) return Found{*v, key};
  return std::nullopt;
}

std::string text_of(const Found& f, std::string_view where) {
  std::string_view s;
  if (f.value.get(s) != simdjson::SUCCESS)
    fail_input("{}: \"{}\" is {}: a string is expected", where, f.key, type_of(f.value));
  return std::string(s);
}

/// An answer as the verifiers take it: strings as they are, numbers shortest, objects and lists as JSON.
std::string answer_of(const Found& f, std::string_view where) {
  switch (f.value.type()) {
    case element_type::STRING:
      return text_of(f, where);
    case element_type::INT64:
      return fmt::format("{}", int64_t{f.value});
    case element_type::UINT64:
      return fmt::format("{}", uint64_t{f.value});
    case element_type::DOUBLE: {
      const double v = f.value;
      if (std::abs(v) < 1e15 && v == std::floor(v)) return fmt::format("{}", static_cast<int64_t>(v));
      return fmt::format("{}", v);
    }
    case element_type::OBJECT:
    case element_type::ARRAY:
      return simdjson::minify(f.value);
    default:
      fail_input("{}: \"{}\" is {}: an answer is a string or a number", where, f.key, type_of(f.value));
  }
}

std::vector<Message> messages_of(const Found& f, std::string_view where) {
  std::vector<Message> out;
  for (const element e : simdjson::dom::array(f.value)) {
    const auto role = field(e, "role"), content = field(e, "content");
    if (!role || !content)
      fail_input("{}: \"{}\"[{}] lacks \"role\" or \"content\": messages are {{\"role\", \"content\"}} objects", where,
                 f.key, out.size());
    out.push_back({text_of({*role, "role"}, where), text_of({*content, "content"}, where)});
  }
  if (out.empty()) fail_input("{}: \"{}\" is an empty list: at least one message is expected", where, f.key);
  return out;
}

/// GSM8K: what follows the last "####", without commas and dollars. Nothing where there is no such mark.
std::optional<std::string> after_hashes(std::string_view text) {
  const size_t at = text.rfind("####");
  if (at == std::string_view::npos) return std::nullopt;
  text.remove_prefix(at + 4);
  std::string out;
  for (const char c : text.substr(0, text.find('\n')))
    if (c != ',' && c != '$') out += c;
  const size_t from = out.find_first_not_of(" \t\r"), to = out.find_last_not_of(" \t\r");
  if (from == std::string::npos) return std::nullopt;
  return out.substr(from, to - from + 1);
}

/// MATH: the content of the last \boxed{...}. Nothing where there is none, or its brace stays open.
std::optional<std::string> last_box(std::string_view text) {
  const size_t at = text.rfind("\\boxed{");
  if (at == std::string_view::npos) return std::nullopt;
  text.remove_prefix(at + 7);
  size_t open = 1;
  for (size_t i = 0; i < text.size(); ++i) {
    open += text[i] == '{';
    open -= text[i] == '}';
    if (open == 0) return std::string(text.substr(0, i));
  }
  return std::nullopt;
}
}  // namespace

struct RowParser::State {
  DatasetOptions options;
  simdjson::dom::parser parser{kLineLimit + simdjson::SIMDJSON_PADDING};
  size_t prepared = 0;  // bytes
  size_t rows = 0;

  void prompt(element row, std::string_view where, Example& out) const;
  void answer(element row, std::string_view where, Example& out) const;
};

RowParser::RowParser(const DatasetOptions& options) : state_(std::make_unique<State>()) {
  if (options.format != "auto" && options.format != "countdown")
    fail_input("data format \"{}\" is unknown: auto or countdown", options.format);
  state_->options = options;
}
RowParser::~RowParser() = default;

void RowParser::State::prompt(element row, std::string_view where, Example& out) const {
  const auto found = first_of(row, options.prompt_key, {"prompt", "messages", "question", "problem", "input"});
  if (!found)
    fail_input("{}: no prompt: {} expected (data.prompt_key names another field)", where,
               options.prompt_key.empty() ? "one of prompt, messages, question, problem, input is"
                                          : fmt::format("field \"{}\" is", options.prompt_key));
  if (found->value.is_array()) {
    out.messages = messages_of(*found, where);
    if (out.messages.size() > 1 && out.messages.back().role == "assistant") {
      out.response = std::move(out.messages.back().content);
      out.messages.pop_back();
    }
  } else {
    out.prompt = text_of(*found, where);
    if (out.prompt.empty()) fail_input("{}: \"{}\" is empty: a prompt is expected", where, found->key);
  }
}

void RowParser::State::answer(element row, std::string_view where, Example& out) const {
  const auto found = first_of(row, options.answer_key, {"reward_model.ground_truth", "answer", "output", "solution"});
  if (!found) {
    if (options.need_answer || !options.answer_key.empty())
      fail_input("{}: no answer: {} expected (data.answer_key names another field)", where,
                 options.answer_key.empty() ? "one of reward_model.ground_truth, answer, output, solution is"
                                            : fmt::format("field \"{}\" is", options.answer_key));
    return;
  }
  out.answer = answer_of(*found, where);
  auto shorter = after_hashes(out.answer);
  if (!shorter && found->key == "solution") shorter = last_box(out.answer);
  if (shorter) {
    out.solution = std::move(out.answer);
    out.answer = std::move(*shorter);
  } else if (const auto solution = field(row, "solution"); solution && solution->is_string()) {
    out.solution = std::string(std::string_view(*solution));
  }
  if (options.need_answer && out.answer.empty())
    fail_input("{}: \"{}\" is empty: an answer is expected", where, found->key);
}

Example RowParser::parse(const char* json, size_t length, size_t capacity, std::string_view where) {
  State& s = *state_;
  if (length > kLineLimit) fail_input("{}: row is longer than {} MiB", where, kLineLimit >> 20);
  if (s.prepared < length) {  // room for the depth cap is set together with the capacity, so both are set here
    s.prepared = std::max<size_t>(std::max(length, 2 * s.prepared), size_t{1} << 16);
    if (const auto error = s.parser.allocate(s.prepared, kDepthLimit))
      fail(kExitResources, "{}: {}", where, reason_of(error));
  }
  element row;
  if (const auto error = s.parser.parse(json, length, capacity - length < simdjson::SIMDJSON_PADDING).get(row))
    fail_input("{}: not valid JSON: {}", where, reason_of(error));
  if (!row.is_object())
    fail_input("{}: {} instead of an object: each row is {{\"prompt\": ..., \"answer\": ...}}", where, type_of(row));

  Example out;
  if (s.options.format == "countdown") {
    const auto numbers = field(row, "input"), target = field(row, "output");
    if (!numbers || !target) fail_input("{}: a countdown row is {{\"input\":\"30,100,93\",\"output\":\"23\"}}", where);
    const auto task = parse_countdown(answer_of({*numbers, "input"}, where), answer_of({*target, "output"}, where));
    if (!task) fail_input("{}: \"input\" is not a list of whole numbers, or \"output\" not a whole number", where);
    out = countdown_example(*task);
  } else {
    s.prompt(row, where, out);
    s.answer(row, where, out);
    if (const auto f = first_of(row, s.options.response_key, {"response", "completion"}))
      out.response = text_of(*f, where);
    else if (!s.options.response_key.empty() || (s.options.need_response && out.response.empty()))
      fail_input("{}: no response: {} expected (data.response_key names another field)", where,
                 s.options.response_key.empty() ? "response or completion is"
                                                : fmt::format("field \"{}\" is", s.options.response_key));
    if (const auto f = field(row, "data_source")) out.data_source = text_of({*f, "data_source"}, where);
  }

  uint64_t h = hash64(out.prompt);
  for (const Message& m : out.messages) h = hash64(m.content, hash64("\n", hash64(m.role, hash64("\x1e", h))));
  out.problem = h;
  out.id = fmt::format("{}-{:016x}", s.rows++, hash64(out.answer, hash64("\x1f", h)));
  return out;
}

}  // namespace dapo
