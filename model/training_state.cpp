#include "model/training_state.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <map>
#include <new>
#include <vector>

#include "core/safetensors.h"
#include "model/upload.h"

namespace dapo {

TrainingState::TrainingState(const Learner& learner)
    : weights_(learner.weights()),
      rank_(learner.data_rank()),
      ranks_(learner.shards().ranks()),
      slices_(learner.slices()),
      parts_{{{"", rank_ == 0 ? weights_.flat() : Tensor()},
              {"moment1.", learner.moment1()},
              {"moment2.", learner.moment2()},
              {"remainder.", learner.remainders()}}} {
  CHECK(learner.moment1(), "the memory has no room for training");
}

size_t TrainingState::bytes() const {
  size_t sum = 0;
  for (const Part& p : parts_) sum += p.device ? p.device.bytes() : 0;
  return sum;
}

void TrainingState::copy_to_host() try {
  Backend& backend = weights_.backend();
  for (Part& p : parts_) {
    if (!p.device) continue;
    p.copy = std::make_unique_for_overwrite<char[]>(p.device.bytes());
    backend.copy_out(p.copy.get(), p.device);
  }
  backend.synchronize();
} catch (const std::bad_alloc&) {
  fail(kExitResources, "no host memory for a copy of weights and moments, {:.2f} GB", double(bytes()) * 1e-9);
}

/// Reads a part by elements of the whole flat buffer, of which element `shift` comes first in the part.
ReadFlat TrainingState::reader(const Part& part, int64_t shift) const {
  return [&part, shift, &backend = weights_.backend()](int64_t first, int64_t count, void* to) {
    const size_t size = dtype_size(part.device.dtype);
    if (part.copy)
      std::memcpy(to, part.copy.get() + size_t(first - shift) * size, size_t(count) * size);
    else
      backend.copy_out_now(to, part.device.rows(first - shift, count));
  };
}

void TrainingState::save_model(const std::string& folder) const {
  CHECK_EQ(rank_, 0, "the first rank saves the model");
  std::vector<TensorToWrite> tensors;
  add_tensors(tensors, weights_.params(), "", weights_.flat().dtype, 0, weights_.params().size, reader(parts_[0], 0));
  write_safetensors(folder, tensors);
  save_model_config(weights_.config(), weights_.flat().dtype, folder);
}

void TrainingState::save_optimizer(const std::string& folder) const {
  std::vector<TensorToWrite> tensors;
  for (size_t i = 1; i < parts_.size(); ++i)
    if (parts_[i].device)
      for (const ShardSlice& s : slices_)
        add_tensors(tensors, weights_.params(), parts_[i].prefix, parts_[i].device.dtype, s.begin, s.begin + s.count,
                    reader(parts_[i], s.begin - s.local));
  const std::string name = ranks_ == 1 ? "" : fmt::format("-{:05}-of-{:05}", rank_ + 1, ranks_);
  write_safetensors_file(fmt::format("{}/optimizer{}.safetensors", folder, name), tensors);
}

namespace {

/// Where the moments of a checkpoint lie: the stored rows of every tensor, from the files of all ranks that wrote it.
class StoredMoments {
 public:
  explicit StoredMoments(const std::string& folder) : folder_(folder) {
    for (const std::string& path : optimizer_files(folder)) {
      files_.push_back(std::make_unique<SafetensorsReader>(path));
      for (const TensorInfo& t : files_.back()->tensors()) add(t, *files_.back());
    }
    for (auto& [name, rows] : tensors_)
      std::ranges::sort(rows, {}, [](const Rows& r) { return std::pair(r.begin, r.end); });
  }

  struct Rows {
    int64_t begin, end;  ///< end < 0: the whole tensor
    const TensorInfo* info;
    const SafetensorsReader* file;
  };

  /// Calls read(rows, from, count): `count` rows of the tensor lie in `rows` from their row `from` on, for rows
  /// [want.begin, want.end) of a part, in order.
  template <class Read>
  void each(const std::string& name, DType dtype, const Param& p, const ParamPart& part, const Range& want,
            Read read) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end())
      fail_input("{}: tensor '{}' is missing: it belongs to another model, or model.dtype has changed", folder_, name);
    int64_t next = 0;  // rows that the stored pieces must cover one after another
    for (const Rows& rows : found->second) {
      ParamPart stored = part;
      const int64_t end = rows.end < 0 ? part.rows : rows.end;
      stored.rows = end - rows.begin;
      if (rows.info->shape != p.shape_of(stored) || rows.info->dtype != (dtype == DType::f32 ? "F32" : "I16") ||
          end > part.rows)
        fail_input("{}: tensor '{}' is {}, which does not fit the model", rows.info->file, rows.info->name,
                   rows.info->describe());
      if (rows.begin != next) break;
      next = end;
      const int64_t from = std::max(rows.begin, want.begin), to = std::min(end, want.end);
      if (from < to) read(rows, from - rows.begin, to - from);
    }
    if (next != part.rows)
      fail_input("{}: tensor '{}': the files of its ranks do not hold each of its {} rows once (row {})", folder_, name,
                 part.rows, next);
  }

