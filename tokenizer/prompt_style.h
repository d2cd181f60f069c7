// How a dataset's prompt becomes the text that is encoded.
#pragma once

#include <cstdint>
#include <string_view>

namespace dapo {

enum class PromptStyle : uint8_t {
  automatic,  ///< chatml if the model has a chat template, else raw
  raw,        ///< the contents verbatim, joined by newlines
  chatml,     ///< through the model's chat template
  dapo,       ///< the last user turn in the DAPO wrapper (unless it already is), then as automatic
};
constexpr std::string_view choices(PromptStyle) {
  return "auto|raw|chatml|dapo";
}

}  // namespace dapo
