// Runs a case on a backend: operands between guard words, outputs pre-filled with NaN, inputs rounded first.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>

#include "tests/ops/elements.h"
#include "tests/ops/op_case.h"

namespace dapo::ops {

inline double round_to(DType t, double x) {
  switch (t) {
    case DType::bf16:
      return to_float(to_bf16(static_cast<float>(x)));
    case DType::f32:
      return static_cast<float>(x);
    default:
      return x;
  }
}

inline std::vector<std::byte> encode(DType t, const Values& v) {
  std::vector<std::byte> bytes(v.size() * dtype_size(t));
  typed(t, [&](auto x) {
    for (size_t i = 0; i < v.size(); ++i) put<decltype(x)>(bytes.data(), i, v[i]);
  });
  return bytes;
}
inline Values decode(DType t, const std::byte* bytes, size_t count) {
  Values v(count);
  typed(t, [&](auto x) {
    for (size_t i = 0; i < count; ++i) v[i] = get<decltype(x)>(bytes, i);
  });
  return v;
}

/// FNV-1a of 128 bits (http://www.isthe.com/chongo/tech/comp/fnv), in hexadecimal.
inline std::string hash_of(const std::vector<std::byte>& bytes) {
  __extension__ using Word = unsigned __int128;
  constexpr Word kPrime = Word{1} << 88 | 0x13b;
  Word h = Word{0x6c62272e07bb0142} << 64 | 0x62b821756295c58d;
  for (const std::byte b : bytes) h = (h ^ static_cast<uint8_t>(b)) * kPrime;
  return fmt::format("{:016x}{:016x}", static_cast<uint64_t>(h >> 64), static_cast<uint64_t>(h));
}

/// Proves that a change keeps every bit: DAPO_TEST_HASHES=FILE appends a line "test, tensor, hash" for each tensor that
/// a test of the ops reads back. Run the same tests of both commits in one process each, and diff the files.
inline void log_hash(const std::string& what, const std::vector<std::byte>& bytes) {
  const char* path = std::getenv("DAPO_TEST_HASHES");
  const ::testing::TestInfo* test = ::testing::UnitTest::GetInstance()->current_test_info();
  if (path == nullptr || test == nullptr) return;
  std::FILE* file = std::fopen(path, "a");
  if (file == nullptr) fail_input("DAPO_TEST_HASHES={}: cannot be opened for appending", path);
  fmt::print(file, "{}.{}, {}, {}\n", test->test_suite_name(), test->name(), what, hash_of(bytes));
  std::fclose(file);
}

/// Device memory of one operand, with guard words at both ends.
class Guarded {
 public:
  static constexpr size_t kGuard = 256;
  Guarded(Backend& b, DType t, const std::vector<int64_t>& shape) : backend_(b) {
    tensor.dtype = t;
    tensor.rank = static_cast<int>(shape.size());
    std::copy(shape.begin(), shape.end(), tensor.shape.begin());
    // The end guard begins right after the last element, so that one element too many is seen.
    host_.assign(tensor.bytes() + 2 * kGuard, std::byte{0xc5});
    all_ = Tensor(b.allocate(host_.size()), DType::u8, {std::ssize(host_)});
    tensor.data = static_cast<char*>(all_.data) + kGuard;
  }
  ~Guarded() { backend_.release(all_.data, host_.size()); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  void fill(const std::byte* contents) {
    std::copy_n(contents, tensor.bytes(), host_.data() + kGuard);  // none, perhaps
    backend_.copy_in(all_, host_.data());
    backend_.synchronize();
  }
  /// The contents now; fails where a guard was written.
  std::vector<std::byte> read(const std::string& what) const {
    std::vector<std::byte> now(host_.size());
    backend_.copy_out_now(now.data(), all_);
    for (size_t i = 0; i < kGuard; ++i) {
      EXPECT_EQ(now[kGuard - 1 - i], std::byte{0xc5}) << what << ": written " << i + 1 << " bytes before its begin";
      EXPECT_EQ(now[now.size() - kGuard + i], std::byte{0xc5}) << what << ": written " << i << " bytes past its end";
      if (::testing::Test::HasFailure()) break;
    }
    std::vector<std::byte> contents(now.begin() + kGuard, now.end() - static_cast<std::ptrdiff_t>(kGuard));
    log_hash(what, contents);
    return contents;
  }

  Tensor tensor;

 private:
  Backend& backend_;
  Tensor all_;
  std::vector<std::byte> host_;
};

/// The workspace of a case, set for as long as it lives.
class ScopedWorkspace {
 public:
  ScopedWorkspace(Backend& b, const WorkspaceNeeds& needs)
      : backend_(b),
        bytes_(b.workspace_bytes(needs)),
        memory_(b.allocate(bytes_)),
        arena_("workspace", memory_, bytes_) {
    b.set_workspace(&arena_);
  }
  ~ScopedWorkspace() {
    backend_.set_workspace(nullptr);
    backend_.release(memory_, bytes_);
  }
  ScopedWorkspace(const ScopedWorkspace&) = delete;
  ScopedWorkspace& operator=(const ScopedWorkspace&) = delete;

