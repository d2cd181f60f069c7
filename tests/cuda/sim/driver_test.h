// The base of tests of the simulated driver: restores what they set, and checks the errors that they cause.
#pragma once

#include <gtest/gtest.h>

#include <functional>

#include "sim/cuda_runtime.h"
#include "sim/sim.h"
#include "tests/testdata.h"

namespace dapo {

class DriverTest : public ::testing::Test {
 protected:
  void TearDown() override {
    sim::fail_call(0, 0);
    sim::reset_device();
  }
  /// f() throws an Error with this code, one line that contains `part`.
  static void expect_error(int code, const std::string& part, const std::function<void()>& f) {
    const std::string text = error_of(code, f);
    EXPECT_NE(text.find(part), std::string::npos) << part << ": " << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  }
};

}  // namespace dapo
