#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/new_file.h"
#include "core/safetensors.h"

namespace dapo {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr size_t kChunk = size_t{8} << 20;

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
    case DType::i64:
      return "I64";
  }
  return "?";
}

[[noreturn]] void disk_error(const std::string& path, const char* call) {
  fail(kExitResources, "{}: {}: {}", path, call, std::strerror(errno));
}

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
      const size_t n = std::min<uint64_t>(kChunk, all - done);
      t->fill(done, buffer.data(), n);
      file.write(buffer.data(), n);
      done += n;
    }
  file.commit();
}

}  // namespace

void write_safetensors_file(const std::string& path, const std::vector<TensorToWrite>& tensors) {
  std::vector<const TensorToWrite*> all;
  all.reserve(tensors.size());
  for (const TensorToWrite& t : tensors) all.push_back(&t);
  std::vector<char> buffer(kChunk);
  write_file(path, all, buffer);
}

void write_safetensors(const std::string& folder, const std::vector<TensorToWrite>& tensors, const ShardFiles& files) {
  namespace fs = std::filesystem;
  std::vector<std::vector<const TensorToWrite*>> shards(1);
  uint64_t in_shard = 0, total = 0;
  for (const TensorToWrite& t : tensors) {
    if (!shards.back().empty() && in_shard + size_of(t) > files.most_bytes) shards.emplace_back(), in_shard = 0;
    shards.back().push_back(&t);
    in_shard += size_of(t), total += size_of(t);
  }
  std::vector<char> buffer(kChunk);
  const std::string single = (fs::path(folder) / kSafetensorsFile).string(),
                    index = (fs::path(folder) / kSafetensorsIndex).string();
  const bool first = files.writer == 0;
  if (shards.size() == 1) {
    if (!first) return;
    write_file(single, shards[0], buffer);
    if (::unlink(index.c_str()) != 0 && errno != ENOENT) disk_error(index, "unlink");
    sync_path(folder);
    return;
  }
  nlohmann::ordered_json json;
  json["metadata"] = {{"total_size", total}};
  json["weight_map"] = nlohmann::ordered_json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    if (std::cmp_equal(i % static_cast<size_t>(files.writers), files.writer))
      write_file((fs::path(folder) / name).string(), shards[i], buffer);
    for (const TensorToWrite* t : shards[i]) json["weight_map"][t->name] = name;
  }
  if (!first) return;
  write_new_file(index, json.dump(2) + "\n");
  if (::unlink(single.c_str()) != 0 && errno != ENOENT) disk_error(single, "unlink");
  sync_path(folder);
}

}  // namespace dapo
