#include "host/app/version.h"

#include <fmt/format.h>

#include "host/app/backends.h"

#ifndef DAPO_COMMIT
#define DAPO_COMMIT ""
#endif

namespace dapo {

std::string version_commit() {
  const std::string commit = DAPO_COMMIT;
  return commit.empty() ? "unknown" : commit;
}

std::string version_text() {
  return fmt::format("{} (commit {}, g++ {}, {} CUDA)", kVersion, version_commit(), __VERSION__,
                     built_with_cuda() ? "with" : "without");
}

}  // namespace dapo
