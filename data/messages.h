// Internal to data/ and for the rows of commands: conversations, and a chat template's other arguments.
#pragma once

#include <simdjson.h>

#include <string>
#include <string_view>
#include <vector>

#include "data/dataset.h"

namespace dapo {

/// The Error (exit 2) of every function starts with `where` and names `key`.
std::string string_of(const simdjson::dom::element& value, std::string_view key, std::string_view where);

/// A list of {"role", "content"} or ShareGPT's {"from", "value"}; other non-null keys of a message go into `more`. The
/// content is text or a list of text parts; it may be absent if there are "tool_calls".
std::vector<Message> messages_of(const simdjson::dom::element& list, std::string_view key, std::string_view where);

/// Whether a text is a list of messages, or one, as JSON or as Python's str() or numpy writes it.
bool holds_messages(std::string_view text);

/// A response as text. Error if the message has content that its text alone would lose: reasoning, tool calls.
std::string response_of(Message message, std::string_view key, std::string_view where);

/// A list of JSON schemas of functions, given as a list or as JSON text, in compact JSON; "" for an empty text.
std::string tools_of(const simdjson::dom::element& value, std::string_view where);
/// An object of variables for the chat template (TRL's "chat_template_kwargs"), likewise.
std::string variables_of(const simdjson::dom::element& value, std::string_view where);

}  // namespace dapo
