#include "host/app/event_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>

namespace dapo {
namespace fs = std::filesystem;
namespace {

constexpr const char* kPrefix = "events.out.tfevents.";

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = c >> 1 ^ (c & 1 ? 0x82F63B78u : 0);
    table[i] = c;
  }
  return table;
}();

template <class Word>
std::string little_endian(Word word) {
  std::string out;
  for (size_t i = 0; i < sizeof word; ++i) out += static_cast<char>(word >> (8 * i) & 0xFF);
  return out;
}

std::string masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return little_endian((crc >> 15 | crc << 17) + 0xA282EAD8u);
}

std::string record(std::string_view data) {
  const std::string length = little_endian(static_cast<uint64_t>(data.size()));
  return length + masked_crc(length) + std::string(data) + masked_crc(data);
}

// ---- protocol buffers: a field is its number and wire type (0 varint, 1 eight bytes, 2 with a length, 5 four bytes)

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}
std::string key(int field, int type) {
  return {static_cast<char>(field << 3 | type)};
}
std::string bytes_field(int field, std::string_view bytes) {
  return key(field, 2) + varint(bytes.size()) + std::string(bytes);
}

/// Event: wall_time = 1, step = 2, then `what`: file_version = 3, summary = 5 or session_log = 7.
std::string event(double time, int64_t step, const std::string& what) {
  return key(1, 1) + little_endian(std::bit_cast<uint64_t>(time)) + key(2, 0) + varint(static_cast<uint64_t>(step)) +
         what;
}

/// The event files of a folder.
std::vector<fs::path> event_files(const std::string& folder) {
  std::vector<fs::path> files;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none))
    if (entry.is_regular_file(none) && entry.path().filename().string().starts_with(kPrefix))
      files.push_back(entry.path());
  return files;
}

/// Seconds in the name are at least `time`, and more than those in the name of any other event file: TensorBoard sorts
/// by name, a second run may begin within a second, and clocks are set back.
std::string file_name(const std::string& folder, double time) {
  int64_t seconds = static_cast<int64_t>(time);
  for (const fs::path& file : event_files(folder))
    if (const int64_t other = std::strtoll(file.filename().c_str() + std::strlen(kPrefix), nullptr, 10);
        other < int64_t{1} << 40)
      seconds = std::max(seconds, other + 1);
  char host[256] = "unknown";
  gethostname(host, sizeof host - 1);
  return fmt::format("{}/{}{}.{}", folder, kPrefix, seconds, host);
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t c = ~0u;
  for (const char b : bytes) c = c >> 8 ^ kCrcTable[(c ^ static_cast<unsigned char>(b)) & 0xFF];
  return ~c;
}

EventFile::EventFile(const std::string& folder, double time, int64_t first_step) : file_(file_name(folder, time)) {
  file_.append(record(event(time, 0, bytes_field(3, "brain.Event:2"))));
  const std::string start = key(1, 0) + varint(1);  // SessionLog.status = START
  file_.append(record(event(time, first_step, bytes_field(7, start))));
}

void EventFile::remove_all(const std::string& folder) {
  std::error_code none;
  for (const fs::path& file : event_files(folder)) fs::remove(file, none);
}

bool EventFile::scalars(int64_t step, double time, const std::vector<std::pair<std::string, double>>& values) {
  std::string summary;  // Summary.value = 1: tag = 1, simple_value = 2
  for (const auto& [tag, value] : values)
    if (std::isfinite(value))
      summary += bytes_field(
          1, bytes_field(1, tag) + key(2, 5) + little_endian(std::bit_cast<uint32_t>(static_cast<float>(value))));
  if (summary.empty()) return file_.complete();
  return file_.append(record(event(time, step, bytes_field(5, summary))));
}

}  // namespace dapo
