#include "host/app/json_lines.h"

#include <fmt/format.h>
#include <simdjson.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "data/json_row.h"
#include "data/lines.h"
#include "data/messages.h"
#include "host/app/streams.h"

namespace dapo {
namespace dom = simdjson::dom;
namespace fs = std::filesystem;

struct JsonRow::Impl {
  std::string where;
  dom::object object;

  dom::element at(const char* field) const {
    dom::element value;
    if (object.at_key(field).get(value) != simdjson::SUCCESS) fail_input("{}: \"{}\" is missing", where, field);
    return value;
  }
};

bool JsonRow::has(const char* field) const {
  dom::element value;
  return impl_.object.at_key(field).get(value) == simdjson::SUCCESS && !value.is_null();
}

bool JsonRow::is_text(const char* field) const {
  const dom::element value = impl_.at(field);
  return value.is_string() || value.is_number();
}

std::string JsonRow::text(const char* field) const {
  const dom::element value = impl_.at(field);
  std::string_view text;
  if (value.get(text) == simdjson::SUCCESS) return std::string(text);
  if (value.is_number()) return simdjson::minify(value);
  fail_input("{}: \"{}\" is not a string", impl_.where, field);
}

std::string JsonRow::text_or(const char* field, const std::string& absent) const {
  return has(field) ? text(field) : absent;
}

int64_t JsonRow::integer(const char* field) const {
  int64_t n = 0;
  if (impl_.at(field).get(n) != simdjson::SUCCESS) fail_input("{}: \"{}\" is not an integer", impl_.where, field);
  return n;
}

bool JsonRow::flag(const char* field) const {
  bool value = false;
  if (impl_.at(field).get(value) != simdjson::SUCCESS)
    fail_input("{}: \"{}\" is not true or false", impl_.where, field);
  return value;
}

std::vector<int32_t> JsonRow::ids(const char* field) const {
  dom::array list;
  if (impl_.at(field).get(list) != simdjson::SUCCESS) fail_input("{}: \"{}\" is not a list of ids", impl_.where, field);
  std::vector<int32_t> ids;
  for (const dom::element one : list) {
    int64_t id = -1;
    if (one.get(id) != simdjson::SUCCESS || id < 0 || id > std::numeric_limits<int32_t>::max())
      fail_input("{}: \"{}\"[{}] is not a token id", impl_.where, field, ids.size());
    ids.push_back(id);
  }
  return ids;
}

std::string JsonRow::json(const char* field) const {
  return simdjson::minify(impl_.at(field));
}

std::string JsonRow::answer(const char* field) const {
  return answer_text(impl_.at(field), impl_.where, field);
}

std::vector<Message> JsonRow::messages(const char* field) const {
  const dom::element value = impl_.at(field);
  if (!value.is_array()) fail_input("{}: \"{}\" is not a list of messages", impl_.where, field);
  return messages_of(value, field, impl_.where);
}

std::string JsonRow::tools() const {
  return has("tools") ? tools_of(impl_.at("tools"), impl_.where) : "";
}

std::string JsonRow::variables() const {
  return has("chat_template_kwargs") ? variables_of(impl_.at("chat_template_kwargs"), impl_.where) : "";
}

void JsonRow::each(const char* field, const std::function<void(const JsonRow&)>& f) const {
  dom::array list;
  if (impl_.at(field).get(list) != simdjson::SUCCESS) fail_input("{}: \"{}\" is not a list", impl_.where, field);
  size_t i = 0;
  for (const dom::element one : list) {
    Impl inner{fmt::format("{}: \"{}\"[{}]", impl_.where, field, i++), {}};
    if (one.get(inner.object) != simdjson::SUCCESS) fail_input("{} is not an object", inner.where);
    f(JsonRow(inner));
  }
}

void JsonRow::fail_here(const std::string& what) const {
  fail_input("{}: {}", impl_.where, what);
}

void read_rows(const std::string& path, const std::function<void(const JsonRow&)>& f) {
  LineReader lines(path);
  JsonParser parser;
  size_t rows = 0;
  for (std::string_view line; lines.next(line); ++rows) {
    JsonRow::Impl row{fmt::format("{}:{}", lines.name(), lines.number()), {}};
    const dom::element value = parser.parse(line.data(), line.size(), line.size() + kLinePadding, row.where);
    if (value.get(row.object) != simdjson::SUCCESS) fail_input("{}: not a JSON object", row.where);
    f(JsonRow(row));
  }
  if (rows == 0) fail_input("{}: has no rows; expected one JSON object per line", lines.name());
}

namespace {
/// Whether a file begins with a row of generate, eval, score, tokenize or verify.
bool holds_our_rows(const std::string& path) {
  std::string line(1 << 20, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(line.data(), static_cast<std::streamsize>(line.size()));
  line.resize(static_cast<size_t>(file.gcount()));
  line.resize(std::min(line.find('\n'), line.size()));
  if (!line.starts_with('{')) return false;
  const auto has = [&](const char* key) { return line.find(key) != line.npos; };
  return has("\"ids\": [") || has("\"acc\": ") || has("\"log_probs\": [") || has("\"finish_reason\": \"");
}
}  // namespace

void check_output(const std::string& out, const std::vector<std::string>& inputs) {
  std::error_code none;
  if (out.empty() || out == "-" || !fs::is_regular_file(out, none)) return;
  for (const std::string& input : inputs)
    if (fs::equivalent(out, input, none)) fail_input("{}: is an input of this command; name another file", out);
  if (fs::file_size(out, none) > 0 && !holds_our_rows(out))
    fail_input("{}: exists, and no command of this program wrote it, so it is left alone; name another file", out);
}

LineWriter::LineWriter(const std::string& path) {
  if (path.empty() || path == "-") {
    file_ = stdout;
    return;
  }
  std::error_code none;
  const fs::path target =
      fs::weakly_canonical(path, none);  // an existing target of a symbolic link is written, and the link stays
  path_ = none ? path : target.string();
  if (fs::is_directory(path_, none)) fail_input("{}: is a folder; name a file", path);
  // A pipe, a terminal, /dev/null: only a regular file can be replaced by rename.
  const bool renamed = !fs::exists(path_, none) || fs::is_regular_file(path_, none);
  for (int i = 0; file_ == nullptr; ++i) {  // never overwrite a file that happens to have the temporary name
    fresh_ = renamed ? fmt::format("{}.{}{}.tmp", path_, getpid(), i > 0 ? fmt::format("-{}", i) : "") : path_;
    file_ = std::fopen(fresh_.c_str(), renamed ? "wbxe" : "wbe");
    if (file_ == nullptr && (errno != EEXIST || !renamed))
      fail_input("{}: cannot be written: {}", path, std::strerror(errno));
  }
}

LineWriter::~LineWriter() {
  if (file_ == stdout || file_ == nullptr) return;
  std::fclose(file_);
  if (fresh_ != path_) std::remove(fresh_.c_str());
}

void LineWriter::refused(int error) const {
  if (path_.empty()) check_standard_output();
  fail(kExitResources, "{}: cannot be written: {}", path_.empty() ? "<stdout>" : path_, std::strerror(error));
}

void LineWriter::line(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), file_) != text.size() || std::fputc('\n', file_) == EOF) refused(errno);
}

