// A small fuzzer: seeds, mutated; with VARIANT=fuzz an input that reaches a new branch becomes a seed itself.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace dapo::fuzz {

struct Target {
  std::string name;
  size_t runs;  ///< of the short pass, about a second's
  /// Reads one input: true where it is accepted, Error (exit 2) or false where refused. What it finds to be wrong it
  /// throws as any other exception.
  bool (*read)(std::string_view input);
  std::vector<std::string> seeds;
  std::vector<std::string> words;  ///< put into inputs
};

const std::vector<Target>& targets();

/// What holds of an accepted input; std::logic_error otherwise.
void expect(bool holds, const char* what);

}  // namespace dapo::fuzz
