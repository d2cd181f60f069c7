// A case's tensors on a device, in several sets, so that a repeated op does not find its operands in cache; and samples
// of them on the host. Contents are normal random numbers; outputs start as NaN.
#pragma once

#include <memory>
#include <vector>

#include "tests/ops/op_case.h"

namespace dapo::bench {

/// The contents of a case's tensors before and after the op, read piece by piece from the first set.
class Sampled {
 public:
  Sampled(Backend& backend, const std::vector<Tensor>& now, const std::vector<Tensor>& before);
  /// Element i of an operand: of an input, or of an output after the op has run.
  double at(int operand, int64_t i) { return get(now_, operand, i); }
  /// Element i of an in-out operand before the op ran.
  double before(int operand, int64_t i) { return get(before_, operand, i); }
  /// Elements [begin, begin + count) as at().
  void read(int operand, int64_t begin, int64_t count, double* to);
  int64_t numel(int operand) const { return now_[operand].tensor.numel(); }
  const Tensor& tensor(int operand) const { return now_[operand].tensor; }
  Backend& backend() { return backend_; }

 private:
  struct Pieces {
    Tensor tensor;
    std::vector<std::unique_ptr<char[]>> pieces;  ///< those that were read
  };
  const char* piece(Pieces& p, size_t index);
  double get(std::vector<Pieces>& all, int operand, int64_t i);
  Backend& backend_;
  std::vector<Pieces> now_, before_;
};

/// Fills a tensor with copies of its first `bytes` bytes, on the device.
void repeat_first(Backend& backend, const Tensor& t, size_t bytes);

/// Owns the tensors of `sets` copies of a case and the workspace that it needs.
class Operands {
 public:
  Operands(Backend& backend, const ops::OpCase& c, int sets);
  ~Operands();
  Operands(const Operands&) = delete;
  Operands& operator=(const Operands&) = delete;

  const std::vector<Tensor>& set(int i) const { return sets_[i]; }
  int sets() const { return static_cast<int>(sets_.size()); }
  /// Copies of the in-out operands as they are now; the others are empty.
  std::vector<Tensor> keep_inouts();
  /// Bytes of one set.
  static size_t bytes(const ops::OpCase& c);

 private:
  void fill(const Tensor& t, const ops::Operand& o, size_t index);
  Tensor allocate(const Tensor& like);
  Backend& backend_;
  const ops::OpCase& case_;
  std::vector<std::vector<Tensor>> sets_;
  std::vector<Tensor> owned_;
  std::unique_ptr<Arena> arena_;
};

}  // namespace dapo::bench
