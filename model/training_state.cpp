#include "model/training_state.h"

#include <cstring>
#include <new>
#include <vector>

#include "core/safetensors.h"
#include "model/upload.h"

namespace dapo {

TrainingState::TrainingState(const Learner& learner)
    : weights_(learner.weights()),
      parts_{{{"", weights_.flat()},
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

ReadFlat TrainingState::reader(const Part& part) const {
  return [&part, &backend = weights_.backend()](int64_t first, int64_t count, void* to) {
    const size_t size = dtype_size(part.device.dtype);
    if (part.copy)
      std::memcpy(to, part.copy.get() + size_t(first) * size, size_t(count) * size);
    else
      backend.copy_out_now(to, part.device.rows(first, count));
  };
}

void TrainingState::save_model(const std::string& folder) const {
  std::vector<TensorToWrite> tensors;
  add_tensors(tensors, weights_.params(), "", weights_.flat().dtype, reader(parts_[0]));
  write_safetensors(folder, tensors);
  save_model_config(weights_.config(), weights_.flat().dtype, folder);
}

void TrainingState::save_optimizer(const std::string& path) const {
  std::vector<TensorToWrite> tensors;
  for (size_t i = 1; i < parts_.size(); ++i)
    if (parts_[i].device)
      add_tensors(tensors, weights_.params(), parts_[i].prefix, parts_[i].device.dtype, reader(parts_[i]));
  write_safetensors_file(path, tensors);
}

namespace {

struct Slice {
  const TensorInfo* from;
  int64_t first;  ///< element of the tensor
};

/// Plans the read of a flat buffer in slices that keep a thread busy.
void plan_slices(const SafetensorsReader& file, const ParamTable& params, const std::string& prefix, const Tensor& flat,
                 std::vector<Slice>& from, std::vector<Tensor>& to) {
  const std::string dtype = flat.dtype == DType::f32 ? "F32" : "I16";
  for (const Param& p : params.all)
    for (const ParamPart& part : p.parts) {
      const TensorInfo* t = file.find(prefix + part.name);
      if (t == nullptr)
        fail_input("{}: tensor '{}{}' is missing: it belongs to another model, or model.dtype has changed",
                   file.tensors().empty() ? "?" : file.tensors()[0].file, prefix, part.name);
      if (t->shape != p.shape_of(part) || t->dtype != dtype)
        fail_input("{}: tensor '{}' is {}, which does not fit the model", t->file, t->name, t->describe());
      const int64_t count = part.rows * p.columns, begin = p.offset + part.row_begin * p.columns;
      for (int64_t at = 0; at < count; at += kUploadElements) {
        from.push_back({t, at});
        to.push_back(flat.rows(begin + at, std::min(kUploadElements, count - at)));
      }
    }
}

}  // namespace

void load_optimizer(const Learner& learner, const std::string& path) {
  const SafetensorsReader file(path);
  std::vector<Slice> from;
  std::vector<Tensor> to;
  const ParamTable& params = learner.weights().params();
  plan_slices(file, params, "moment1.", learner.moment1(), from, to);
  plan_slices(file, params, "moment2.", learner.moment2(), from, to);
  if (learner.remainders()) plan_slices(file, params, "remainder.", learner.remainders(), from, to);
  upload(learner.backend(), to, [&](size_t i, void* p) {
    file.read(*from[i].from, uint64_t(from[i].first) * dtype_size(to[i].dtype), p, to[i].bytes());
  });
}

}  // namespace dapo
