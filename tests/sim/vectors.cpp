#include "tests/sim/vectors.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstdlib>
#include <cstring>

#include "tests/testdata.h"

namespace dapo {
namespace {

/// A file: "VEC1\n", then records: a line "name type d0 d1 ...", the elements as byte planes (byte 0 of all, then
/// byte 1 of all, ...), a newline.
Vectors read(const std::string& path) {
  const std::string data = slurp(path);
  if (!data.starts_with("VEC1\n")) fail(kExitUsage, "{}: does not begin with VEC1", path);
  static const std::map<std::string, std::size_t> sizes = {{"u8", 1},  {"u16", 2}, {"u32", 4}, {"u64", 8},
                                                           {"i16", 2}, {"i32", 4}, {"f32", 4}, {"txt", 1}};
  Vectors out;
  for (std::size_t at = 5; at < data.size();) {
    const std::size_t end = data.find('\n', at);
    std::istringstream head(data.substr(at, end - at));
    std::vector<std::string> words;
    for (std::string w; head >> w;) words.push_back(w);
    // A few names have spaces: the type is the last word that is one.
    std::size_t t = words.size() - 1;
    while (t > 0 && !sizes.contains(words[t])) --t;
    std::string name = words[0];
    for (std::size_t i = 1; i < t; ++i) name += " " + words[i];
    Record& r = out[name];
    std::size_t n = 1;
    for (std::size_t i = t + 1; i < words.size(); ++i) {
      r.dims.push_back(std::stoul(words[i]));
      n *= r.dims.back();
    }
    const std::string& type = words[t];
    const std::size_t bytes = sizes.at(type);
    if (type == "txt") {
      r.text = data.substr(end + 1, n);
    } else {
      r.integers = type != "f32";
      r.values.resize(n);
      for (std::size_t b = 0; b < bytes; ++b)
        for (std::size_t i = 0; i < n; ++i)
          r.values[i] |= std::uint64_t{static_cast<unsigned char>(data[end + 1 + b * n + i])} << 8 * b;
      if (type == "i16")
        for (auto& v : r.values) v = static_cast<std::uint64_t>(static_cast<std::int16_t>(v));
    }
    at = end + 1 + n * bytes + 1;
  }
  return out;
}

/// The folder of the files from outside, unpacked once a process; "" if they are absent or cannot be unpacked.
std::string outside() {
  static const std::string folder = [] {
    const std::string archive = test_data("hopper/vectors.tar.xz");
    if (archive.empty()) return std::string();
    static ScratchFolder scratch;
    const std::string command = "tar xJf '" + archive + "' -C '" + scratch.path() + "' 2>/dev/null";
    return std::system(command.c_str()) == 0 ? scratch.path("v/") : std::string();
  }();
  return folder;
}

}  // namespace

float Record::number(std::size_t i) const {
  return integers ? static_cast<float>(static_cast<std::int64_t>(values[i])) : std::bit_cast<float>(word(i));
}

Vectors vectors(const std::string& name) {
  for (const char* end : {".bin", ".partial"})
    if (const std::string path = outside() + name + end; !outside().empty() && std::filesystem::exists(path))
      return read(path);
  const char* root = std::getenv("DAPO_TEST_GOLDENS");
  const std::string own = std::string(root ? root : "tests/goldens") + "/hopper/" + name + ".bin.gz";
  return std::filesystem::exists(own) ? read(own) : Vectors();
}

long number_after(const std::string& text, const std::string& key) {
  const std::size_t at = text.find(key);
  if (at == std::string::npos) {
    ADD_FAILURE() << "no \"" << key << "\" in: " << text;
    return 0;
  }
  return std::strtol(text.c_str() + at + key.size(), nullptr, 0);
}

}  // namespace dapo
