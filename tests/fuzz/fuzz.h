// A small fuzzer that mutates seeds; with VARIANT=fuzz an input that reaches a new branch becomes a seed itself.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace dapo::fuzz {

struct Target {
  std::string name;
  size_t runs;  ///< in the short pass, about a second
  /// Reads one input: true if accepted, Error (exit 2) or false if rejected. Any other exception is a failure.
  bool (*read)(std::string_view input);
  std::vector<std::string> seeds;
  std::vector<std::string> words;  ///< inserted into inputs
};

const std::vector<Target>& targets();

/// Asserts a property of an accepted input; throws std::logic_error if it does not hold.
void expect(bool holds, const char* what);

}  // namespace dapo::fuzz
