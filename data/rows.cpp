#include "data/rows.h"

#include <algorithm>
#include <initializer_list>
#include <optional>

#include "core/check.h"
#include "data/answer.h"
#include "data/json_row.h"
#include "data/messages.h"
#include "data/random.h"
#include "data/synthetic.h"

namespace dapo {

namespace {
using simdjson::dom::element;
using Names = std::initializer_list<std::string_view>;

const Names kPrompts = {"prompt", "messages", "conversations", "instruction", "question", "problem", "input"};
const Names kAnswers = {"reward_model.ground_truth", "ground_truth", "answer",  "final_answer",
                        "expected_answer",           "output",       "solution"};
const Names kResponses = {"response", "completion"};
const Names kContexts = {"input", "context", "question", "problem"};  // the input of an instruction
const Names kSystems = {"system", "system_prompt"};
const Names kMedia = {"images", "image", "videos", "video", "audios", "audio"};
const Names kOthers = {"history", "choices", "options", "data_source",
                       "nums",    "target",  "tools",   "chat_template_kwargs"};

std::string listed(Names names) {
  return fmt::format("{}", fmt::join(names, ", "));
}

/// The members of a row's object; each is looked up several times.
class Row {
 public:
  /// Views into the parser's memory.
  void assign(simdjson::dom::object object) {
    members_.clear();
    for (const auto& [key, value] : object) members_.emplace_back(key, value);
  }
  /// As field(element, path).
  std::optional<element> field(std::string_view path) const {
    if (const element* whole = find(path)) return whole->is_null() ? std::nullopt : std::optional(*whole);
    const size_t dot = path.find('.');
    const element* outer = dot == path.npos ? nullptr : find(path.substr(0, dot));
    return outer == nullptr ? std::nullopt : dapo::field(*outer, path.substr(dot + 1));
  }
  const auto& members() const { return members_; }

 private:
  const element* find(std::string_view key) const {
    for (auto m = members_.rbegin(); m != members_.rend(); ++m)
      if (m->first == key) return &m->second;
    return nullptr;
  }
  std::vector<std::pair<std::string_view, element>> members_;
};

struct Found {
  element value;
  std::string_view key;
};
std::optional<Found> first_of(const Row& row, const std::string& override_key, Names keys, std::string_view where) {
  const auto found = [&](std::string_view key) -> std::optional<Found> {
    const auto v = row.field(key);
    if (!v) return std::nullopt;
    if (const auto type = v->is_object() ? field(*v, kUnreadable) : std::nullopt)
      fail_input("{}: column \"{}\" has type {}, which is not supported: store it as text or as numbers", where, key,
                 std::string_view(*type));
    return Found{*v, key};
  };
  if (!override_key.empty()) return found(override_key);
  for (const std::string_view key : keys)
    if (auto f = found(key)) return f;
  return std::nullopt;
}

/// "; the row has answer (null), id": for errors about missing fields.
std::string fields_text(const Row& row) {
  std::string out;
  for (const auto& [key, value] : row.members()) {
    if (out.size() > 200) {
      out += ", ...";
      break;
    }
    out += fmt::format("{}{}{}", out.empty() ? "" : ", ", key, value.is_null() ? " (null or NaN)" : "");
  }
  std::replace_if(
      out.begin(), out.end(), [](unsigned char c) { return c < ' '; }, '?');
  return out.empty() ? "; the row is empty" : "; the row has " + out;
}

bool equal_but_case(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](char x, char y) { return lower(x) == lower(y); });
}

