// Reads what Hopper's instructions did on an H100: the project's own part of the records (tests/goldens/hopper), or all
// of them from outside (hopper/vectors.tar.xz).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace dapo {

/// An array or a text, by its name in the file. Elements are kept as 64 bits: integers, or the bits of an f32.
struct Record {
  std::string text;
  std::vector<std::size_t> dims;
  std::vector<std::uint64_t> values;
  std::uint32_t word(std::size_t i) const { return static_cast<std::uint32_t>(values[i]); }
  /// Of a record of floats, which may be stored as integers.
  float number(std::size_t i) const;
  bool integers = false;
};
using Vectors = std::map<std::string, Record>;

/// The records of a case. Empty if neither place has it: a few large ones are outside alone.
Vectors vectors(const std::string& name);
/// The number after `key` in a record's text; fails the test if it is not there.
long number_after(const std::string& text, const std::string& key);

}  // namespace dapo
