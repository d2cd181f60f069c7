#include "fiber.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

/// A copy of each stack frame, which GCC 13 and later make for stack-use-after-return, costs a system call for every
/// fiber: the simulator would be seven times slower. ASAN_OPTIONS goes over this.
extern "C" const char* __asan_default_options() {
  return "detect_stack_use_after_return=0";
}
#endif

namespace sim {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t kStackBytes = 512 << 10;
#else
constexpr std::size_t kStackBytes = 256 << 10;
#endif
constexpr std::size_t kPage = 4096;

thread_local Fibers* arriving = nullptr;

}  // namespace

Fibers::~Fibers() {
  for (auto& f : all_) {
#ifdef __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(f->low, f->size);  // something else will be mapped here
#endif
    munmap(const_cast<char*>(static_cast<const char*>(f->low)) - kPage, kStackBytes + kPage);
  }
}

Fiber* Fibers::start(void (*entry)()) {
  if (free_.empty()) {
    // A guard page below each stack: a stack overflow is a crash, not a corrupted neighbour.
    void* base = mmap(nullptr, kStackBytes + kPage, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (base == MAP_FAILED) {
      std::fprintf(stderr, "sim: no memory for stack %zu\n", all_.size());
      std::abort();
    }
    mprotect(base, kPage, PROT_NONE);
    auto f = std::make_unique<Fiber>();
    f->low = static_cast<char*>(base) + kPage;
    f->size = kStackBytes;
    f->top = static_cast<char*>(base) + kPage + kStackBytes - (all_.size() % 60) * 64;
    free_.push_back(f.get());
    all_.push_back(std::move(f));
  }
  Fiber* f = free_.back();
  free_.pop_back();
#ifdef __SANITIZE_ADDRESS__
  // Frames that were left for good are still poisoned.
  if (f->context) ASAN_UNPOISON_MEMORY_REGION(f->context, static_cast<char*>(f->top) - static_cast<char*>(f->context));
#endif
  entry_ = entry;
  f->fake_stack = nullptr;
  f->context = boost::context::detail::make_fcontext(f->top, f->size - kPage, &Fibers::trampoline);
  return f;
}

void Fibers::leave(Fiber* to) {
  if (running_ != &home_) free_.push_back(running_);
  jump(to, true);
  std::abort();
}

void Fibers::reset() {
  free_.clear();
  for (auto& f : all_) {
#ifdef __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(f->low, f->size);
#endif
    free_.push_back(f.get());
  }
}

void Fibers::jump(Fiber* to, bool for_good) {
  Fiber* from = running_;
  running_ = to;
  arriving = this;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from->fake_stack, to->low, to->size);
#else
  (void)for_good;
#endif
  landed(boost::context::detail::jump_fcontext(to->context, from));
}

void Fibers::landed(boost::context::detail::transfer_t from) {
  Fiber* previous = static_cast<Fiber*>(from.data);
  previous->context = from.fctx;
#ifdef __SANITIZE_ADDRESS__
  const void* low = nullptr;
  std::size_t size = 0;
  __sanitizer_finish_switch_fiber(running_->fake_stack, &low, &size);
  if (previous == &home_) home_.low = low, home_.size = size;
#endif
}

void Fibers::trampoline(boost::context::detail::transfer_t from) {
  Fibers* self = arriving;
  self->landed(from);
  self->entry_();
  std::abort();
}

}  // namespace sim
