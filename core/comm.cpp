#include "core/comm.h"

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
  for (int r = 0; r < size(); ++r) {
    if (all[r].empty()) continue;
    int32_t code = 0;
    std::memcpy(&code, all[r].data(), sizeof code);
    throw AgreedError(code, fmt::format("rank {}: {}", r, all[r].substr(sizeof code)));
  }
}

}  // namespace dapo
