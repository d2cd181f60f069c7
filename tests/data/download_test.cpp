#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>

namespace {

TEST(Download, FromALocalHub) {
  const char* script = "tests/data/download_test.sh";
  if (!std::filesystem::exists(script)) GTEST_SKIP() << "skipped: not run from the project's root";
  const int status = std::system(script);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "skipped: python3 or curl is not installed";
  EXPECT_EQ(status, 0);
}

}  // namespace
