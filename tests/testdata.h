// Where tests find their inputs: the project's own goldens (tests/goldens/README.md), and larger ones outside, in
// $DAPO_TEST_DATA or else in ../shared/data beside the project; and how they read a file and an error.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"

namespace dapo {

/// Path of one of the project's own goldens; tests run in the project's root, or are given $DAPO_TEST_GOLDENS.
inline std::string golden(const std::string& relative) {
  const char* root = std::getenv("DAPO_TEST_GOLDENS");
  const std::filesystem::path path = std::filesystem::path(root ? root : "tests/goldens") / relative;
  if (!std::filesystem::exists(path))
    fail(kExitUsage, "{} is absent: run tests in the project's root, or set DAPO_TEST_GOLDENS", path.string());
  return path.string();
}

/// Path of a test input from outside, or "" where it is absent.
inline std::string test_data(const std::string& relative) {
  const char* root = std::getenv("DAPO_TEST_DATA");
  const std::filesystem::path path = std::filesystem::path(root ? root : "../shared/data") / relative;
  return std::filesystem::exists(path) ? path.string() : std::string();
}

/// The project's own golden and, where it is present, a larger one of the same layout from outside.
inline std::vector<std::string> golden_files(const std::string& own, const std::string& outside) {
  std::vector<std::string> paths = {golden(own)};
  if (std::string more = test_data(outside); !more.empty()) paths.push_back(std::move(more));
  return paths;
}

/// The message of the Error that `f` throws, which must have exit code `code`; "" if it throws none.
template <class F>
std::string message_of(int code, F&& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "";
}

/// The same where `f` must throw.
template <class F>
std::string error_of(int code, F&& f) {
  const std::string message = message_of(code, f);
  EXPECT_NE(message, "") << "no error";
  return message;
}

/// A folder of its own, removed with it.
class ScratchFolder {
 public:
  explicit ScratchFolder(const std::filesystem::path& in = std::filesystem::temp_directory_path()) {
    std::string name = (in / "dapo_test_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) fail(kExitResources, "{}: cannot be made", name);
    path_ = name;
  }
  ~ScratchFolder() {
    if (getpid() != owner_) return;  // a forked child that ends by exit()
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  /// The path of a file in it, which then holds `text`.
  std::string write(const std::string& name, std::string_view text) const {
    const std::filesystem::path path = path_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return path.string();
  }
  std::string path(const std::string& name = "") const {
    return name.empty() ? path_.string() : (path_ / name).string();
  }

 private:
  const pid_t owner_ = getpid();
  std::filesystem::path path_;
};

/// What a file holds, unpacked if it is gzip; "" where it is absent.
inline std::string slurp(const std::filesystem::path& path) {
  std::string text;
  const gzFile file = gzopen(path.c_str(), "rb");
  char part[1 << 16];
  for (int n; file != nullptr && (n = gzread(file, part, sizeof part)) > 0;) text.append(part, static_cast<size_t>(n));
  gzclose(file);
  return text;
}

}  // namespace dapo

/// Declares `variable` as the path of a test input from outside, or skips the test and names what is absent.
#define REQUIRE_DATA(variable, relative)                    \
  const std::string variable = ::dapo::test_data(relative); \
  if (variable.empty()) GTEST_SKIP() << "skipped: test data " << (relative) << " is absent (DAPO_TEST_DATA)"
