// A test with its own model folder.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "tests/testdata.h"

namespace dapo {

class Folder : public testing::Test {
 protected:
  void put(const std::string& name, const std::string& text) const { scratch_.write(name, text); }
  /// The message of the Error (exit 2) that f() throws; "" if it throws none.
  template <class F>
  std::string complaint(F&& f) const {
    return message_of(kExitUsage, f);
  }
  const ScratchFolder scratch_;
  const std::string folder_ = scratch_.path();
};

}  // namespace dapo
