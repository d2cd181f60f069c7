#include "allocations.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace sim {
namespace {

struct Ledger {
  std::mutex mutex;
  std::size_t total = std::size_t{80} << 30;
  std::map<const char*, std::size_t> device, pinned;  // begin -> bytes
  std::size_t used = 0;
  bool protect = std::getenv("DAPO_SIM_PROTECT") != nullptr;
  int open = 0;  // DeviceOpen alive
};
Ledger& ledger() {
  static auto* l = new Ledger;
  return *l;
}

std::size_t pages(std::size_t bytes) {
  return (bytes + 4095) / 4096 * 4096;
}

bool inside(const std::map<const char*, std::size_t>& ranges, const void* p, std::size_t bytes) {
  const char* c = static_cast<const char*>(p);
  auto it = ranges.upper_bound(c);
  if (it == ranges.begin()) return false;
  --it;
  return c + bytes <= it->first + it->second;
}

void protect_all(Ledger& d, int access) {
  for (const auto& [begin, bytes] : d.device) mprotect(const_cast<char*>(begin), pages(bytes), access);
}

}  // namespace

cudaError_t allocate(void** p, std::size_t bytes, bool on_device) {
  if (!p) return keep(cudaErrorInvalidValue);
  *p = nullptr;
  if (bytes == 0) return cudaSuccess;
  Ledger& d = ledger();
  std::lock_guard lock(d.mutex);
  auto& ranges = on_device ? d.device : d.pinned;
  if (on_device && (bytes > d.total || d.used + bytes > d.total)) return keep(cudaErrorMemoryAllocation);
  void* q = nullptr;
  if (on_device && d.protect) {
    q = mmap(nullptr, pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (q == MAP_FAILED) return keep(cudaErrorMemoryAllocation);
  } else if (posix_memalign(&q, 256, bytes)) {
    return keep(cudaErrorMemoryAllocation);
  }
  std::memset(q, 0xFF, bytes);  // NaN in fp32 and bf16
  if (on_device && d.protect && d.open == 0) mprotect(q, pages(bytes), PROT_NONE);
  ranges.emplace(static_cast<const char*>(q), bytes);
  if (on_device) d.used += bytes;
  *p = q;
  return cudaSuccess;
}

cudaError_t release(void* p, bool on_device) {
  if (!p) return cudaSuccess;
  Ledger& d = ledger();
  std::lock_guard lock(d.mutex);
  auto& ranges = on_device ? d.device : d.pinned;
  const auto it = ranges.find(static_cast<const char*>(p));
  if (it == ranges.end()) return keep(cudaErrorInvalidValue);
  const std::size_t bytes = it->second;
  if (on_device) d.used -= bytes;
  ranges.erase(it);
  if (on_device && d.protect)
    munmap(p, pages(bytes));
  else
    std::free(p);
  return cudaSuccess;
}

void pin(void* p, std::size_t bytes) {
  std::lock_guard lock(ledger().mutex);
  ledger().pinned.emplace(static_cast<const char*>(p), bytes);
}
bool unpin(void* p) {
  std::lock_guard lock(ledger().mutex);
  return ledger().pinned.erase(static_cast<const char*>(p)) > 0;
}

void limit_memory(std::size_t total) {
  ledger().total = total;
}

MemoryUse memory_use() {
  std::lock_guard lock(ledger().mutex);
  return {ledger().total - std::min(ledger().used, ledger().total), ledger().total};
}

DeviceOpen::DeviceOpen() {
  Ledger& d = ledger();
  if (!d.protect) return;
  std::lock_guard lock(d.mutex);
  if (d.open++ == 0) protect_all(d, PROT_READ | PROT_WRITE);
}
DeviceOpen::~DeviceOpen() {
  Ledger& d = ledger();
  if (!d.protect) return;
  std::lock_guard lock(d.mutex);
  if (--d.open == 0) protect_all(d, PROT_NONE);
}

void count_memory(Live& live) {
  Ledger& d = ledger();
  std::lock_guard lock(d.mutex);
  live.allocations = static_cast<long>(d.device.size());
  live.pinned = static_cast<long>(d.pinned.size());
  live.bytes = d.used;
}

bool is_device(const void* p, std::size_t bytes) {
  std::lock_guard lock(ledger().mutex);
  return inside(ledger().device, p, bytes);
}

bool is_pinned(const void* p, std::size_t bytes) {
  std::lock_guard lock(ledger().mutex);
  return inside(ledger().pinned, p, bytes);
}

}  // namespace sim
