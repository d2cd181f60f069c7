#include "core/check.h"
#include "host/app/commands.h"
#include "host/app/json_lines.h"
#include "tokenizer/chat.h"
#include "tokenizer/tokenizer.h"

namespace dapo {
namespace {

/// If the last message is the assistant's, it is continued, unless the row sets the arguments of apply_chat_template.
ChatEnd end_of(const JsonRow& row) {
  std::string last;
  row.each("messages", [&](const JsonRow& m) { last = m.text_or("role", ""); });
  if (row.has("continue_final_message") ? row.flag("continue_final_message")
                                        : !row.has("add_generation_prompt") && last == "assistant")
    return ChatEnd::continued;
  return !row.has("add_generation_prompt") || row.flag("add_generation_prompt") ? ChatEnd::prompt : ChatEnd::closed;
}

/// {"messages"[, "tools"][, "chat_template_kwargs"]} rendered by the model's template.
std::string render_row(const ChatTemplate& chat, const JsonRow& row) {
  try {
    return chat.render_json(row.json("messages"), {row.tools(), row.variables()}, end_of(row));
  } catch (const Error& e) {
    if (e.code() != kExitUsage) throw;
    row.fail_here(e.what());
  }
}

}  // namespace

int run_tokenize_command(const TokenizeOptions& o) {
  const auto tokenizer = Tokenizer::load(o.model);
  const ChatTemplate chat = o.chat ? ChatTemplate::load(o.model) : ChatTemplate{};
  if (o.chat && !chat) fail_input("{}: the model has no chat template; leave out --chat", o.model);
  check_output(o.out, {o.file});
  LineWriter out(o.out);
  read_rows(o.file, [&](const JsonRow& row) {
    if (o.decode) {
      out.line(JsonLine().add("text", tokenizer->decode(row.ids("ids"), !o.special)).str());
    } else if (o.chat) {
      const std::string text = render_row(chat, row);
      out.line(JsonLine().add("text", text).add("ids", tokenizer->encode(text)).str());
    } else {
      out.line(JsonLine().add("ids", tokenizer->encode(row.text("text"), o.special)).str());
    }
  });
  out.commit();
  return 0;
}

}  // namespace dapo