void LineWriter::flush() {
  if (std::fflush(file_) != 0) refused(errno);
}

void LineWriter::commit() {
  commit_as(path_);
}

std::string LineWriter::commit_partial() {
  const std::string to = fresh_ == path_ ? path_ : path_ + ".partial";
  commit_as(to);
  return path_.empty() ? "<stdout>" : to;
}

void LineWriter::commit_as(const std::string& path) {
  flush();
  if (file_ == stdout) return;
  const int closed = std::fclose(file_);
  file_ = nullptr;
  if (closed == 0 && (fresh_ == path_ || std::rename(fresh_.c_str(), path.c_str()) == 0)) return;
  const int error = errno;
  if (fresh_ != path_) std::remove(fresh_.c_str());
  refused(error);
}

std::string& JsonLine::begin(std::string_view key) {
  if (text_.size() > 1) text_ += ", ";
  text_ += nlohmann::json(key).dump();
  text_ += ": ";
  return text_;
}

namespace {
std::string json_string(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}
/// The shortest text that parses back to the same number.
template <class T>
void append_number(std::string& out, T x) {
  if constexpr (std::is_floating_point_v<T>)
    if (!std::isfinite(x)) {
      out += "null";
      return;
    }
  fmt::format_to(std::back_inserter(out), "{}", x);
}
template <class T>
void append_list(std::string& out, const std::vector<T>& list) {
  out += '[';
  for (size_t i = 0; i < list.size(); ++i) {
    if (i > 0) out += ", ";
    append_number(out, list[i]);
  }
  out += ']';
}
}  // namespace

JsonLine& JsonLine::add(std::string_view key, std::string_view text) {
  begin(key) += json_string(text);
  return *this;
}
JsonLine& JsonLine::add(std::string_view key, double number) {
  append_number(begin(key), number);
  return *this;
}
JsonLine& JsonLine::add(std::string_view key, float number) {
  append_number(begin(key), number);
  return *this;
}
JsonLine& JsonLine::add(std::string_view key, bool value) {
  begin(key) += value ? "true" : "false";
  return *this;
}
JsonLine& JsonLine::add(std::string_view key, int64_t number) {
  append_number(begin(key), number);
  return *this;
}
JsonLine& JsonLine::add(std::string_view key, const std::vector<int32_t>& list) {
  append_list(begin(key), list);
  return *this;
}
JsonLine& JsonLine::add(std::string_view key, const std::vector<float>& list) {
  append_list(begin(key), list);
  return *this;
}
JsonLine& JsonLine::add(std::string_view key, const std::vector<std::string>& list) {
  std::string& out = begin(key) += '[';
  for (size_t i = 0; i < list.size(); ++i) (out += i > 0 ? ", " : "") += json_string(list[i]);
  out += ']';
  return *this;
}

}  // namespace dapo
