// Collectives between the ranks of a group, with an implementation for one rank.
#pragma once

#include "core/tensor.h"

namespace dapo {

class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// t = sum over ranks (f32, f64, bf16 with f32 sums), the same bits on every rank.
  virtual void all_reduce_sum(const Tensor& t) = 0;
  /// t = max over ranks (i32, f32, f64).
  virtual void all_reduce_max(const Tensor& t) = 0;
  /// out[size, n] = every rank's in[n], by rank.
  virtual void all_gather(const Tensor& out, const Tensor& in) = 0;
  /// out[n] = row rank() of the sum over ranks of in[size, n].
  virtual void reduce_scatter(const Tensor& out, const Tensor& in) = 0;
  virtual void broadcast(const Tensor& t, int root) = 0;
  virtual void barrier() = 0;
};

/// A group of one rank: every collective is a no-op, or a copy.
class SingleComm final : public Comm {
 public:
  using Copy = void (*)(void* context, const Tensor& to, const Tensor& from);
  /// `copy` moves bytes on the device that the tensors live on (out-of-place collectives of one rank are copies).
  SingleComm(Copy copy, void* context) : copy_(copy), context_(context) {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void all_reduce_sum(const Tensor&) override {}
  void all_reduce_max(const Tensor&) override {}
  void all_gather(const Tensor& out, const Tensor& in) override { move(out, in); }
  void reduce_scatter(const Tensor& out, const Tensor& in) override { move(out, in); }
  void broadcast(const Tensor&, int root) override { CHECK_EQ(root, 0); }
  void barrier() override {}

 private:
  void move(const Tensor& out, const Tensor& in) {
    CHECK_EQ(out.bytes(), in.bytes());
    if (out.data != in.data) copy_(context_, out, in);
  }
  Copy copy_;
  void* context_;
};

}  // namespace dapo
