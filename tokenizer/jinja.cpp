#include "tokenizer/jinja.h"

#include <nlohmann/json.hpp>

#include "core/check.h"
#include "tokenizer/jinja_render.h"
#include "tokenizer/jinja_syntax.h"

namespace dapo::jinja {

namespace {

constexpr size_t kMaxSource = 1 << 20;

/// Builds values while parsing JSON.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return add(Value::none()); }
  bool boolean(bool v) override { return add(v); }
  bool number_integer(number_integer_t v) override { return add(int64_t{v}); }
  bool number_unsigned(number_unsigned_t v) override {
    return add(v <= static_cast<uint64_t>(INT64_MAX) ? Value(static_cast<int64_t>(v))
                                                     : Value::big(fmt::format("{}", v)));
  }
  bool number_float(number_float_t v, const string_t& written) override {
    return add(written.find_first_of(".eE") == written.npos ? Value::big(written) : Value(v));
  }
  bool string(string_t& v) override { return add(std::move(v)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(true); }
  bool start_array(size_t) override { return open(false); }
  bool key(string_t& name) override {
    open_.back().name = name;
    return true;
  }
  bool end_object() override {
    Value value(std::move(open_.back().dict));
    open_.pop_back();
    return add(std::move(value));
  }
  bool end_array() override {
    Value value = Value::sequence(Kind::list, std::move(open_.back().items));
    open_.pop_back();
    return add(std::move(value));
  }
  bool parse_error(size_t at, const std::string&, const nlohmann::json::exception&) override {
    problem = fmt::format("not valid JSON at byte {}", at);
    return false;
  }

  Value result;
  std::string problem;

 private:
  struct Open {
    bool object = false;
    std::string name;
    Dict dict;
    std::vector<Value> items;
  };
  bool open(bool object) {
    if (open_.size() >= 64) {
      problem = "nested deeper than 64 levels";
      return false;
    }
    open_.push_back({object, {}, {}, {}});
    return true;
  }
  bool add(Value value) {
    if (open_.empty())
      result = std::move(value);
    else if (open_.back().object)
      open_.back().dict.set(open_.back().name, std::move(value));
    else
      open_.back().items.push_back(std::move(value));
    return true;
  }
  std::vector<Open> open_;
};

}  // namespace

Template::Template(std::string_view source, std::string name)
    : name_(std::move(name)), shows_date_(source.find("strftime_now") != source.npos) {
  if (source.size() > kMaxSource)
    fail_input("{}: a template of {} bytes, more than the {} that one may have", name_, source.size(), kMaxSource);
  body_ = std::make_shared<const std::vector<StmtPtr>>(parse(source, name_));
}

std::string Template::render(const Dict& variables) const {
  try {
    return Renderer(name_).run(*body_, variables);
  } catch (const Error& e) {  // from values, which know neither template nor line
    if (std::string_view(e.what()).starts_with(name_)) throw;
    throw Error(e.code(), fmt::format("{}: {}", name_, e.what()));
  }
}

namespace {
std::time_t& time_of_templates() {
  static std::time_t now = std::time(nullptr);
  return now;
}
}  // namespace

std::time_t template_time() {
  return time_of_templates();
}

void set_template_time(std::time_t time) {
  time_of_templates() = time;
}

Value from_json(std::string_view text, std::string_view what) {
  Builder builder;
  if (!nlohmann::json::sax_parse(text, &builder)) fail_input("{}: {}", what, builder.problem);
  return builder.result;
}

}  // namespace dapo::jinja
