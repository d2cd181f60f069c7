// A toy model on the CPU in f32, for tests of rollouts and whole steps.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "cpu/cpu_backend.h"
#include "model/learner.h"
#include "tests/testdata.h"

namespace dapo {

/// A folder of this test program, removed when it exits.
inline const std::string& temp_folder() {
  static const ScratchFolder folder;
  static const std::string path = folder.path();
  return path;
}

struct Toy {
  std::unique_ptr<Backend> backend = make_cpu_backend(DType::f32);
  SingleComm comm{[](void* b, const Tensor& to, const Tensor& from) { static_cast<Backend*>(b)->copy(to, from); },
                  backend.get()};
  Weights weights{*backend, comm, shapes()};

  explicit Toy(float std = 0.3f) { weights.init(7, std); }
  /// With these weights.
  explicit Toy(const std::vector<float>& values) { set(weights.flat(), values); }
  Toy(const std::vector<float>& values, std::unique_ptr<Backend> device) : backend(std::move(device)) {
    set(weights.flat(), values);
  }

  /// One of the ranks that share a model, with the weights of a folder.
  Toy(const std::string& folder, std::unique_ptr<Backend> device, Comm& tensor)
      : backend(std::move(device)), weights(*backend, tensor, shapes()) {
    weights.load(folder);
  }

  static ModelConfig shapes() {
    ModelConfig c;
    c.hidden = 32;
    c.ffn = 64;
    c.layers = 2;
    c.heads = 2;
    c.kv_heads = 1;
    c.head_dim = 16;
    c.vocab = 264;
    c.rope_theta = 1e4;
    c.max_position = 1024;
    c.eos = {256};
    return c;
  }
  std::vector<float> get(const Tensor& t) {
    std::vector<float> v(static_cast<size_t>(t.numel()));
    if (t.dtype == DType::bf16) {
      std::vector<bf16> half(v.size());
      backend->copy_out_now(half.data(), t);
      std::ranges::transform(half, v.begin(), [](bf16 x) { return to_float(x); });
    } else {
      backend->copy_out_now(v.data(), t);
    }
    return v;
  }
  void set(const Tensor& t, const std::vector<float>& v) {
    ASSERT_EQ(static_cast<size_t>(t.numel()), v.size());
    std::vector<bf16> half;
    for (const float x : v) half.push_back(to_bf16(x));
    backend->copy_in(t, t.dtype == DType::bf16 ? static_cast<const void*>(half.data()) : v.data());
    backend->synchronize();
  }
};

}  // namespace dapo
