#include "bench/parts/operands.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "tests/ops/elements.h"

namespace dapo::bench {
namespace {

using ops::put;
using ops::typed;

constexpr size_t kPiece = size_t{1} << 20;
constexpr size_t kPattern = 1048573;  // random numbers that repeat; a prime, so that rows of a matrix differ

const std::vector<float>& pattern() {
  static const std::vector<float> numbers = [] {
    std::vector<float> v(kPattern);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& x : v) x = normal(random);
    return v;
  }();
  return numbers;
}

Tensor bytes_of(const Tensor& t, size_t begin, size_t count) {
  return Tensor(static_cast<char*>(t.data) + begin, DType::u8, {static_cast<int64_t>(count)});
}

}  // namespace

Sampled::Sampled(Backend& backend, const std::vector<Tensor>& now, const std::vector<Tensor>& before)
    : backend_(backend) {
  const auto pieces = [](const std::vector<Tensor>& tensors) {
    std::vector<Pieces> all;
    for (const Tensor& t : tensors) {
      all.push_back({t, {}});
      all.back().pieces.resize(t.bytes() / kPiece + 1);
    }
    return all;
  };
  now_ = pieces(now), before_ = pieces(before);
}

const char* Sampled::piece(Pieces& p, size_t index) {
  std::unique_ptr<char[]>& held = p.pieces[index];
  if (held == nullptr) {
    const size_t begin = index * kPiece, count = std::min(kPiece, p.tensor.bytes() - begin);
    held = std::make_unique_for_overwrite<char[]>(count);
    backend_.copy_out_now(held.get(), bytes_of(p.tensor, begin, count));
  }
  return held.get();
}

double Sampled::get(std::vector<Pieces>& all, int operand, int64_t i) {
  Pieces& p = all[operand];
  CHECK(i >= 0 && i < p.tensor.numel(), "operand {}: element {} of {}", operand, i, p.tensor.describe());
  const size_t at = i * dtype_size(p.tensor.dtype);
  const char* from = piece(p, at / kPiece) + at % kPiece;
  return typed(p.tensor.dtype, [from](auto x) { return ops::get<decltype(x)>(from, 0); });
}

void Sampled::read(int operand, int64_t begin, int64_t count, double* to) {
  Pieces& p = now_[operand];
  CHECK(begin >= 0 && begin + count <= p.tensor.numel(), "operand {}: [{}, +{})", operand, begin, count);
  typed(p.tensor.dtype, [&](auto x) {
    constexpr size_t size = sizeof x;
    for (int64_t done = 0; done < count;) {
      const size_t at = static_cast<size_t>(begin + done) * size, inside = at % kPiece;
      const int64_t n = std::min(count - done, static_cast<int64_t>((kPiece - inside) / size));
      const char* from = piece(p, at / kPiece) + inside;
      for (int64_t i = 0; i < n; ++i) to[done + i] = ops::get<decltype(x)>(from, static_cast<size_t>(i));
      done += n;
    }
  });
}

void repeat_first(Backend& backend, const Tensor& t, size_t bytes) {
  for (size_t done = bytes, all = t.bytes(); done < all;) {
    const size_t n = std::min(done, all - done);
    backend.copy(bytes_of(t, done, n), bytes_of(t, 0, n));
    done += n;
  }
}

size_t Operands::bytes(const ops::OpCase& c) {
  size_t sum = 0;
  for (const ops::Operand& o : c.operands) sum += o.numel() * dtype_size(o.dtype);
  return sum;
}

Operands::Operands(Backend& backend, const ops::OpCase& c, int sets) : backend_(backend), case_(c) {
  // The destructor does not run if the constructor throws.
  try {
    for (int s = 0; s < sets; ++s) {
      sets_.emplace_back();
      for (size_t i = 0; i < c.operands.size(); ++i) {
        const ops::Operand& o = c.operands[i];
        Tensor t;
        t.dtype = o.dtype, t.rank = static_cast<int>(o.shape.size());
        std::copy(o.shape.begin(), o.shape.end(), t.shape.begin());
        t = allocate(t);
        if (s == 0)
          fill(t, o, i);
        else
          backend_.copy(t, sets_[0][i]);
        sets_.back().push_back(t);
      }
    }
    const size_t scratch = backend.workspace_bytes(c.needs);
    const Tensor memory = allocate(Tensor(nullptr, DType::u8, {static_cast<int64_t>(scratch)}));
    arena_ = std::make_unique<Arena>("workspace", memory.data, scratch);
    backend_.set_workspace(arena_.get());
    backend_.synchronize();
  } catch (...) {
    for (const Tensor& t : owned_) backend_.release(t.data, t.bytes());
    throw;
  }
}

Operands::~Operands() {
  backend_.set_workspace(nullptr);
  for (const Tensor& t : owned_) backend_.release(t.data, t.bytes());
}

Tensor Operands::allocate(const Tensor& like) {
  Tensor t = like;
  t.data = backend_.allocate(std::max<size_t>(t.bytes(), 1));
  owned_.push_back(t);
  return t;
}

void Operands::fill(const Tensor& t, const ops::Operand& o, size_t index) {
  const size_t count = t.numel(), size = dtype_size(t.dtype);
  const size_t unit = o.preset.empty() ? std::min(count, kPattern) : count;
  std::vector<char> host(unit * size);
  const bool square = std::strcmp(o.name, "v") == 0;  // a second moment is not negative
  if (o.role == ops::Role::out)
    std::fill(host.begin(), host.end(), static_cast<char>(0xff));  // NaN in every type
  else
    typed(t.dtype, [&](auto x) {
      const std::vector<float>& random = pattern();
      const size_t shift = index * 104729;  // operands begin differently
      for (size_t i = 0; i < unit; ++i) {
        const double v = o.preset.empty() ? random[(shift + i) % kPattern] * o.scale + o.offset : o.preset[i];
        put<decltype(x)>(host.data(), i, square ? v * v : v);
      }
    });
  backend_.copy_in(bytes_of(t, 0, host.size()), host.data());
  backend_.synchronize();
  repeat_first(backend_, t, host.size());
}

std::vector<Tensor> Operands::keep_inouts() {
  std::vector<Tensor> kept(case_.operands.size());
  for (size_t i = 0; i < kept.size(); ++i) {
    if (case_.operands[i].role != ops::Role::inout) continue;
    kept[i] = allocate(sets_[0][i]);
    backend_.copy(kept[i], sets_[0][i]);
  }
  backend_.synchronize();
  return kept;
}

}  // namespace dapo::bench