 private:
  Backend& backend_;
  size_t bytes_;
  void* memory_;
  Arena arena_;
};

/// What goes in: preset, random or derived, rounded to its type; outputs are NaN.
inline std::vector<Values> inputs_of(const OpCase& c, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<Values> all;
  for (const Operand& o : c.operands) {
    Values v = o.preset;
    if (v.empty()) v.assign(o.numel(), NAN);
    if (o.preset.empty() && o.role != Role::out)
      for (double& x : v) x = o.integers ? static_cast<double>(random() % 3) - 1 : normal(random) * o.scale + o.offset;
    all.push_back(std::move(v));
  }
  const auto round = [&] {
    for (size_t i = 0; i < all.size(); ++i)
      for (double& x : all[i]) x = round_to(c.operands[i].dtype, x);
  };
  round();
  if (c.derive) c.derive(all), round();
  return all;
}

/// The operands after the op has run; checks guards, and that inputs stay as they are.
inline std::vector<std::vector<std::byte>> run_case(Backend& b, const OpCase& c, const std::vector<Values>& inputs) {
  std::vector<std::unique_ptr<Guarded>> memory;
  std::vector<Tensor> tensors;
  std::vector<std::vector<std::byte>> before, after;
  for (size_t i = 0; i < c.operands.size(); ++i) {
    const Operand& o = c.operands[i];
    memory.push_back(std::make_unique<Guarded>(b, o.dtype, o.shape));
    before.push_back(encode(o.dtype, inputs[i]));
    if (o.role == Role::out) std::fill(before[i].begin(), before[i].end(), std::byte{0xff});  // NaN in every type
    memory[i]->fill(before[i].data());
    tensors.push_back(memory[i]->tensor);
  }
  const ScopedWorkspace workspace(b, c.needs);
  c.run(b, tensors);
  b.synchronize();
  for (size_t i = 0; i < c.operands.size(); ++i) {
    after.push_back(memory[i]->read(c.name() + ": " + c.operands[i].name));
    if (c.operands[i].role == Role::in) {
      EXPECT_TRUE(before[i] == after[i]) << c.name() << ": input " << c.operands[i].name << " was changed";
    }
  }
  return after;
}

inline std::vector<Values> decoded(const OpCase& c, const std::vector<std::vector<std::byte>>& bytes) {
  std::vector<Values> v;
  for (size_t i = 0; i < bytes.size(); ++i)
    v.push_back(decode(c.operands[i].dtype, bytes[i].data(), static_cast<size_t>(c.operands[i].numel())));
  if (c.decode) c.decode(v);
  return v;
}

}  // namespace dapo::ops
