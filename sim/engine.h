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

class Block;
class Cluster;
struct Hopper;

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
  unsigned index;  ///< linear in the block
  Block* block;
  Fiber* fiber;          ///< null until it has run
  void* argument;        ///< its argument to the collective it waits at
  const char* waits_at;  ///< null while it can run
  Where where;
  unsigned groups;                ///< cp.async groups committed
  unsigned wgmma_groups, fences;  ///< wgmma groups committed, wgmma.fence executed
  unsigned bulk_groups, bulk_open,
      bulk_waited;   ///< groups of bulk copies: committed; copies in none; groups waited for
  Where bulk_where;  ///< the last bulk store
  std::vector<std::pair<unsigned, std::uint32_t>> bulk_reads;  ///< group and time of each, for the race checker
  bool waited;                                                 ///< griddepcontrol.wait has returned
  bool at_cluster;                                             ///< arrived at barrier.cluster, and has not waited
  unsigned cluster_arrived;                                    ///< in this phase of the cluster's barrier
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

/// Threads of a warpgroup that wait for the rest of its 128.
struct GroupMeeting {
  unsigned arrived, exited;
  const char* what;
  Where where;
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
  dim3 cluster;
  std::size_t smem_bytes;
  std::uint64_t seed;
  std::uint32_t serial;
  bool overlaps;  ///< a card may start it before the kernel ahead of it has ended
};

/// Runs the whole grid; false if a fault was found.
bool run_grid(const Launch& launch);

/// A block that this OS thread runs.
class Block {
 public:
  Block(const Launch& launch, Cluster& cluster, unsigned rank);
  ~Block();
  /// Every thread is at the kernel's start.
  void prepare(uint3 index, std::uint32_t serial);

  // Called on fibers.
  void sync(unsigned id, unsigned threads, const char* what, bool wait, int predicate, Where where);
  /// Lanes of `mask` meet; the last one to arrive runs op for all.
  void meet(std::uint32_t mask, const char* what, void (*op)(Block&, std::uint32_t mask), void* argument, Where where);
  /// The same for the 128 threads of a warpgroup, from thread `first`.
  void meet_group(const char* what, void (*op)(Block&, unsigned first), void* argument, Where where);
  void yield();
  /// Waits until another thread, or the copy engine, calls wake().
  void block_until_woken(const char* what, Where where);
  void wake(const Lane& lane) { wake(lane.index / 32, 1u << (lane.index & 31)); }
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
  std::uint64_t random();
  unsigned exited() const { return exited_; }

  const Launch& launch;
  Cluster& cluster;
  const unsigned rank;       ///< in the cluster
  std::uint32_t serial = 0;  ///< of this block in the process; stamps the race checker's shadow
  uint3 index{};
  unsigned threads;
  char* dynamic = nullptr;
  std::vector<Lane> lanes;
  std::vector<Warp> warps;
  int barrier_result = 0;  ///< of __syncthreads_count, _and, _or
  unsigned barriers_met = 0;
  std::unique_ptr<Hopper> hopper;  ///< what only sm_90 has: wgmma, mbarriers, bulk copies
  Stats stats;

 private:
  friend class Cluster;
  static void entry();
  void run_lane();
  static void enter(Lane* next);
  Lane* pick();
  Lane* next();
  void switch_to(Lane* next);
  Lane* finish();
  void wake(unsigned warp, std::uint32_t mask);
  [[noreturn]] void deadlock();

  std::vector<Barrier> barriers_;
  std::vector<GroupMeeting> groups_;
  std::uint32_t ready_warps_ = 0;
  unsigned warp_now_ = 0;
  unsigned live_ = 0;
  unsigned exited_ = 0;
  std::uint64_t random_ = 1;
};

/// The blocks that run together on one OS thread: a thread block cluster, or one block.
class Cluster {
 public:
  explicit Cluster(const Launch& launch);
  ~Cluster();
  /// Runs cluster `index` of the grid, whose blocks have serials from `serial`; false if a fault stopped it.
  bool run(std::uint32_t index, std::uint32_t serial);
  void add_stats(Stats& to) const;

  std::vector<std::unique_ptr<Block>> blocks;
  std::unique_ptr<struct Engine> engine;  ///< copies under way
  // barrier.cluster
  unsigned arrived = 0, phase = 0;
  std::vector<Lane*> waiting;
  bool faulted = false;

 private:
  const Launch& launch_;
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