/// What a row without the needed fields seems to be, and how to repair it: "" if unknown.
std::string way_out(const Row& row, const char* what, Names names) {
  const auto& members = row.members();
  const auto is_object = [](const element& e) { return e.is_object(); };
  const auto has = [&](std::string_view key) { return row.field(key).has_value(); };
  if ((has("from") && has("value")) || (has("role") && has("content")))
    return "; this row is one turn of a conversation: put the turns of each into {\"messages\": [...]}";
  if (members.size() == 1 && members[0].second.is_array()) {
    const simdjson::dom::array list = members[0].second;
    if (list.size() > 0 && std::all_of(list.begin(), list.end(), is_object))
      return fmt::format("; the rows are inside \"{}\": store only that list in the file", members[0].first);
  }
  if (members.size() > 1 &&
      std::all_of(members.begin(), members.end(), [&](const auto& m) { return is_object(m.second); }))
    return "; the rows are the values of one object: store them as a list";
  if (const auto judged = row.field("reward_model"); judged && judged->is_string())
    return "; \"reward_model\" is a text: store the object itself";
  for (const std::string_view name : names)
    for (const auto& [key, value] : members)
      if (!value.is_null() && key != name && equal_but_case(key, name))
        return fmt::format("; set data.{}_key = \"{}\" to use that field", what, key);
  return "";
}

[[noreturn]] void missing(const Row& row, std::string_view where, const char* what, const std::string& key,
                          Names names) {
  fail_input("{}: no {}: {} expected (data.{}_key selects another field){}{}", where, what,
             key.empty() ? fmt::format("one of {} is", listed(names)) : fmt::format("field \"{}\" is", key), what,
             fields_text(row), way_out(row, what, names));
}

/// Images and sound of a prompt would be lost.
void refuse_media(const Row& row, std::string_view where) {
  for (const std::string_view key : kMedia)
    if (const auto media = row.field(key); media && !(media->is_array() && simdjson::dom::array(*media).size() == 0))
      fail_input(
          "{}: the prompt comes with \"{}\", which a text-only model cannot take: leave such "
          "rows out, or drop the column to use the prompt without it",
          where, key);
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == text.npos;
}

/// The last message of a user must say something.
void refuse_blank_question(const std::vector<Message>& messages, std::string_view key, std::string_view where) {
  for (size_t i = messages.size(); i-- > 0;) {
    const Message& m = messages[i];
    if (m.role != "user") continue;
    if (is_blank(m.content) && m.more.empty())
      fail_input("{}: \"{}\"[{}], the user's message, is empty: expected a prompt", where, key, i);
    return;
  }
}

std::string text_of(const Found& f, std::string_view where) {
  return string_of(f.value, f.key, where);
}
}  // namespace

struct RowParser::State {
  DatasetOptions options;
  JsonParser parser;
  Row current;
  size_t rows = 0;

  bool asks() const { return options.need_answer && !options.need_response; }  ///< rows are for training or evaluation
  /// Returns the column of the prompt.
  std::string_view prompt(const Row& row, std::string_view where, Example& out) const;
  void text_prompt(const Row& row, const Found& found, std::string_view where, Example& out) const;
  void earlier_turns(const Row& row, std::string_view where, Example& out) const;
  void answer(const Row& row, std::string_view where, Example& out) const;
  void response(const Row& row, std::string_view asked_in, std::string_view where, Example& out) const;
};

RowParser::RowParser(const DatasetOptions& options) : state_(std::make_unique<State>()) {
  state_->options = options;
}
RowParser::~RowParser() = default;

bool RowParser::wants(std::string_view column) const {
  const auto starts = [&](std::string_view key) { return key == column || key.substr(0, key.find('.')) == column; };
  const DatasetOptions& o = state_->options;
  if (starts(o.prompt_key) || starts(o.answer_key) || starts(o.response_key)) return true;
  for (const Names names : {kPrompts, kAnswers, kResponses, kContexts, kSystems, kMedia, kOthers})
    if (std::any_of(names.begin(), names.end(), starts)) return true;
  return false;
}

