// The program's version.
#pragma once

#include <string>

namespace dapo {

inline constexpr const char* kVersion = "0.1";

/// The commit that was built ("27617bb64a3c", with "-dirty" if files differed from it); "unknown" outside a git clone.
std::string version_commit();
/// "0.1 (commit 27617bb64a3c, g++ 12.2.0, without CUDA)".
std::string version_text();

}  // namespace dapo
