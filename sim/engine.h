// The inside of the simulator: one OS thread runs one block at a time; each CUDA thread of it is a fiber.
#pragma once

#include <cstdint>
#include <memory>
#include <source_location>
#include <string>
#include <vector>

#include "fiber.h"
#include "running.h"
#include "sim.h"

namespace sim {

using Where = std::source_location;

struct AsyncCopy {
  char* to;
  const char* from;
  unsigned bytes;  ///< bytes read; the rest of the 4, 8 or 16 is zero
  unsigned width;
  unsigned group;
};

/// One CUDA thread.
struct Lane {
  uint3 thread;
  unsigned index;        ///< linear in the block
  Fiber* fiber;          ///< null until it has run
  void* argument;        ///< its argument to the collective it waits at
  const char* waits_at;  ///< null while it can run
  Where where;
  unsigned groups;  ///< cp.async groups committed
  bool waited;      ///< griddepcontrol.wait has returned
  std::vector<AsyncCopy> copies;
};

/// Some lanes of a warp that wait for the rest of their mask.
struct Meeting {
  std::uint32_t mask, arrived;
  const char* what;
  Where where;
};

struct Warp {
  std::uint32_t exists, exited, ready;
  std::vector<Meeting> meetings;
};

struct Barrier {
  unsigned expected, arrived;
  const char* what;
  Where where;
  std::vector<std::uint32_t> waiting;  ///< lanes to wake, by warp
  int count, all, any;
};

/// A launch while its blocks run, shared by the OS threads that run them.
struct Launch {
  const void* function;
  void (*call)(void*);
  std::shared_ptr<void> arguments;
  dim3 grid, block;
  std::size_t smem_bytes;
  std::uint64_t seed;
  std::uint32_t serial;
  bool overlaps;  ///< a card may start it before the kernel ahead of it has ended
};

/// Runs the whole grid; false if a fault was found.
bool run_grid(const Launch& launch);

/// The block that this OS thread runs.
class Block {
 public:
  explicit Block(const Launch& launch);
  ~Block();
  /// False if a fault stopped it.
  bool run(uint3 index, std::uint32_t serial);

  // Called on fibers.
  void sync(unsigned id, unsigned threads, const char* what, bool wait, int predicate, Where where);
  /// Lanes of `mask` meet; the last one to arrive runs op for all.
  void meet(std::uint32_t mask, const char* what, void (*op)(Block&, std::uint32_t mask), void* argument, Where where);
  void yield();
  [[noreturn]] void fault(const char* kind, const std::string& text, const std::string& where,
                          const Lane* who = nullptr);
  [[noreturn]] void fault(const char* kind, const std::string& text, Where where, const Lane* who = nullptr);

  Lane& lane() { return *running.lane; }
  /// Lane i of the running warp.
  Lane& peer(unsigned i) { return lanes[(running.lane->index & ~31u) + i]; }
  Warp& warp() { return warps[running.lane->index / 32]; }
  bool in_dynamic(const void* p, std::size_t n) const {
    const char* c = static_cast<const char*>(p);
    return c >= dynamic && c + n <= dynamic + launch.smem_bytes;
  }
  std::string describe(const Lane& lane) const;

  const Launch& launch;
  std::uint32_t serial = 0;  ///< of this block in the process; stamps the race checker's shadow
  uint3 index{};
  unsigned threads;
  char* dynamic = nullptr;
  std::vector<Lane> lanes;
  std::vector<Warp> warps;
  int barrier_result = 0;  ///< of __syncthreads_count, _and, _or
  Stats stats;

 private:
  friend struct BlockAccess;
  static void entry();
  void run_lane();
  void enter(Lane* next);
  Lane* pick();
  Lane* finish();
  void block_until_woken(const char* what, Where where);
  void wake(unsigned warp, std::uint32_t mask);
  [[noreturn]] void deadlock();
  std::uint64_t random();

  std::vector<Barrier> barriers_;
  std::uint32_t ready_warps_ = 0;
  unsigned warp_now_ = 0;
  unsigned live_ = 0;
  unsigned exited_ = 0;
  std::uint64_t random_ = 1;
  bool faulted_ = false;
};

/// The block that runs on this OS thread; null outside kernels.
extern thread_local constinit Block* block_now;

void record_fault(Fault f);
std::string last_fault_message();
std::string at(const Where& w);
/// "file:line" of the innermost frame at a code address that is not in sim/ or cuda/ptx.cuh, and its function's name.
std::string source_line(const void* code);
std::string function_name(const void* code);
/// The same of several, in a fraction of the time.
std::vector<std::string> function_names(const std::vector<const void*>& codes);
/// Range of this OS thread's static __shared__ variables and its other thread-local ones.
struct Range {
  const char* low = nullptr;
  const char* high = nullptr;
};
Range thread_local_range();
/// True if p may be a __shared__ address of the running block.
bool is_shared(const void* p, std::size_t bytes);

}  // namespace sim
