// Steps after the first allocate no memory for the model: no pages from the system, no large block of the heap.
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/host/train/trainer_case.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
namespace {

constexpr size_t kLarge = size_t{1} << 18;  // far above the lists of ids that a toy step keeps on the host
std::atomic<bool> armed = false;
std::atomic<size_t> mapped = 0, large = 0;

void* counted(size_t bytes) {
  if (armed && bytes >= kLarge) ++large;
  if (void* p = std::malloc(bytes > 0 ? bytes : 1)) return p;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(size_t bytes) {
  return counted(bytes);
}
void* operator new[](size_t bytes) {
  return counted(bytes);
}
void operator delete(void* p) noexcept {
  std::free(p);
}
void operator delete[](void* p) noexcept {
  std::free(p);
}
void operator delete(void* p, size_t) noexcept {
  std::free(p);
}
void operator delete[](void* p, size_t) noexcept {
  std::free(p);
}

/// The CPU backend's memory (Backend::allocate) comes from here; malloc has its own way to the system.
extern "C" void* mmap(void* at, size_t bytes, int protection, int flags, int fd, off_t offset) noexcept {
  if (armed) ++mapped;
  return reinterpret_cast<void*>(syscall(SYS_mmap, at, bytes, protection, flags, fd, offset));
}

namespace dapo {
namespace {

TEST(StepMemory, StepsAfterTheFirstAllocateNothing) {
  Config c = toy_config();
  c.data.max_response_length = 24;
  c.rollout.ignore_eos = true;
  c.algorithm.filter_groups = false;
  mapped = large = 0;
  armed = true;
  Case run(c, questions("a"), guesser());
  EXPECT_GE(mapped, 4u) << "the arenas are counted as they are allocated";
  run.trainer.step();
  mapped = large = 0;
  for (int i = 0; i < 4; ++i) run.trainer.step();
  armed = false;
  EXPECT_EQ(mapped, 0u);
  EXPECT_EQ(large, 0u);
  armed = true;
  std::vector<char>* block = new std::vector<char>(kLarge);
  armed = false;
  EXPECT_EQ(large, 1u) << "a large block of the heap is counted";
  delete block;
}

}  // namespace
}  // namespace dapo
#endif
