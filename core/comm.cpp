#include "core/comm.h"

#include <algorithm>
#include <cstring>

namespace dapo {

void Comm::agree(const std::optional<Error>& error) {
  if (size() == 1) {
    if (error) throw *error;
    return;
  }
  // The exit code, then the text; nothing where there is no error.
  std::string mine;
  if (error) {
    const int32_t code = error->code();
    mine.assign(reinterpret_cast<const char*>(&code), sizeof code).append(error->what());
  }
  const std::vector<std::string> all = all_gather_bytes(mine);
  const auto first = std::find_if(all.begin(), all.end(), [](const std::string& text) { return !text.empty(); });
  if (first == all.end()) return;
  int32_t code = 0;
  std::memcpy(&code, first->data(), sizeof code);
  const std::string text = first->substr(sizeof code);
  if (std::count(all.begin(), all.end(), *first) == size()) throw AgreedError(code, text);
  throw AgreedError(code, fmt::format("rank {}: {}", first - all.begin(), text));
}

}  // namespace dapo