std::string_view RowParser::State::prompt(const Row& row, std::string_view where, Example& out) const {
  auto found = first_of(row, options.prompt_key, kPrompts, where);
  if (!found) missing(row, where, "prompt", options.prompt_key, kPrompts);
  if (!found->value.is_array()) return text_prompt(row, *found, where, out), found->key;
  out.messages = messages_of(found->value, found->key, where);
  refuse_blank_question(out.messages, found->key, where);
  if (options.prompt_key.empty() && out.messages[0].role != "system") earlier_turns(row, where, out);
  // If answers are needed, the final assistant message of a prompt is a prefill, that of a conversation a response.
  const bool prefill = !options.prompt_key.empty() || found->key == "prompt";
  if (!asks() || prefill || out.messages.size() < 2 || out.messages.back().role != "assistant") return found->key;
  out.messages.clear();
  found = first_of(row, "", {"question", "problem"}, where);
  if (!found)
    fail_input(
        "{}: the conversation in \"messages\" or \"conversations\" ends with the assistant's turn, so it is not "
        "a prompt: drop that turn, or, to start every response with it, set data.prompt_key",
        where);
  text_prompt(row, *found, where, out);
  return found->key;
}

void RowParser::State::text_prompt(const Row& row, const Found& found, std::string_view where, Example& out) const {
  out.prompt = text_of(found, where);
  if (is_blank(out.prompt)) fail_input("{}: \"{}\" is empty: expected a prompt", where, found.key);
  if (holds_messages(out.prompt))
    fail_input("{}: \"{}\" is a string that holds messages: store the list of messages itself", where, found.key);
  if (!options.prompt_key.empty()) return;
  if (asks())
    for (const std::string_view key : {"choices", "options"})
      if (const auto choices = row.field(key); choices && (choices->is_array() || choices->is_object()))
        fail_input(
            "{}: \"{}\" has answer choices that \"{}\" does not show: write them into the prompt, or set "
            "data.prompt_key = \"{}\" to use the prompt without them",
            where, key, found.key, found.key);
  if (found.key == "instruction")
    if (const auto about = first_of(row, "", kContexts, where); about && !text_of(*about, where).empty())
      out.prompt += "\n\n" + text_of(*about, where);
  earlier_turns(row, where, out);
  if (!out.messages.empty()) out.messages.push_back({"user", std::exchange(out.prompt, "")});
}

/// Puts the columns `system` and `history` (pairs of question and response) before the row's own messages.
void RowParser::State::earlier_turns(const Row& row, std::string_view where, Example& out) const {
  std::vector<Message> turns;
  if (const auto system = first_of(row, "", kSystems, where); system && !text_of(*system, where).empty())
    turns.push_back({"system", text_of(*system, where)});
  if (const auto history = first_of(row, "", {"history"}, where); history && history->value.is_array())
    for (const element pair : simdjson::dom::array(history->value)) {
      simdjson::dom::array two;
      if (pair.get(two) != simdjson::SUCCESS || two.size() != 2)
        fail_input("{}: \"history\" is a list of [question, response] pairs", where);
      turns.push_back({"user", text_of({two.at(0), "history"}, where)});
      turns.push_back({"assistant", text_of({two.at(1), "history"}, where)});
    }
  out.messages.insert(out.messages.begin(), turns.begin(), turns.end());
}

void RowParser::State::answer(const Row& row, std::string_view where, Example& out) const {
  const auto found = first_of(row, options.answer_key, kAnswers, where);
  if (!found) {
    if (options.need_answer || !options.answer_key.empty()) missing(row, where, "answer", options.answer_key, kAnswers);
    return;
  }
  out.answer = answer_text(found->value, where, found->key);
  if (found->value.is_string()) {
    if (auto marked = marked_answer(out.answer)) {
      out.solution = std::exchange(out.answer, std::move(*marked));
    } else if (options.need_answer && !found->key.ends_with("ground_truth")) {
      const bool solution = found->key.ends_with("solution");
      const std::string why = options.answer_key.empty() || solution ? why_no_answer(out.answer, solution) : "";
      if (!why.empty())
        fail_input("{}: \"{}\" {}: no answer can be extracted; set data.answer_key to the column of the answers", where,
                   found->key, why);
    }
  }
  if (const auto solution = row.field("solution");
      out.solution.empty() && solution && solution->is_string() && found->key != "solution")
    out.solution = std::string(std::string_view(*solution));
  if (options.need_answer && is_blank(out.answer))
    fail_input("{}: \"{}\" is empty: expected an answer", where, found->key);
  if (options.need_answer &&
      (equal_but_case(out.answer, "nan") || out.answer == "<NA>" || out.answer == "NaT"))  // pandas, through str()
    fail_input("{}: \"{}\" is the text \"{}\", which programs write for a missing answer: leave such rows out", where,
               found->key, out.answer);
}

