// Inside data/ and for the commands' rows: conversations, and what a chat template shows beside them.
#pragma once

#include <simdjson.h>

#include <string>
#include <string_view>
#include <vector>

#include "data/dataset.h"

namespace dapo {

/// Every function's Error (exit 2) opens with `where` and names `key`.
std::string string_of(const simdjson::dom::element& value, std::string_view key, std::string_view where);

/// A list of {"role", "content"} or ShareGPT's {"from", "value"}; other keys of a message that are not null go into
/// `more`. A content is text or a list of text parts; it may be absent beside "tool_calls".
std::vector<Message> messages_of(const simdjson::dom::element& list, std::string_view key, std::string_view where);

/// A response as text. Error where the message holds what its text alone would lose: reasoning, calls of tools.
std::string response_of(Message message, std::string_view key, std::string_view where);

/// A list of JSON schemas of functions, as a list or as JSON text, as compact JSON; "" for an empty text.
std::string tools_of(const simdjson::dom::element& value, std::string_view where);
/// An object of variables for the chat template (TRL's "chat_template_kwargs"), likewise.
std::string variables_of(const simdjson::dom::element& value, std::string_view where);

}  // namespace dapo
