// What ranks tell each other through host memory: plain values, and samples as bytes.
#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/comm.h"
#include "host/train/group.h"

namespace dapo {

/// Writes values one after another, for a reader of the same program.
class ByteWriter {
 public:
  template <class T>
  void put(const T& value) requires std::is_trivially_copyable_v<T> {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  template <class T>
  void put(const std::vector<T>& values) requires std::is_trivially_copyable_v<T> {
    put(values.size());
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
  void put(const std::string& text) {
    put(text.size());
    bytes_.append(text);
  }
  void put(const Verdict& v);
  /// What draw_and_judge() fills: the response and its verdict.
  void put(const Sample& s);
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : bytes_(bytes) {}
  bool done() const { return bytes_.empty(); }
  template <class T>
  void get(T& value) requires std::is_trivially_copyable_v<T> {
    std::memcpy(&value, take(sizeof value), sizeof value);
  }
  template <class T>
  T get() {
    T value{};
    get(value);
    return value;
  }
  template <class T>
  void get(std::vector<T>& values) requires std::is_trivially_copyable_v<T> {
    values.resize(get<size_t>());
    if (const size_t bytes = values.size() * sizeof(T); bytes > 0) std::memcpy(values.data(), take(bytes), bytes);
  }
  void get(std::string& text) {
    const size_t size = get<size_t>();
    text.assign(take(size), size);
  }
  void get(Verdict& v);
  void get(Sample& s);

 private:
  const char* take(size_t bytes) {
    CHECK_LE(bytes, bytes_.size(), "a message of another rank ends early");
    const char* p = bytes_.data();
    bytes_.remove_prefix(bytes);
    return p;
  }
  std::string_view bytes_;
};

/// Every rank's value, by rank.
template <class T>
std::vector<T> gather_values(Comm& comm, const T& own) requires std::is_trivially_copyable_v<T> {
  std::vector<T> all;
  for (const std::string& bytes : comm.all_gather_bytes({reinterpret_cast<const char*>(&own), sizeof own}))
    all.push_back(ByteReader(bytes).get<T>());
  return all;
}

/// The first rank's value on every rank, for decisions that depend on a clock, a disk, or a machine's memory.
template <class T>
T value_of_first(Comm& comm, const T& own) requires std::is_trivially_copyable_v<T> {
  const std::string bytes = comm.broadcast_bytes({reinterpret_cast<const char*>(&own), sizeof own}, 0);
  return ByteReader(bytes).get<T>();
}

/// Whether any rank says so.
inline bool value_of_any(Comm& comm, bool own) {
  bool any = false;
  for (const bool value : gather_values(comm, own)) any = any || value;
  return any;
}

}  // namespace dapo