void RowParser::State::response(const Row& row, std::string_view asked_in, std::string_view where, Example& out) const {
  auto found = first_of(row, options.response_key, kResponses, where);
  if (!found && options.response_key.empty() && options.need_response && row.field("instruction"))
    found = first_of(row, "", {"output"}, where);
  const bool begun = !asks() && out.messages.size() > 1 && out.messages.back().role == "assistant";
  if (!found) {
    if (!options.response_key.empty() || (options.need_response && !begun))
      missing(row, where, "response", options.response_key, kResponses);
    if (!begun) return;
    out.response = response_of(std::move(out.messages.back()), asked_in, where);
    return out.messages.pop_back();
  }
  const bool list = found->value.is_array();
  if (list) {  // TRL's list of one message
    auto messages = messages_of(found->value, found->key, where);
    if (messages.size() != 1)
      fail_input("{}: \"{}\" has {} messages: expected one, the assistant's", where, found->key, messages.size());
    out.response = response_of(std::move(messages[0]), found->key, where);
  } else {
    out.response = text_of(*found, where);
  }
  if (!begun) return;
  if (out.messages.back().content == out.response) return out.messages.pop_back();  // the same response twice
  if (list || (asked_in != "prompt" && options.prompt_key.empty()))
    fail_input(
        "{}: \"{}\" ends with the assistant's turn, and \"{}\" is another one: drop one of them, or, if the "
        "response continues that turn, give \"prompt\" (messages) and \"response\" (text)",
        where, asked_in, found->key);
}

Example RowParser::parse(const char* json, size_t length, size_t capacity, std::string_view where) {
  State& s = *state_;
  const element value = s.parser.parse(json, length, capacity, where);
  if (!value.is_object())
    fail_input("{}: {} instead of an object: each row is {{\"prompt\": ..., \"answer\": ...}}", where, type_of(value));
  const Row& row = s.current;
  s.current.assign(value);

  Example out;
  if (s.options.format == RowFormat::countdown) {
    const auto numbers = first_of(row, "", {"input", "nums"}, where),
               target = first_of(row, "", {"output", "target"}, where);
    if (!numbers || !target)
      fail_input(
          "{}: a countdown row is {{\"input\":\"30,100,93\",\"output\":\"23\"}} or "
          "{{\"nums\":[30,100,93],\"target\":23}}",
          where);
    const auto task = parse_countdown(
        numbers->value.is_array() ? simdjson::minify(numbers->value) : answer_text(numbers->value, where, numbers->key),
        answer_text(target->value, where, target->key));
    if (!task)
      fail_input("{}: \"{}\" is not a list of integers, or \"{}\" is not an integer", where, numbers->key, target->key);
    out = countdown_example(*task);
  } else {
    if (s.options.prompt_key.empty()) refuse_media(row, where);
    const std::string_view asked_in = s.prompt(row, where, out);
    s.answer(row, where, out);
    s.response(row, asked_in, where, out);
    if (const auto tools = row.field("tools")) out.tools = tools_of(*tools, where);
    if (const auto more = row.field("chat_template_kwargs")) out.variables = variables_of(*more, where);
    if (const auto f = row.field("data_source"); f && f->is_string()) out.data_source = std::string_view(*f);
  }

  uint64_t h = hash64(out.prompt);
  for (const Message& m : out.messages) h = hash64(m.content, hash64("\n", hash64(m.role, hash64("\x1e", h))));
  for (const Message& m : out.messages)
    if (!m.more.empty()) h = hash64(m.more, hash64("\x1d", h));
  for (const std::string& shown : {out.tools, out.variables})
    if (!shown.empty()) h = hash64(shown, hash64("\x1d", h));
  out.problem = h;
  out.id = fmt::format("{}-{:016x}", s.rows++, hash64(out.answer, hash64("\x1f", h)));
  return out;
}

}  // namespace dapo
