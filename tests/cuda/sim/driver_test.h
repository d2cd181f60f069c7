// What tests of the simulated driver share: whatever they set is put back, and the errors that they cause are judged.
#pragma once

#include <gtest/gtest.h>

#include <functional>

#include "core/check.h"
#include "sim/cuda_runtime.h"
#include "sim/sim.h"

namespace dapo {

class DriverTest : public ::testing::Test {
 protected:
  void TearDown() override {
    sim::fail_call(0, 0);
    sim::reset_device();
  }
  /// f() throws an Error with this code, one line that says `part`.
  static void expect_error(int code, const std::string& part, const std::function<void()>& f) {
    try {
      f();
      FAIL() << "no error: " << part;
    } catch (const Error& e) {
      const std::string text = e.what();
      EXPECT_EQ(e.code(), code) << text;
      EXPECT_NE(text.find(part), std::string::npos) << text;
      EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    }
  }
};

}  // namespace dapo
