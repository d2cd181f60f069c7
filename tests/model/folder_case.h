// A test with a model folder of its own.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "tests/testdata.h"

namespace dapo {

class Folder : public testing::Test {
 protected:
  void put(const std::string& name, const std::string& text) const { scratch_.write(name, text); }
  template <class F>
  std::string complaint(F&& f, int code = kExitUsage) const {
    try {
      f();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      return e.what();
    }
    return "";
  }
  const ScratchFolder scratch_;
  const std::string folder_ = scratch_.path();
};

}  // namespace dapo
