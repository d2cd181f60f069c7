#include "core/check.h"
#include "host/commands.h"
#include "host/jsonl.h"
#include "tokenizer/chat.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

int run_tokenize_command(const TokenizeOptions& o) {
  const auto tokenizer = Tokenizer::load(o.model);
  const ChatTemplate chat = o.chat ? ChatTemplate::load(o.model) : ChatTemplate{};
  if (o.chat && chat.kind == ChatTemplate::kNone)
    fail_input("{}: the model has no chat template; leave out --chat", o.model);
  LineWriter out(o.out);
  read_rows(o.file, [&](const JsonRow& row) {
    if (o.decode) {
      out.line(JsonLine().add("text", tokenizer->decode(row.ids("ids"), !o.special)).str());
    } else if (o.chat) {
      std::vector<ChatMessage> messages;
      row.each("messages", [&](const JsonRow& m) {
        messages.push_back({m.text("role"), m.text_or("content", ""), m.has("tool_calls") ? m.json("tool_calls") : ""});
      });
      const std::string text = chat.render(messages, row.has("tools") ? row.json("tools") : "");
      out.line(JsonLine().add("text", text).add("ids", tokenizer->encode(text)).str());
    } else {
      out.line(JsonLine().add("ids", tokenizer->encode(row.text("text"), o.special)).str());
    }
  });
  out.commit();
  return 0;
}

}  // namespace dapo
