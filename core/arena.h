// Arena: one allocation at start, handed out in named pieces; scratch is mark/release. A measuring arena has no memory
// and only counts, so that --plan runs the code that later lays the memory out.
#pragma once

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "core/sizes.h"
#include "core/tensor.h"

namespace dapo {

class Arena {
 public:
  static constexpr size_t kAlign = 256;
  struct Holding {
    std::string what;
    size_t bytes;
  };

  /// Measures: the tensors of take() have no memory.
  explicit Arena(std::string name) : name_(std::move(name)) {}
  /// Lays out [base, base + capacity); base is aligned to kAlign; the caller owns it.
  Arena(std::string name, void* base, size_t capacity)
      : name_(std::move(name)), base_(static_cast<char*>(base)), capacity_(capacity) {}

  /// A tensor in fresh memory (contents unspecified). Error kExitResources if the arena is full.
  Tensor take(const char* what, DType dtype, std::initializer_list<int64_t> shape) {
    Tensor t(nullptr, dtype, shape);
    const size_t bytes = round_up(t.bytes(), kAlign);
    if (base_ != nullptr) {
      if (bytes > capacity_ - used_)
        fail(kExitResources, "arena {}: {} needs {} bytes, {} of {} are free", name_, what, bytes, capacity_ - used_,
             capacity_);
      t.data = base_ + used_;
    }
    used_ += bytes;
    peak_ = std::max(peak_, used_);
    note(what, bytes);
    return t;
  }

  size_t mark() const { return used_; }
  void release(size_t mark) {
    CHECK_LE(mark, used_, "arena {}", name_);
    used_ = mark;
    for (; !live_.empty() && live_.back().end > mark; live_.pop_back())
      now_[live_.back().holding] -= live_.back().bytes;
  }

  bool measuring() const { return base_ == nullptr; }
  const std::string& name() const { return name_; }
  size_t used() const { return used_; }
  size_t peak() const { return peak_; }
  size_t capacity() const { return capacity_; }
  /// The most bytes that each name ever held at once.
  const std::vector<Holding>& holdings() const { return holdings_; }

 private:
  struct Live {
    size_t holding, bytes, end;
  };
  void note(const char* what, size_t bytes) {
    size_t i = 0;
    while (i < holdings_.size() && holdings_[i].what != what) ++i;
    if (i == holdings_.size()) holdings_.push_back({what, 0}), now_.push_back(0);
    now_[i] += bytes;
    holdings_[i].bytes = std::max(holdings_[i].bytes, now_[i]);
    live_.push_back({i, bytes, used_});
  }

  std::string name_;
  char* base_ = nullptr;
  size_t capacity_ = 0, used_ = 0, peak_ = 0;
  std::vector<Holding> holdings_;
  std::vector<size_t> now_;  // bytes held now, by holding
  std::vector<Live> live_;
};

/// Releases what was taken since its construction.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& a) : arena_(a), mark_(a.mark()) {}
  ~ArenaScope() { arena_.release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  size_t mark_;
};

}  // namespace dapo
