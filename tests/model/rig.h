// A model for tests on the program's backend, packs made of sequences, and small random models.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "model/decode.h"
#include "model/learner.h"
#include "tests/testdata.h"

namespace dapo {

/// The backend under test; each test program defines it (the CPU's: rig.cpp).
std::unique_ptr<Backend> rig_backend(DType dtype);
/// Runs rank(its backend, its communicator) on ranks that are threads.
void run_rig_ranks(DType dtype, int ranks, const std::function<void(Backend&, Comm&)>& rank);
/// False for bf16 on a CPU without bf16 products.
bool rig_has(DType dtype);
inline std::vector<DType> rig_types() {
  std::vector<DType> types = {DType::f32};
  if (rig_has(DType::bf16)) types.push_back(DType::bf16);
  return types;
}
#define SKIP_WITHOUT(dtype) \
  if (!rig_has(dtype)) GTEST_SKIP() << "skipped: this CPU cannot multiply " << dtype_name(dtype)

/// A namespace of its own: test_cuda links these tests with the host's, which also have a Group and a toy_config().
inline namespace model_tests {

struct Rig {
  std::unique_ptr<Backend> backend;
  SingleComm comm;
  std::unique_ptr<Weights> weights;
  std::unique_ptr<ModelMemory> memory;
  std::unique_ptr<Decoder> decoder;  ///< after reserve(), if the limits have a batch
  std::unique_ptr<Learner> learner;  ///< after reserve(), if the limits have packs

  explicit Rig(const ModelConfig& config, DType dtype = DType::f32)
      : backend(rig_backend(dtype)),
        comm([](void* b, const Tensor& to, const Tensor& from) { static_cast<Backend*>(b)->copy(to, from); },
             backend.get()),
        weights(std::make_unique<Weights>(*backend, comm, config)) {}
  /// A folder's model, loaded.
  explicit Rig(const std::string& folder, DType dtype = DType::f32) : Rig(load_model_config(folder), dtype) {
    weights->load(folder);
  }
  void reserve(const ModelLimits& limits) {
    memory = std::make_unique<ModelMemory>(*weights, limits);
    if (limits.batch > 0) decoder = std::make_unique<Decoder>(*memory);
    if (limits.pack_tokens > 0) learner = std::make_unique<Learner>(*memory);
  }
  /// reserve(), then packs at once.
  Learner& learner_for(const ModelLimits& limits) {
    reserve(limits);
    learner->begin();
    return *learner;
  }
};

/// A toy with every feature (grouped heads, bias) and odd sizes. Its head_dim is the smallest that the tensor-core
/// kernels support.
inline ModelConfig toy_config() {
  ModelConfig c;
  c.hidden = 48, c.ffn = 80, c.layers = 3, c.heads = 4, c.kv_heads = 2, c.head_dim = 32, c.vocab = 101;
  c.rope_theta = 1e4;
  c.max_position = 1024;
  c.eos = {1};
  return c;
}

/// A toy with random norms and biases as well.
inline std::unique_ptr<Rig> toy_rig(const ModelConfig& config = toy_config(), DType dtype = DType::f32) {
  auto rig = std::make_unique<Rig>(config, dtype);
  rig->weights->init(7, 0.15f);
  const ParamTable& params = rig->weights->params();
  for (size_t i = 0; i < params.all.size(); ++i)
    if (const Param& p = params.all[i]; !p.matrix)
      for (int64_t j = 0; j < p.numel(); ++j) {
        const float v = (p.name.ends_with("bias") ? 0.0f : 0.8f) +
                        0.4f * uniform(philox(99, {{static_cast<uint32_t>(i), static_cast<uint32_t>(j), 0, 0}}).x[0]);
        const Tensor at = rig->weights->flat().rows(p.offset + j, 1);
        const bf16 half = to_bf16(v);
        rig->backend->copy_in(at, dtype == DType::f32 ? static_cast<const void*>(&v) : &half);
        rig->backend->synchronize();
      }
  return rig;
}

inline std::vector<int32_t> random_ids(uint64_t seed, int n, int vocab) {
  std::vector<int32_t> ids;
  for (int i = 0; i < n; ++i)
    ids.push_back(
        static_cast<int32_t>(philox(seed, {{static_cast<uint32_t>(i), 0, 0, 0}}).x[0] % static_cast<uint32_t>(vocab)));
  return ids;
}

/// A prompt and its responses.
struct Group {
  std::vector<int32_t> prompt;
  std::vector<std::vector<int32_t>> responses;
};

struct PackOptions {
  bool share_prompt = true;  ///< one prompt segment and its responses; else each response with its own copy
};

/// Head rows are ordered by group, response, token in either layout.
inline Pack make_pack(const std::vector<Group>& groups, PackOptions options = {}) {
  Pack p;
  const auto add = [&](const std::vector<int32_t>& ids, int32_t prefix) {
    p.segments.push_back({static_cast<int32_t>(p.ids.size()), static_cast<int32_t>(ids.size()), prefix});
    p.ids.insert(p.ids.end(), ids.begin(), ids.end());
    return static_cast<int32_t>(p.segments.size()) - 1;
  };
  for (const Group& g : groups) {
    int32_t prompt = options.share_prompt ? add(g.prompt, -1) : -1;
    for (const auto& response : g.responses) {
      if (!options.share_prompt) {
        prompt = add(g.prompt, -1);
      }
      const int32_t last = p.segments[static_cast<size_t>(prompt)].begin + static_cast<int32_t>(g.prompt.size()) - 1;
      const int32_t begin = static_cast<int32_t>(p.ids.size());
      add(response, prompt);
      for (size_t i = 0; i < response.size(); ++i) {
        p.head_rows.push_back(i == 0 ? last : begin + static_cast<int32_t>(i) - 1);
        p.targets.push_back(response[i]);
      }
    }
  }
  p.advantage.assign(p.head_rows.size(), 1.0f);
  p.weight.assign(p.head_rows.size(), 1.0f / static_cast<float>(p.head_rows.size()));
  return p;
}

inline ModelLimits training_limits(const Pack& p, int max_length = 512) {
  ModelLimits limits;
  limits.max_length = max_length;
  limits.pack_tokens = static_cast<int64_t>(p.ids.size());
  limits.pack_segments = static_cast<int64_t>(p.segments.size());
  limits.pack_head_rows = static_cast<int64_t>(p.head_rows.size());
  limits.train = true;
  return limits;
}

inline std::vector<float> to_host(Backend& backend, const Tensor& t) {
  std::vector<float> v(static_cast<size_t>(t.numel()));
  if (t.dtype == DType::f32) {
    backend.copy_out_now(v.data(), t);
  } else {
    std::vector<bf16> half(v.size());
    backend.copy_out_now(half.data(), t);
    for (size_t i = 0; i < v.size(); ++i) v[i] = to_float(half[i]);
  }
  return v;
}

/// |a - b| / |b|, in double.
inline double relative_norm(std::span<const float> a, std::span<const float> b) {
  double d = 0, n = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double x = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    d += x * x, n += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return n > 0 ? std::sqrt(d / n) : std::sqrt(d);
}

inline double max_difference(std::span<const float> a, std::span<const float> b) {
  double worst = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double x = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(x <= worst)) worst = x;
  }
  return worst;
}

template <class T>
std::vector<T> read_values(const SafetensorsReader& file, const std::string& name) {
  const TensorInfo* t = file.find(name);
  if (t == nullptr) fail(kExitInternal, "{} is missing", name);
  std::vector<T> v(t->bytes() / sizeof(T));
  file.read(*t, 0, v.data(), t->bytes());
  return v;
}

}  // namespace model_tests
}  // namespace dapo
