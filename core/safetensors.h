// Safetensors files and sharded folders, read with the reference's validity rules and written so that transformers and
// vLLM load them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace dapo {

inline constexpr const char *kSafetensorsFile = "model.safetensors",
                            *kSafetensorsIndex = "model.safetensors.index.json";

struct TensorInfo {
  std::string name;
  std::string dtype;  ///< as in the file: "F32", "BF16", "F16", ...
  std::vector<int64_t> shape;
  std::string file;             ///< path
  uint64_t begin = 0, end = 0;  ///< bytes in the file

  uint64_t bytes() const { return end - begin; }
  std::string describe() const;  ///< "BF16 [896, 4864]"
};

/// The files NAME-0000i-of-0000N.safetensors of a folder, in order; empty if there are none. Error (exit 2) if some
/// of the N are missing.
std::vector<std::string> shards_in(const std::string& folder);

/// All tensors of model.safetensors, or of the shards that model.safetensors.index.json names, or of the shards of
/// a folder without an index, or of one .safetensors file. Links are followed. Error (exit 2) names the file and what
/// it is instead (core/files.h), or the rule that it breaks (header <= 100 MB and starting with '{', offsets sorted and
/// contiguous from 0 to the end of the file, shape x size == span, no duplicate names, at most 100,000 tensors, shard
/// names in an index plain file names). Tensors of a file come in the order of their data; tensors that the index does
/// not assign to the shard they are in are ignored.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::string& path);  ///< folder or file
  ~SafetensorsReader();
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const TensorInfo* find(const std::string& name) const;
  /// Reads bytes [offset, offset + bytes) of the tensor's data by pread; several threads may read at once.
  void read(const TensorInfo& t, uint64_t offset, void* to, size_t bytes) const;
  /// Reads `rows` runs of `run` bytes, `stride` bytes apart in the tensor, one behind the other: columns of a matrix.
  void read_rows(const TensorInfo& t, uint64_t offset, void* to, size_t rows, size_t run, size_t stride) const;

 private:
  struct File;
  std::vector<TensorInfo> tensors_;
  std::vector<std::unique_ptr<File>> files_;
};

struct TensorToWrite {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  /// Copies bytes [offset, offset + bytes) of the tensor to `to`.
  std::function<void(uint64_t offset, void* to, size_t bytes)> fill;
};
/// The files of a folder, and which of them this one of several writers writes: every writers-th, the first also the index.
struct ShardFiles {
  uint64_t most_bytes = 5'000'000'000;  ///< of a file with several tensors
  int writer = 0, writers = 1;
};
/// Writes folder/model.safetensors, or shards and the index; metadata {"format":"pt"}. Files are written under a temporary
/// name, synced and renamed; error exit 3 if the disk refuses.
void write_safetensors(const std::string& folder, const std::vector<TensorToWrite>& tensors,
                       const ShardFiles& files = {});
/// The same as one file of any name and size.
void write_safetensors_file(const std::string& path, const std::vector<TensorToWrite>& tensors);

}  // namespace dapo
