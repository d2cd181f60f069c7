#include "model/weights.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "core/safetensors.h"
#include "model/upload.h"

namespace dapo {

Weights::Weights(Backend& backend, Comm& tensor_parallel, const ModelConfig& config)
    : backend_(backend),
      tensor_parallel_(tensor_parallel),
      config_(config),
      local_(local_config(config, tensor_rank())),
      params_(parameter_table(config, tensor_rank())),
      block_(backend, Tensor(nullptr, backend.dtype(), {params_.size}).bytes(), OwnedBlock::dense),
      flat_(block_.data(), backend.dtype(), {params_.size}) {
  if (tensor_parallel.size() > 1) backend.split_vocabulary({&tensor_parallel, config.vocab});
}

namespace {

constexpr uint32_t kInitDraws = 0x696e6974u;  // "init": keeps these draws apart from all others of the same seed

/// Rows [begin, begin + count) of parameter `index`, of which row r is row r + shift of the whole parameter.
struct InitJob {
  size_t index;
  int64_t begin, count, shift;
};

/// Box-Muller: elements 2k and 2k + 1 are the two normals of one draw.
float initial_normal(uint64_t seed, size_t index, int64_t element) {
  const uint64_t pair = static_cast<uint64_t>(element) / 2;
  const Philox4 x = philox(seed, {{static_cast<uint32_t>(pair), static_cast<uint32_t>(pair >> 32),
                                   static_cast<uint32_t>(index), kInitDraws}});
  const double radius = std::sqrt(-2 * std::log((static_cast<double>(x.x[0]) + 1) * 0x1p-32));
  const double angle = 2 * std::numbers::pi * static_cast<double>(x.x[1]) * 0x1p-32;
  return static_cast<float>(radius * (element % 2 ? std::sin(angle) : std::cos(angle)));
}

void draw(uint64_t seed, float std, const Param& p, const InitJob& job, DType dtype, void* to) {
  const bool norm =
      p.name.ends_with("norm.weight") || p.name.ends_with("norm1.weight") || p.name.ends_with("norm2.weight");
  for (int64_t i = 0; i < job.count * p.columns; ++i) {
    const int64_t row = job.begin + job.shift + i / p.columns, column = p.column_begin + i % p.columns;
    const float v = p.matrix ? std * initial_normal(seed, job.index, row * p.tensor_columns + column)
                    : norm   ? 1.0f
                             : 0.0f;
    if (dtype == DType::f32)
      static_cast<float*>(to)[i] = v;
    else
      static_cast<bf16*>(to)[i] = to_bf16(v);
  }
}

}  // namespace

void Weights::init(uint64_t seed, float std) {
  const ParamTable whole = parameter_table(config_);
  std::vector<InitJob> jobs;
  std::vector<Tensor> to;
  for (size_t i = 0; i < params_.all.size(); ++i) {
    const Param& p = params_.all[i];
    const int64_t step = std::max<int64_t>(1, kUploadElements / p.columns);
    for (const ParamPart& part : p.parts) {
      const int64_t first =
          std::ranges::find(whole.all[i].parts, part.name, &ParamPart::name)->row_begin + part.tensor_row;
      const int64_t end = part.row_begin + part.rows;
      for (int64_t at = part.row_begin; at < end; at += step) {
        jobs.push_back({i, at, std::min(step, end - at), first - part.row_begin});
        to.push_back(flat_.rows(p.offset + at * p.columns, jobs.back().count * p.columns));
      }
    }
  }
  upload(backend_, to,
         [&](size_t i, void* p) { draw(seed, std, params_.all[jobs[i].index], jobs[i], backend_.dtype(), p); });
}

void add_tensors(std::vector<TensorToWrite>& out, const ParamTable& params, const std::string& prefix, DType dtype,
                 int64_t begin, int64_t end, const ReadFlat& read) {
  for (const Param& p : params.all)
    for (const ParamPart& part : p.parts) {
      const Range rows = rows_within(p, part, begin, end);
      if (rows.count() == 0 || part.copy != 0) continue;
      std::string name = prefix + part.name;
      ParamPart stored = part;
      const bool all_columns = p.columns == p.tensor_columns;
      if (rows.count() < part.tensor_rows || !all_columns)
        name += fmt::format("|{}:{}", part.tensor_row + rows.begin, part.tensor_row + rows.end);
      if (!all_columns) name += fmt::format("|{}:{}", p.column_begin, p.column_begin + p.columns);
      stored.rows = rows.count();
      const int64_t first = p.offset + (part.row_begin + rows.begin) * p.columns;
      out.push_back({name, dtype, p.shape_of(stored), [=](uint64_t offset, void* to, size_t bytes) {
                       const size_t size = dtype_size(dtype);
                       read(first + static_cast<int64_t>(offset / size), static_cast<int64_t>(bytes / size), to);
                     }});
    }
}

void Weights::save(const std::string& folder, const ShardFiles& files) const {
  CHECK_EQ(tensor_parallel_.size(), 1, "a rank has a part of the model only");
  std::vector<TensorToWrite> tensors;
  add_tensors(tensors, params_, "", flat_.dtype, 0, params_.size,
              [this](int64_t first, int64_t count, void* to) { backend_.copy_out_now(to, flat_.rows(first, count)); });
  write_safetensors(folder, tensors, files);
  if (files.writer == 0) save_model_config(config_, backend_.dtype(), folder);
}

}  // namespace dapo
