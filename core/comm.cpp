#include "core/comm.h"

#include <algorithm>
#include <cstring>

namespace dapo {

void Comm::agree(const std::optional<Error>& error, bool named) {
  if (size() == 1) {
    if (error) throw *error;
    return;
  }
  // The exit code, whether the rank is named, then the text; nothing where there is no error.
  struct Head {
    int32_t code, named;
  } head{};
  std::string mine;
  if (error) {
    head = {error->code(), named};
    mine.assign(reinterpret_cast<const char*>(&head), sizeof head).append(error->what());
  }
  const std::vector<std::string> all = all_gather_bytes(mine);
  const auto first = std::find_if(all.begin(), all.end(), [](const std::string& text) { return !text.empty(); });
  if (first == all.end()) return;
  std::memcpy(&head, first->data(), sizeof head);
  const std::string text = first->substr(sizeof head);
  if (head.named != 0) throw AgreedError(head.code, text);
  if (std::count(all.begin(), all.end(), *first) == size()) throw AgreedError(head.code, text, false);
  throw AgreedError(head.code, fmt::format("rank {}: {}", world_rank(static_cast<int>(first - all.begin())), text));
}

}  // namespace dapo
