// A test with its own files of rows.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "data/dataset.h"
#include "tests/testdata.h"

namespace dapo {

class Rows : public ::testing::Test {
 protected:
  Dataset load(const std::string& text, const DatasetOptions& options = {}, const std::string& name = "f.jsonl") {
    return Dataset::load(scratch_.write(name, text), options);
  }
  /// The error for one row if answers are needed.
  std::string answer(const std::string& row) { return load(row, asked())[0].answer; }
  std::string refused(const std::string& text, const DatasetOptions& options = {},
                      const std::string& name = "f.jsonl") {
    return error_of(kExitUsage, [&] { load(text, options, name); });
  }
  static DatasetOptions asked() {
    DatasetOptions o;
    o.need_answer = true;
    return o;
  }
  static DatasetOptions tuned() {
    DatasetOptions o;
    o.need_response = true;
    return o;
  }
  void expect_in(const std::string& message, const std::string& part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
  const ScratchFolder scratch_;
};

}  // namespace dapo
