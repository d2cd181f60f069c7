#include "core/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "core/checked.h"
#include "core/json.h"

namespace dapo {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr uint64_t kMaxHeader = 100'000'000;  // the reference's limit
constexpr size_t kMaxTensors = 1'000'000;
constexpr size_t kMaxRank = 64;
constexpr size_t kChunk = size_t{8} << 20;
constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

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

const char* file_dtype(DType t) {
  switch (t) {
    case DType::f32:
      return "F32";
    case DType::bf16:
      return "BF16";
    case DType::f64:
      return "F64";
    case DType::i32:
      return "I32";
    case DType::i16:
      return "I16";
    case DType::u8:
      return "U8";
  }
  return "?";
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
        t.shape.push_back(checked_cast<int64_t>(json.unsigned_integer(), path + ": shape of " + name));
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
  std::unordered_set<std::string> names;
  std::string name, key;
  for (json.object(); json.key(name);) {
    if (!names.insert(name).second) json.fail_here(fmt::format("'{}' comes twice", name));
    if (names.size() > kMaxTensors) json.fail_here(fmt::format("more than {} tensors", kMaxTensors));
    if (name != "__metadata__") {
      tensors.push_back(read_entry(json, name, path));
    } else if (json.peek() == JsonReader::Kind::null) {
      json.null();
    } else {
      for (json.object(); json.key(key);) json.string();
    }
  }
  json.end();
  return tensors;
}

/// Offsets, sorted, must run from 0 to the end of the data without gap or overlap and agree with shapes.
void check_layout(std::vector<TensorInfo>& tensors, const std::string& path, uint64_t data_begin, uint64_t file_size) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t at = 0;
  for (TensorInfo& t : tensors) {
    const auto what = [&] { return fmt::format("{}: size of tensor '{}'", path, t.name); };
    if (t.begin != at || t.end < t.begin)
      fail_input("{}: tensor '{}' lies at [{}, {}), expected to begin at {}: offsets must follow one another", path,
                 t.name, t.begin, t.end, at);
    uint64_t bits = 1;
    for (int64_t d : t.shape) bits = checked_mul(bits, static_cast<uint64_t>(d), what());
    bits = checked_mul(bits, dtype_bits(t.dtype), what());
    if (bits % 8 != 0 || bits / 8 != t.end - t.begin)
      fail_input("{}: tensor '{}', {}, should take {} bytes, its offsets span {}", path, t.name, t.describe(), bits / 8,
                 t.bytes());
    at = t.end;
    t.begin = checked_add(t.begin, data_begin, what());
    t.end = checked_add(t.end, data_begin, what());
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

bool exists(const std::string& path) {
  struct stat st {};
  return ::lstat(path.c_str(), &st) == 0;
}

}  // namespace

std::string TensorInfo::describe() const {
  std::string s = dtype + " [";
  for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

struct SafetensorsReader::File {
  std::string path;
  int fd = -1;
  uint64_t size = 0;

  explicit File(std::string p) : path(std::move(p)) {
    // O_NONBLOCK: a fifo of that name must not hang us.
    fd = ::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ELOOP) fail_input("{}: a symbolic link; put the file itself there (cp -L)", path);
    if (fd < 0) fail_input("{}: {}", path, std::strerror(errno));
    struct stat st {};
    if (::fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
      ::close(fd);
      fail_input("{}: not a regular file", path);
    }
    size = static_cast<uint64_t>(st.st_size);
  }
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
    if (size < sizeof length) fail_input("{}: {} bytes are no safetensors file", path, size);
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
  const std::string single = (fs::path(path) / kSingle).string(), index = (fs::path(path) / kIndex).string();
  if (exists(single)) {
    tensors_ = open(single);
    return;
  }
  if (!exists(index))
    fail_input("{}: holds neither {} nor {}; name a Hugging Face model folder", path, kSingle, kIndex);
  std::map<std::string, std::string> shard_of = read_index(index);
  std::map<std::string, size_t> shards;
  for (const auto& [name, shard] : shard_of) ++shards[shard];
  for (const auto& [shard, count] : shards) {
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
        if (s == shard) fail_input("{}: tensor '{}' is not in {}, where {} puts it", path, name, shard, kIndex);
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

// ---- writer ---------------------------------------------------------------------------------------------------------
namespace {

[[noreturn]] void disk_error(const std::string& path, const char* call) {
  fail(kExitResources, "{}: {}: {}", path, call, std::strerror(errno));
}

void sync_folder(const std::string& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) disk_error(folder, "open");
  const int rc = ::fsync(fd);
  ::close(fd);
  if (rc != 0) disk_error(folder, "fsync");
}

/// Written under path.tmp, synced, renamed; on failure the temporary file is gone and `path` as before.
class NewFile {
 public:
  explicit NewFile(std::string path) : path_(std::move(path)), temporary_(path_ + ".tmp") {
    ::unlink(temporary_.c_str());
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd_ < 0) disk_error(temporary_, "open");
  }
  ~NewFile() {
    if (fd_ >= 0) ::close(fd_), ::unlink(temporary_.c_str());
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void write(const void* from, size_t bytes) {
    const char* p = static_cast<const char*>(from);
    while (bytes > 0) {
      const ssize_t n = ::write(fd_, p, bytes);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) disk_error(temporary_, "write");
      p += n, bytes -= static_cast<size_t>(n);
    }
  }
  void commit() {
    if (::fsync(fd_) != 0) disk_error(temporary_, "fsync");
    const int fd = std::exchange(fd_, -1);
    if (::close(fd) != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
      ::unlink(temporary_.c_str());
      disk_error(path_, "close or rename");
    }
  }

 private:
  std::string path_, temporary_;
  int fd_ = -1;
};

uint64_t size_of(const TensorToWrite& t) {
  uint64_t n = dtype_size(t.dtype);
  for (int64_t d : t.shape) n *= static_cast<uint64_t>(d);
  return n;
}

void write_file(const std::string& path, std::vector<const TensorToWrite*> tensors, std::vector<char>& buffer) {
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](auto* a, auto* b) { return dtype_size(a->dtype) > dtype_size(b->dtype); });  // keeps them aligned
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};
  uint64_t at = 0;
  for (const TensorToWrite* t : tensors) {
    CHECK(!header.contains(t->name), "{} comes twice", t->name);
    header[t->name] = {{"dtype", file_dtype(t->dtype)}, {"shape", t->shape}, {"data_offsets", {at, at + size_of(*t)}}};
    at += size_of(*t);
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  NewFile file(path);
  file.write(&length, sizeof length);
  file.write(text.data(), text.size());
  for (const TensorToWrite* t : tensors)
    for (uint64_t done = 0, all = size_of(*t); done < all;) {
      const size_t n = static_cast<size_t>(std::min<uint64_t>(kChunk, all - done));
      t->fill(done, buffer.data(), n);
      file.write(buffer.data(), n);
      done += n;
    }
  file.commit();
}

}  // namespace