 private:
  static std::vector<std::string> optimizer_files(const std::string& folder) {
    namespace fs = std::filesystem;
    std::vector<std::string> files;
    if (fs::exists(fs::path(folder) / "optimizer.safetensors")) return {folder + "/optimizer.safetensors"};
    for (const auto& entry : fs::directory_iterator(folder))
      if (const std::string name = entry.path().filename().string();
          name.starts_with("optimizer-") && name.ends_with(".safetensors"))
        files.push_back(entry.path().string());
    if (files.empty()) fail_input("{}: no optimizer.safetensors", folder);
    std::ranges::sort(files);
    return files;
  }

  /// "NAME", or "NAME|r0:r1".
  void add(const TensorInfo& t, const SafetensorsReader& file) {
    const size_t bar = t.name.find('|');
    Rows rows{0, -1, &t, &file};
    if (bar != t.name.npos) {
      const char *at = t.name.data() + bar + 1, *end = t.name.data() + t.name.size();
      const auto [colon, error] = std::from_chars(at, end, rows.begin);
      const bool first = error == std::errc() && colon < end && *colon == ':';
      const auto last = first ? std::from_chars(colon + 1, end, rows.end) : std::from_chars_result{at, std::errc()};
      if (!first || last.ec != std::errc() || last.ptr != end || rows.begin < 0 || rows.end <= rows.begin)
        fail_input("{}: tensor '{}': expected a name, or NAME|FIRST_ROW:END_ROW", t.file, t.name);
    }
    tensors_[t.name.substr(0, bar)].push_back(rows);
  }

  const std::string folder_;
  std::vector<std::unique_ptr<SafetensorsReader>> files_;
  std::map<std::string, std::vector<Rows>> tensors_;
};

struct Piece {
  StoredMoments::Rows rows;
  int64_t first;  ///< element of the stored tensor
};

/// Plans the read of this rank's shard in pieces that keep a thread busy.
void plan_pieces(const StoredMoments& stored, const ParamTable& params, const std::vector<ShardSlice>& slices,
                 const std::string& prefix, const Tensor& shard, std::vector<Piece>& from, std::vector<Tensor>& to) {
  for (const ShardSlice& s : slices)
    for (const Param& p : params.all)
      for (const ParamPart& part : p.parts) {
        const Range want = rows_within(p, part, s.begin, s.begin + s.count);
        if (want.count() == 0) continue;
        int64_t at = s.local + p.offset + (part.row_begin + want.begin) * p.columns - s.begin;
        stored.each(prefix + part.name, shard.dtype, p, part, want,
                    [&](const StoredMoments::Rows& rows, int64_t row, int64_t count) {
                      const int64_t end = at + count * p.columns;
                      for (int64_t first = row * p.columns; at < end; first += kUploadElements) {
                        const int64_t size = std::min(kUploadElements, end - at);
                        from.push_back({rows, first});
                        to.push_back(shard.rows(at, size));
                        at += size;
                      }
                    });
      }
}

}  // namespace

void load_optimizer(const Learner& learner, const std::string& folder) {
  const StoredMoments stored(folder);
  std::vector<Piece> from;
  std::vector<Tensor> to;
  const ParamTable& params = learner.weights().params();
  const std::vector<ShardSlice> slices = learner.slices();
  plan_pieces(stored, params, slices, "moment1.", learner.moment1(), from, to);
  plan_pieces(stored, params, slices, "moment2.", learner.moment2(), from, to);
  if (learner.remainders()) plan_pieces(stored, params, slices, "remainder.", learner.remainders(), from, to);
  upload(learner.backend(), to, [&](size_t i, void* p) {
    const StoredMoments::Rows& rows = from[i].rows;
    rows.file->read(*rows.info, uint64_t(from[i].first) * dtype_size(to[i].dtype), p, to[i].bytes());
  });
}

}  // namespace dapo
