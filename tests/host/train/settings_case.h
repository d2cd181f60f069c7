// Config files in a scratch folder, for tests of settings.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/check.h"
#include "host/train/settings.h"
#include "tests/testdata.h"

namespace dapo {

inline const std::string kLeast = "[model]\npath = \"m\"\n[data]\ntrain_files = [\"t.jsonl\"]\n";

class ConfigTest : public ::testing::Test {
 protected:
  std::string file(const std::string& text) { return scratch_.write("a.cfg", text); }
  /// The message of the error that loading gives, with the file's path cut to "a.cfg"; "" where there is none.
  std::string error(const std::string& text, const std::vector<std::string>& settings = {}, Use use = Use::train) {
    const std::string path = file(text);
    try {
      load_config(path, settings, use);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), kExitUsage);
      std::string what = e.what();
      EXPECT_EQ(what.find('\n'), std::string::npos) << what;
      if (const size_t at = what.find(path); at != std::string::npos) what.replace(at, path.size(), "a.cfg");
      return what;
    }
    return "";
  }

  const ScratchFolder scratch_;
  const std::filesystem::path folder_ = scratch_.path();
};

}  // namespace dapo
