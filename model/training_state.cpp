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
      rank_(learner.data_rank() * weights_.tensor_rank().ranks + weights_.tensor_rank().rank),
      ranks_(learner.shards().ranks() * weights_.tensor_rank().ranks),
      slices_(learner.slices()),
      parts_{{{"", rank_ == 0 && weights_.tensor_rank().ranks == 1 ? weights_.flat() : Tensor()},
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
  CHECK(parts_[0].device, "the first rank saves the model");
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

/// Part of a tensor.
struct Rectangle {
  Range rows, columns;
  int64_t area() const { return rows.count() * columns.count(); }
};

Range overlap(const Range& a, const Range& b) {
  const int64_t begin = std::max(a.begin, b.begin);
  return {begin, std::max(begin, std::min(a.end, b.end))};
}
Rectangle overlap(const Rectangle& a, const Rectangle& b) {
  return {overlap(a.rows, b.rows), overlap(a.columns, b.columns)};
}

/// Where the moments of a checkpoint lie: the stored rectangles of every tensor, from the files of all ranks that wrote
/// it.
class StoredMoments {
 public:
  explicit StoredMoments(const std::string& folder) : folder_(folder) {
    for (const std::string& path : optimizer_files(folder)) {
      files_.push_back(std::make_unique<SafetensorsReader>(path));
      for (const TensorInfo& t : files_.back()->tensors()) add(t, *files_.back());
    }
  }

  struct Stored {
    Range rows, columns;  ///< end < 0: all
    const TensorInfo* info;
    const SafetensorsReader* file;
  };

  /// Calls read(stored, its place, the part of it that is wanted) for all that together make up the rectangle `want` of a
  /// tensor.
  template <class Read>
  void each(const std::string& name, DType dtype, const Param& p, const ParamPart& part, const Rectangle& want,
            Read read) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end())
      fail_input("{}: tensor '{}' is missing: it belongs to another model, or model.dtype has changed", folder_, name);
    int64_t covered = 0;
    std::vector<Rectangle> before;
    bool twice = false;
    for (const Stored& s : found->second) {
      const Rectangle at = place(s, dtype, p, part), here = overlap(at, want);
      if (here.area() == 0) continue;
      for (const Rectangle& other : before) twice = twice || overlap(other, here).area() > 0;
      before.push_back(here);
      covered += here.area();
      read(s, at, here);
    }
    if (covered != want.area() || twice)
      fail_input("{}: tensor '{}': the files of its ranks do not hold each of its {} rows once", folder_, name,
                 part.tensor_rows);
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

  /// Where a stored tensor lies in the whole one.
  static Rectangle place(const Stored& s, DType dtype, const Param& p, const ParamPart& part) {
    const Rectangle at{s.rows.end < 0 ? Range{0, part.tensor_rows} : s.rows,
                       s.columns.end < 0 ? Range{0, p.tensor_columns} : s.columns};
    std::vector<int64_t> shape = {at.rows.count()};
    if (p.matrix) shape.push_back(at.columns.count());
    if (s.info->shape != shape || s.info->dtype != (dtype == DType::f32 ? "F32" : "I16") ||
        at.rows.end > part.tensor_rows || at.columns.end > p.tensor_columns)
      fail_input("{}: tensor '{}' is {}, which does not fit the model", s.info->file, s.info->name, s.info->describe());
    return at;
  }

  /// "NAME", "NAME|r0:r1" or "NAME|r0:r1|c0:c1".
  void add(const TensorInfo& t, const SafetensorsReader& file) {
    Stored stored{{0, -1}, {0, -1}, &t, &file};
    const size_t bar = t.name.find('|');
    std::string_view rest = std::string_view(t.name).substr(std::min(bar, t.name.size()));
    for (Range* range : {&stored.rows, &stored.columns})
      if (!rest.empty() && !take_range(rest, *range)) break;
    if (!rest.empty())
      fail_input("{}: tensor '{}': expected a name, NAME|FIRST_ROW:END_ROW or NAME|FIRST_ROW:END_ROW|FIRST:END_COLUMN",
                 t.file, t.name);
    tensors_[t.name.substr(0, bar)].push_back(stored);
  }

  /// Takes "|first:end" off the text; false if it does not begin so.
  static bool take_range(std::string_view& text, Range& range) {
    const char *at = text.data() + 1, *end = text.data() + text.size();
    Range found{};
    const auto first = std::from_chars(at, end, found.begin);
    if (first.ec != std::errc() || first.ptr == end || *first.ptr != ':') return false;
    const auto last = std::from_chars(first.ptr + 1, end, found.end);
    if (last.ec != std::errc() || found.begin < 0 || found.end <= found.begin || (last.ptr < end && *last.ptr != '|'))
      return false;
    range = found;
    text = std::string_view(last.ptr, static_cast<size_t>(end - last.ptr));
    return true;
  }

  const std::string folder_;
  std::vector<std::unique_ptr<SafetensorsReader>> files_;
  std::map<std::string, std::vector<Stored>> tensors_;
};

/// Rows of a stored tensor, or some columns of them, that lie side by side in the rank's own buffer.
struct Piece {
  StoredMoments::Stored from;
  int64_t first;  ///< element of the stored tensor
  int64_t rows, columns, stride;
};

/// Plans the read of this rank's shard in pieces that keep a thread busy.
void plan_pieces(const StoredMoments& stored, const ParamTable& params, const std::vector<ShardSlice>& slices,
                 const std::string& prefix, const Tensor& shard, std::vector<Piece>& from, std::vector<Tensor>& to) {
  for (const ShardSlice& s : slices)
    for (const Param& p : params.all)
      for (const ParamPart& part : p.parts) {
        const Range own = rows_within(p, part, s.begin, s.begin + s.count);
        if (own.count() == 0) continue;
        const Rectangle want{{part.tensor_row + own.begin, part.tensor_row + own.end},
                             {p.column_begin, p.column_begin + p.columns}};
        const int64_t first = s.local + p.offset + (part.row_begin + own.begin) * p.columns - s.begin;
        stored.each(prefix + part.name, shard.dtype, p, part, want,
                    [&](const StoredMoments::Stored& file, const Rectangle& at, const Rectangle& here) {
                      const int64_t columns = here.columns.count(), stride = at.columns.count();
                      const int64_t step = columns == p.columns ? std::max<int64_t>(1, kUploadElements / columns) : 1;
                      for (int64_t row = here.rows.begin; row < here.rows.end; row += step) {
                        const int64_t rows = std::min(step, here.rows.end - row);
                        from.push_back({file, (row - at.rows.begin) * stride + here.columns.begin - at.columns.begin,
                                        rows, columns, stride});
                        to.push_back(shard.rows(
                            first + (row - want.rows.begin) * p.columns + here.columns.begin - want.columns.begin,
                            rows * columns));
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
    const Piece& piece = from[i];
    const size_t size = dtype_size(to[i].dtype);
    piece.from.file->read_rows(*piece.from.info, static_cast<uint64_t>(piece.first) * size, p,
                               static_cast<size_t>(piece.rows), static_cast<size_t>(piece.columns) * size,
                               static_cast<size_t>(piece.stride) * size);
  });
}

}  // namespace dapo
