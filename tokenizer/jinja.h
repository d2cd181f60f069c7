// Chat templates: the part of Jinja that they use, rendered as in transformers (its sandbox, trim_blocks,
// lstrip_blocks, break and continue, {% generation %}, raise_exception, strftime_now, its tojson). Bounded in steps,
// memory, depth and output; every failure is an Error (exit 2) that names the template and the line.
//
//   const jinja::Template t("{% for m in messages %}{{ m.content }}{% endfor %}", "chat_template.jinja");
//   jinja::Dict variables;
//   variables.set("messages", jinja::from_json(R"([{"role": "user", "content": "Hi"}])", "messages"));
//   std::string text = t.render(variables);
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/jinja_value.h"

namespace dapo::jinja {

struct Stmt;

class Template {
 public:
  /// Parses `source`; every error starts with `name`.
  Template(std::string_view source, std::string name);
  /// Safe to call from many threads.
  std::string render(const Dict& variables) const;
  bool shows_date() const { return shows_date_; }  ///< calls strftime_now

 private:
  std::string name_;
  bool shows_date_;
  std::shared_ptr<const std::vector<std::unique_ptr<Stmt>>> body_;
};

/// The time for strftime_now: fixed for the whole process, so that prompts do not change at midnight.
std::time_t template_time();
/// Sets it, for a run that goes on: call it before any prompt is written.
void set_template_time(std::time_t time);

/// JSON text as a value. Error if it is not JSON; `what` names the text.
Value from_json(std::string_view text, std::string_view what);

}  // namespace dapo::jinja
