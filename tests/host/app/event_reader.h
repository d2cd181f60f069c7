// A reader of TensorBoard's event files: TFRecord with its checksums, and the protocol buffers in it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tests/testdata.h"

namespace dapo {

/// The same checksum by its definition, a bit at a time.
inline uint32_t crc_by_bits(std::string_view bytes) {
  uint32_t c = ~0u;
  for (const char b : bytes) {
    c ^= static_cast<unsigned char>(b);
    for (int i = 0; i < 8; ++i) c = (c >> 1) ^ (0x82F63B78u & -(c & 1));
  }
  return ~c;
}

class EventReader {
 public:
  explicit EventReader(std::string_view bytes) : bytes_(bytes) {}
  bool more() const { return !bytes_.empty(); }
  std::string_view take(size_t n) {
    EXPECT_GE(bytes_.size(), n);
    const std::string_view out = bytes_.substr(0, n);
    bytes_.remove_prefix(out.size());
    return out;
  }
  template <class T>
  T fixed() {
    T value{};
    const std::string_view from = take(sizeof value);
    if (from.size() == sizeof value) std::memcpy(&value, from.data(), sizeof value);
    return value;
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      const uint8_t byte = fixed<uint8_t>();
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) break;
    }
    return value;
  }
  /// The data of a TFRecord, whose checksums must be right.
  std::string_view record() {
    const auto checked = [&](std::string_view data) {
      const uint32_t crc = crc_by_bits(data);
      EXPECT_EQ(fixed<uint32_t>(), (crc >> 15 | crc << 17) + 0xA282EAD8u);
      return data;
    };
    const std::string_view length = checked(take(8));
    return checked(take(EventReader(length).fixed<uint64_t>()));
  }

 private:
  std::string_view bytes_;
};

struct Event {
  double time = 0;
  int64_t step = 0;
  std::string version;
  bool start = false;
  std::map<std::string, float> values;
};

inline Event event_of(std::string_view data) {
  Event e;
  for (EventReader in(data); in.more();) switch (in.varint()) {
      case 1 << 3 | 1:
        e.time = in.fixed<double>();
        break;
      case 2 << 3 | 0:
        e.step = static_cast<int64_t>(in.varint());
        break;
      case 3 << 3 | 2:
        e.version = in.take(in.varint());
        break;
      case 5 << 3 | 2:
        for (EventReader summary(in.take(in.varint())); summary.more();) {
          EXPECT_EQ(summary.varint(), 1u << 3 | 2);
          EventReader value(summary.take(summary.varint()));
          EXPECT_EQ(value.varint(), 1u << 3 | 2);
          const std::string tag(value.take(value.varint()));
          EXPECT_EQ(value.varint(), 2u << 3 | 5);
          e.values[tag] = value.fixed<float>();
          EXPECT_FALSE(value.more());
        }
        break;
      case 7 << 3 | 2:
        e.start = in.take(in.varint()) == "\x08\x01";
        break;
      default:
        ADD_FAILURE() << "an unknown field";
        return e;
    }
  return e;
}

inline std::vector<Event> events_of(const std::string& path) {
  const std::string bytes = slurp(path);
  std::vector<Event> events;
  for (EventReader in(bytes); in.more();) events.push_back(event_of(in.record()));
  return events;
}

}  // namespace dapo
