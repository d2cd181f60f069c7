#include "host/train/encode_prompts.h"

#include "core/check.h"

namespace dapo {

EncodedPrompts encode_prompts(const DataSection& section, const PromptEncoder& encoder, const Dataset& data,
                              std::string_view purpose, size_t most) {
  EncodedPrompts out;
  for (size_t i = 0; i < data.size() && out.ids.size() < most; ++i) {
    std::vector<int32_t> ids = encoder.encode(data[i]);
    if (!ids.empty() && std::ssize(ids) <= section.max_prompt_length) {
      out.examples.push_back(i);
      out.ids.push_back(std::move(ids));
      continue;
    }
    if (section.overlong_prompts == OverlongPrompts::error)
      fail_input(
          "{} row {}: a prompt of {} tokens; 1 to data.max_prompt_length = {} are allowed (or set "
          "data.overlong_prompts = \"drop\")",
          purpose, data[i].id, ids.size(), section.max_prompt_length);
    ++out.dropped;
  }
  if (out.ids.empty())
    fail_input("no {} prompt is left: {} rows, {} empty or longer than data.max_prompt_length = {}", purpose,
               data.size(), out.dropped, section.max_prompt_length);
  return out;
}

}  // namespace dapo
