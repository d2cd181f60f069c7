#include "core/safetensors.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "core/checked.h"
#include "core/files.h"
#include "core/json.h"

namespace dapo {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr uint64_t kMaxHeader = 100'000'000;  // the reference's limit
constexpr size_t kMaxTensors = 100'000;       // a 72B model has 963; a hostile header of them takes 200 MB
constexpr size_t kMaxRank = 64;

/// Bits of an element, 0 for an unknown type (the reference's list).
uint64_t dtype_bits(std::string_view t) {
  static constexpr std::pair<std::string_view, int> kTypes[] = {
      {"F32", 32},    {"BF16", 16}, {"F16", 16},        {"F64", 64},       {"I64", 64},    {"I32", 32},
      {"I16", 16},    {"I8", 8},    {"U8", 8},          {"U16", 16},       {"U32", 32},    {"U64", 64},
      {"BOOL", 8},    {"C64", 64},  {"F8_E5M2", 8},     {"F8_E4M3", 8},    {"F8_E8M0", 8}, {"F6_E2M3", 6},
      {"F6_E3M2", 6}, {"F4", 4},    {"F8_E5M2FNUZ", 8}, {"F8_E4M3FNUZ", 8}};
  for (const auto& [name, bits] : kTypes)
    if (name == t) return static_cast<uint64_t>(bits);
  return 0;
}

std::pair<uint64_t, uint64_t> read_span(JsonReader& json) {
  uint64_t v[2] = {};
  size_t n = 0;
  for (json.array(); json.item(); ++n) {
    const uint64_t x = json.unsigned_integer();
    if (n < 2) v[n] = x;
  }
  if (n != 2) json.fail_here("data_offsets must be [begin, end]");
  return {v[0], v[1]};
}

/// One member of the header; offsets are still relative to the data.
TensorInfo read_entry(JsonReader& json, const std::string& name, const std::string& path) {
  TensorInfo t;
  t.name = name;
  t.file = path;
  int dtype = 0, shape = 0, span = 0;
  std::string key;
  for (json.object(); json.key(key);) {
    if (key == "dtype") {
      ++dtype, t.dtype = json.string();
    } else if (key == "shape") {
      ++shape;
      for (json.array(); json.item();) {
        const uint64_t d = json.unsigned_integer();
        if (!std::in_range<int64_t>(d)) json.fail_here(fmt::format("shape of '{}': {} is out of range", name, d));
        t.shape.push_back(static_cast<int64_t>(d));
        if (t.shape.size() > kMaxRank) json.fail_here(fmt::format("a shape of more than {} dimensions", kMaxRank));
      }
    } else if (key == "data_offsets") {
      ++span, std::tie(t.begin, t.end) = read_span(json);
    } else {
      json.skip();
    }
  }
  if (dtype != 1 || shape != 1 || span != 1)
    json.fail_here(fmt::format("tensor '{}' needs dtype, shape and data_offsets, each once", name));
  if (dtype_bits(t.dtype) == 0) json.fail_here(fmt::format("tensor '{}' has the unknown dtype '{}'", name, t.dtype));
  return t;
}

std::vector<TensorInfo> read_header(std::string_view text, const std::string& path) {
  if (text.empty() || text[0] != '{') fail_input("{}: the header does not start with '{{'", path);
  JsonReader json(text, path);
  std::vector<TensorInfo> tensors;
  std::string name, key;
  int metadata = 0;
  for (json.object(); json.key(name);) {
    if (name != "__metadata__") {
      if (tensors.size() == kMaxTensors) json.fail_here(fmt::format("more than {} tensors", kMaxTensors));
      tensors.push_back(read_entry(json, name, path));
    } else if (++metadata > 1) {
      json.fail_here("__metadata__ comes twice");
    } else if (json.peek() == JsonReader::Kind::null) {
      json.null();
    } else {
      for (json.object(); json.key(key);) json.string();
    }
  }
  json.end();
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorInfo& t : tensors) names.push_back(t.name);
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    fail_input("{}: '{}' comes twice", path, *twice);
  return tensors;
}