void write_safetensors(const std::string& folder, const std::vector<TensorToWrite>& tensors, uint64_t shard_bytes) {
  namespace fs = std::filesystem;
  std::vector<std::vector<const TensorToWrite*>> shards(1);
  uint64_t in_shard = 0, total = 0;
  for (const TensorToWrite& t : tensors) {
    if (!shards.back().empty() && in_shard + size_of(t) > shard_bytes) shards.emplace_back(), in_shard = 0;
    shards.back().push_back(&t);
    in_shard += size_of(t), total += size_of(t);
  }
  std::vector<char> buffer(kChunk);
  const std::string single = (fs::path(folder) / kSingle).string(), index = (fs::path(folder) / kIndex).string();
  if (shards.size() == 1) {
    write_file(single, shards[0], buffer);
    if (::unlink(index.c_str()) != 0 && errno != ENOENT) disk_error(index, "unlink");
    sync_folder(folder);
    return;
  }
  nlohmann::ordered_json json;
  json["metadata"] = {{"total_size", total}};
  json["weight_map"] = nlohmann::ordered_json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    write_file((fs::path(folder) / name).string(), shards[i], buffer);
    for (const TensorToWrite* t : shards[i]) json["weight_map"][t->name] = name;
  }
  NewFile file(index);
  const std::string text = json.dump(2) + "\n";
  file.write(text.data(), text.size());
  file.commit();
  if (::unlink(single.c_str()) != 0 && errno != ENOENT) disk_error(single, "unlink");
  sync_folder(folder);
}

}  // namespace dapo
