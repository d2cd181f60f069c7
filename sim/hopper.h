// The state behind the instructions of sm_90: wgmma in flight, mbarriers, copies under way, registers of warpgroups.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine.h"
#include "tensor_map.h"

namespace sim {

/// Dynamic shared memory begins at this shared address, as on an H100 (the driver keeps the first KB).
inline constexpr std::uint32_t kSharedBase = 1024;
inline constexpr unsigned kRankShift = 24;  ///< shared::cluster addresses have the block's rank above this bit

/// A matrix of 64 x columns in the registers of a warpgroup. From the first wgmma that writes it until the wait that
/// covers the last one, its registers hold NaN and must not be touched.
struct Accumulator {
  unsigned columns;
  std::array<float*, 128> registers;  ///< columns / 2 of each thread
  std::vector<float> tile;
};

/// One wgmma that has been issued and not executed.
struct Product {
  std::uint32_t read;  ///< when, for the race checker
  unsigned group;      ///< commit group of the warpgroup
  Accumulator* sum;
  std::uint64_t a, b;  ///< descriptors
  bool a_in_registers, transposed_a, transposed_b, keep_sum;
  float sign;
  std::array<const std::uint32_t*, 128> a_registers;
  std::vector<float> a_values, b_values;  ///< 64 x 16 and 16 x columns, at issue
  Where where;
};

/// Values that registers had when the instruction that last used them was done, and how often the thread had fenced.
struct Known {
  std::vector<std::uint32_t> values;
  unsigned fences;
};

struct Warpgroup {
  std::vector<std::unique_ptr<Accumulator>> sums;  ///< in flight
  std::vector<Product> products;
  std::map<const void*, Known> known;  ///< by a thread's first register: accumulators and A fragments
  unsigned registers = 0, wanted = 0;  ///< of each thread (setmaxnreg); what it waits for
};

struct Mbarrier {
  unsigned count, pending;
  long bytes;              ///< expected less copied
  long expected, copied;   ///< of this phase
  unsigned phase;          ///< completed phases
  unsigned thread, epoch;  ///< who initialised it, and how many barriers the block had passed
  bool fenced;             ///< fence.mbarrier_init or fence.proxy.async since, by that thread
  std::vector<Lane*> waiting;
  std::vector<std::uint32_t> arriving, completed;  ///< clocks of the race checker: of this phase, and up to the last
  Where where;
};

/// What a block has beyond engine.h.
struct Hopper {
  explicit Hopper(Block& block);
  std::vector<Warpgroup> warpgroups;
  std::map<std::uint32_t, Mbarrier> mbarriers;  ///< by offset in dynamic shared memory
  /// Shared memory as the async proxy (wgmma, bulk copies) may see it: ordinary writes enter at fence.proxy.async.
  std::vector<char> fenced;
  unsigned gives = 0;                              ///< setmaxnreg.dec so far
  unsigned free_registers = 0, all_registers = 0;  ///< the block's pool, as registers of a thread of one warpgroup
};
/// The block's, made at the first use.
Hopper& hopper(Block& block);

/// A bulk copy under way: a load, or a store or reduction whose source has not been read. Copies without a tensor map
/// have one of lines of 16 bytes.
struct Copy {
  enum Kind { load, store, add } kind;
  TensorMap map;
  int at[3];             ///< coordinates, innermost first
  Block* block;          ///< whose thread issued it
  unsigned offset;       ///< of the box in shared memory
  unsigned barrier = 0;  ///< of loads: offset of the mbarrier
  unsigned blocks = 0;   ///< of loads: ranks that receive it, a bit each
  unsigned thread, group;
  unsigned line = 0;         ///< lines of the box that are done
  std::vector<char> source;  ///< of stores: what it was at issue
  Where where;
};

struct Engine {
  std::vector<std::unique_ptr<Copy>> copies;
  bool busy() const { return !copies.empty(); }
  /// A piece of one copy, both chosen at random.
  void deliver(Block& by);
  /// Every store by `thread` of `block` in a group before `group`.
  void finish(const Block& block, unsigned thread, unsigned group);
  void clear() { copies.clear(); }
};

/// Checks the running thread's end: nothing of it may be under way.
void check_exit(Block& block);
/// What the block's waiting threads wait for, for the report of a deadlock.
std::string why_stuck(const Block& block);

/// Offset in the block's dynamic shared memory.
unsigned shared_offset(const void* p, std::size_t bytes, unsigned alignment, const char* what, Where where);
/// The block and offset of a shared::cluster address.
struct Remote {
  Block* block;
  unsigned offset;
};
Remote remote(std::uint32_t address, std::size_t bytes, unsigned alignment, const char* what, Where where);
/// The cluster's block `rank`; a fault if it has ended or may not have started.
Block& peer_block(unsigned rank, const char* what, Where where);

/// The mbarrier at `offset`, initialised and visible to the running thread and, `async`, to the copy engine.
Mbarrier& mbarrier(Block& block, unsigned offset, bool async, const char* what, Where where);
/// Counts `arrivals`, bytes to expect, and bytes that were copied.
void arrive(Block& block, unsigned offset, unsigned arrivals, long expect, long copied, const char* what, Where where);
/// A fault unless the bytes are as they were at a fence.proxy.async.
void need_fenced(Block& block, unsigned offset, unsigned bytes, const char* what, Where where);
/// What an ordinary store of a collective wrote is seen by this block only after a fence; a copy's is at once.
void write_shared(Block& block, unsigned offset, const void* from, unsigned bytes);
/// Whether a load still writes there, and where it was issued.
bool being_loaded(const Block& block, unsigned offset, unsigned bytes, Where* where);

/// The accumulator in flight that has p among its registers of the running thread; null if none.
const Product* in_flight(const Block& block, const void* p);

/// A fault if the load writes an operand of a wgmma in flight.
void check_overwrite(Block& block, const Copy& load);

/// AddressSanitizer reports accesses to [p, p + bytes) until `poisoned` is false again.
void poison(void* p, std::size_t bytes, bool poisoned);

}  // namespace sim