/// Offsets, sorted, must run from 0 to the end of the data without gap or overlap and agree with shapes.
void check_layout(std::vector<TensorInfo>& tensors, const std::string& path, uint64_t data_begin, uint64_t file_size) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t at = 0;
  for (TensorInfo& t : tensors) {
    const std::string what = fmt::format("{}: size of tensor '{}'", path, t.name);
    if (t.begin != at || t.end < t.begin)
      fail_input("{}: tensor '{}' lies at [{}, {}), expected to begin at {}: offsets must follow one another", path,
                 t.name, t.begin, t.end, at);
    uint64_t bits = 1;
    for (int64_t d : t.shape) bits = checked_mul(bits, static_cast<uint64_t>(d), what);
    bits = checked_mul(bits, dtype_bits(t.dtype), what);
    if (bits % 8 != 0 || bits / 8 != t.end - t.begin)
      fail_input("{}: tensor '{}', {}, should take {} bytes, its offsets span {}", path, t.name, t.describe(), bits / 8,
                 t.bytes());
    at = t.end;
    t.begin = checked_add(t.begin, data_begin, what);
    t.end = checked_add(t.end, data_begin, what);
  }
  if (checked_add(at, data_begin, path) != file_size)
    fail_input("{}: tensors end at byte {} but the file has {}: truncated or with foreign bytes; fetch it again", path,
               at + data_begin, file_size);
}

bool is_plain_name(const std::string& s) {
  return !s.empty() && s != "." && s != ".." && s.find('/') == std::string::npos && s.find('\0') == std::string::npos;
}

/// tensor -> shard, from the index.
std::map<std::string, std::string> read_index(const std::string& path) {
  const std::string text = read_text_file(path, kMaxHeader);
  JsonReader json(text, path);
  std::map<std::string, std::string> shard_of;
  std::string key, name;
  for (json.object(); json.key(key);) {
    if (key != "weight_map") {
      json.skip();
      continue;
    }
    for (json.object(); json.key(name);) {
      const std::string shard = json.string();
      if (!is_plain_name(shard)) json.fail_here("the shard's name is not a plain file name");
      if (!shard_of.emplace(name, shard).second) json.fail_here(fmt::format("'{}' comes twice", name));
      if (shard_of.size() > kMaxTensors) json.fail_here(fmt::format("more than {} tensors", kMaxTensors));
    }
  }
  json.end();
  if (shard_of.empty()) fail_input("{}: no weight_map; fetch the model again", path);
  return shard_of;
}

/// "a-00001-of-00003.safetensors" -> a, 1, 3
struct ShardName {
  std::string stem;
  size_t number = 0, count = 0;
};
std::optional<ShardName> shard_name(std::string_view name) {
  constexpr std::string_view kOf = "-of-", kEnding = ".safetensors";
  constexpr size_t kDigits = 5, kTail = 1 + kDigits + kOf.size() + kDigits + kEnding.size();
  if (name.size() <= kTail || !name.ends_with(kEnding)) return std::nullopt;
  const std::string_view tail = name.substr(name.size() - kTail);
  ShardName s{std::string(name.substr(0, name.size() - kTail))};
  const auto number = [&](size_t at, size_t& to) {
    const char* end = tail.data() + at + kDigits;
    return std::from_chars(tail.data() + at, end, to).ptr == end;
  };
  if (tail[0] != '-' || tail.substr(1 + kDigits, kOf.size()) != kOf || !number(1, s.number) ||
      !number(1 + kDigits + kOf.size(), s.count))
    return std::nullopt;
  return s;
}

}  // namespace

std::string TensorInfo::describe() const {
  std::string s = dtype + " [";
  for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

struct SafetensorsReader::File {
  std::string path;
  uint64_t size = 0;
  int fd;

  explicit File(std::string p) : path(std::move(p)), fd(open_regular(path, size)) {}
  ~File() { ::close(fd); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  void read(uint64_t offset, void* to, size_t bytes) const {
    while (bytes > 0) {
      const ssize_t n = ::pread(fd, to, bytes, static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail_input("{}: {}", path, std::strerror(errno));
      if (n == 0) fail_input("{}: shorter than a moment ago; is it still being written?", path);
      offset += static_cast<uint64_t>(n);
      to = static_cast<char*>(to) + n;
      bytes -= static_cast<size_t>(n);
    }
  }

  std::vector<TensorInfo> header() const {
    uint64_t length = 0;
    if (size < sizeof length) fail_input("{}: {} bytes are no safetensors file: download it again", path, size);
    std::string head(std::min<uint64_t>(size, 64), '\0');
    read(0, head.data(), head.size());
    // A header's length may have another format's first bytes, but then '{' follows it.
    if (const auto format = foreign_format(head); !format.empty() && head.substr(sizeof length, 1) != "{")
      fail_input("{}: {}", path, format);
    read(0, &length, sizeof length);
    if (length > kMaxHeader) fail_input("{}: a header of {} bytes, at most {} are allowed", path, length, kMaxHeader);
    if (length > size - sizeof length) fail_input("{}: truncated: a header of {} bytes does not fit", path, length);
    std::string text(length, '\0');
    read(sizeof length, text.data(), text.size());
    std::vector<TensorInfo> tensors = read_header(text, path);
    check_layout(tensors, path, sizeof length + length, size);
    return tensors;
  }
};

std::vector<std::string> shards_in(const std::string& folder) {
  std::map<std::string, std::map<size_t, std::string>> sets;  // "model of 3" -> number -> path
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error))
    if (const auto s = shard_name(entry.path().filename().string()); s && s->number >= 1 && s->number <= s->count)
      sets[fmt::format("{}-{{:05}}-of-{:05}.safetensors", s->stem, s->count)][s->number] = entry.path().string();
  std::erase_if(sets, [](const auto& s) { return s.first.starts_with("adapter_"); });
  if (sets.empty()) return {};
  if (sets.size() > 1)
    fail_input("{}: shards of several models ({}, {}) and no {} that says which belong together", folder,
               sets.begin()->second.begin()->second, std::next(sets.begin())->second.begin()->second,
               kSafetensorsIndex);
  const auto& [pattern, files] = *sets.begin();
  const auto first = shard_name(std::filesystem::path(files.begin()->second).filename().string());
  const size_t count = first ? first->count : 0;
  std::vector<std::string> paths;
  for (size_t i = 1; i <= count; ++i) {
    const auto file = files.find(i);
    if (file == files.end())
      fail_input("{}: {} is missing, {} of {} shards are there: download the model again", folder,
                 fmt::format(fmt::runtime(pattern), i), files.size(), count);
    paths.push_back(file->second);
  }
  return paths;
}

SafetensorsReader::SafetensorsReader(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const auto open = [&](const std::string& p) {
    files_.push_back(std::make_unique<File>(p));
    return files_.back()->header();
  };
  if (!fs::is_directory(path, ignored)) {
    tensors_ = open(path);
    return;
  }
  const std::string single = (fs::path(path) / kSafetensorsFile).string(),
                    index = (fs::path(path) / kSafetensorsIndex).string();
  if (has_entry(single)) {
    tensors_ = open(single);
    return;
  }
  if (!has_entry(index)) {
    std::set<std::string> names;
    for (const std::string& shard : shards_in(path))
      for (TensorInfo& t : open(shard)) {
        if (!names.insert(t.name).second) fail_input("{}: tensor '{}' is in another shard as well", shard, t.name);
        tensors_.push_back(std::move(t));
      }
    if (files_.empty())
      fail_input("{}: holds neither {} nor {}; name a Hugging Face model folder", path, kSafetensorsFile,
                 kSafetensorsIndex);
    return;
  }
  std::map<std::string, std::string> shard_of = read_index(index);
  std::map<std::string, size_t> shards;
  for (const auto& [name, shard] : shard_of) ++shards[shard];
  for (const auto& [shard, count] : shards) {
    if (!has_entry((fs::path(path) / shard).string()))
      fail_input("{}: {} is missing, which {} names: download the model again", path, shard, kSafetensorsIndex);
    size_t found = 0;
    for (TensorInfo& t : open((fs::path(path) / shard).string())) {
      const auto it = shard_of.find(t.name);
      if (it == shard_of.end() || it->second != shard) continue;
      ++found;
      shard_of.erase(it);
      tensors_.push_back(std::move(t));
    }
    if (found != count) {
      for (const auto& [name, s] : shard_of)
        if (s == shard)
          fail_input("{}: tensor '{}' is not in {}, where {} puts it", path, name, shard, kSafetensorsIndex);
    }
  }
}

SafetensorsReader::~SafetensorsReader() = default;

const TensorInfo* SafetensorsReader::find(const std::string& name) const {
  for (const TensorInfo& t : tensors_)
    if (t.name == name) return &t;
  return nullptr;
}

void SafetensorsReader::read(const TensorInfo& t, uint64_t offset, void* to, size_t bytes) const {
  CHECK(offset <= t.bytes() && bytes <= t.bytes() - offset, "{} [{}, +{})", t.name, offset, bytes);
  for (const auto& f : files_)
    if (f->path == t.file) return f->read(t.begin + offset, to, bytes);
  CHECK(false, "{} is of another reader", t.name);
}

void SafetensorsReader::read_rows(const TensorInfo& t, uint64_t offset, void* to, size_t rows, size_t run,
                                  size_t stride) const {
  if (run == stride) return read(t, offset, to, rows * run);
  for (size_t r = 0; r < rows; ++r) read(t, offset + r * stride, static_cast<char*>(to) + r * run, run);
}

}  // namespace dapo
