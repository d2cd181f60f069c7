// The race checker. The .cu files are compiled with -fsanitize=thread, so g++ emits a call before each access to
// memory; the calls are defined here instead of in libtsan. (-fsanitize=alignment,bounds report here too.)
//
// Shadow: a cell for every 2 bytes of the block's shared memory holds the last writer and two readers, each with the
// time of the access. Time is a counter of the block that each meeting of threads advances. known[t][u] is the time up
// to which the accesses of thread u are ordered before those of thread t; an access races if it meets a later one of
// another thread.
#include "race.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>

#include "hopper.h"

namespace sim::race {

bool enabled = false;

namespace {

struct Touch {
  std::uint32_t time = 0;  ///< 0: none
  std::uint16_t thread = 0;
  std::uint8_t bytes = 0;  ///< bit per byte of the cell
  std::uint8_t kind = 0;
  const void* code = nullptr;
};
struct Cell {
  std::uint32_t block = 0;  ///< serial of the block this is about; else it is empty
  std::uint8_t written = 0;
  Touch writer, readers[2];
};

struct Shadow {
  std::vector<Cell> dynamic, fixed;  ///< fixed: static __shared__ variables, among the thread's thread-local ones
  std::uint32_t now = 1, all = 0;    ///< accesses up to time `all` are ordered for all threads
  std::vector<std::uint32_t> known;
  bool crossed = false;  ///< a named barrier ordered threads of several warps
  std::vector<std::uint32_t> at_barrier[16];
  std::vector<Clock> fences;  ///< by thread: when it called fence.proxy.async
  Clock cluster;              ///< of what arrived at barrier.cluster
  Clock all_async;            ///< as `all`, of what is not a thread
};
thread_local std::deque<Shadow> shadows;  ///< of the cluster's blocks, by rank
thread_local bool busy = false;
thread_local unsigned reading_for = ~0u;  ///< whom an asynchronous read counts for

Shadow& shadow_of(const Block& b) {
  return shadows[b.rank];
}
/// Accesses that no barrier of threads orders count as those of more threads: what the copy engine loads, what each
/// warpgroup's wgmma read, what bulk stores read.
unsigned wgmma_of(const Block& b, unsigned group) {
  return b.threads + 1 + group;
}
unsigned stores_of(const Block& b) {
  return b.threads + 1 + b.threads / 128;
}
unsigned columns(const Block& b) {
  return stores_of(b) + 1;
}
std::uint32_t& known(unsigned t, unsigned u) {
  return shadow_of(*block_now).known[t * columns(*block_now) + u];
}
std::set<const void*>& places() {
  static auto* p = new std::set<const void*>;
  return *p;
}
std::string name_of(const Block& b, unsigned thread) {
  return thread < b.threads    ? "thread " + b.describe(b.lanes[thread])
         : thread == b.threads ? "the copy engine (a bulk load)"
         : thread == stores_of(b)
             ? "a bulk store (bulk_wait_read comes first)"
             : fmt::format("wgmma of warpgroup {} (wgmma_wait comes first)", thread - b.threads - 1);
}

bool seen(const Touch& t, unsigned me) {
  const Shadow& s = shadow_of(*block_now);
  const unsigned n = block_now->threads;
  return t.time == 0 || t.thread == me || t.time <= (t.thread < n ? s.all : s.all_async[t.thread - n]) ||
         t.time <= known(me, t.thread);
}

/// Places that stand in for code addresses.
std::mutex places_mutex;
const void* place(Where where) {
  static auto* known = new std::map<std::pair<const char*, unsigned>, std::unique_ptr<Where>>;
  std::lock_guard lock(places_mutex);
  auto& kept = (*known)[{where.file_name(), where.line()}];
  if (!kept) {
    kept = std::make_unique<Where>(where);
    places().insert(kept.get());
  }
  return kept.get();
}
std::string line_of(const void* code) {
  std::lock_guard lock(places_mutex);
  return places().contains(code) ? at(*static_cast<const Where*>(code)) : source_line(code);
}

std::string verb(unsigned kind) {
  return kind & kAsync ? "cp.async write" : kind & kAtomic ? "atomic update" : kind & kWrite ? "write" : "read";
}

[[noreturn]] void report(const Touch& before, unsigned kind, const char* p, const void* code) {
  Block& b = *block_now;
  b.fault("race",
          fmt::format("{} of shared memory at {}, against a {} by {} at {}, with no barrier between", verb(kind),
                      b.in_dynamic(p, 1) ? fmt::format("dynamic offset {}", p - b.dynamic) : "a static variable",
                      verb(before.kind), name_of(b, before.thread), before.code ? line_of(before.code) : "a bulk copy"),
          line_of(code));
}

void touch(Cell& c, const char* p, std::uint8_t bytes, unsigned kind, const void* code) {
  Block& b = *block_now;
  const unsigned me = b.lane().index;
  if (c.block != b.serial) {
    c = Cell{};
    c.block = b.serial;
  }
  const bool writes = kind != kRead;
  if (!(kind & kWrite) && (bytes & ~c.written))
    b.fault("uninitialised",
            fmt::format("{} of shared memory at {} that was never written", verb(kind),
                        b.in_dynamic(p, 1) ? fmt::format("dynamic offset {}", p - b.dynamic) : "a static variable"),
            line_of(code));
  if ((c.writer.kind & kAsync) && c.writer.bytes & bytes && !writes)
    b.fault("uninitialised",
            fmt::format("read of shared memory whose cp.async (thread {}, at {}) has not been waited for",
                        b.describe(b.lanes[c.writer.thread]), line_of(c.writer.code)),
            line_of(code));
  const bool both_atomic = (kind & kAtomic) && (c.writer.kind & kAtomic);
  if ((c.writer.bytes & bytes) && !both_atomic && !seen(c.writer, me)) report(c.writer, kind, p, code);
  if (writes)
    for (Touch& r : c.readers)
      if ((r.bytes & bytes) && !seen(r, me)) report(r, kind, p, code);
  const Touch mine{shadow_of(b).now, static_cast<std::uint16_t>(reading_for != ~0u ? reading_for : me), bytes,
                   static_cast<std::uint8_t>(kind), code};
  if (writes) {
    c.written |= bytes;
    c.writer = mine;
    c.readers[0] = c.readers[1] = Touch{};
  } else {
    // Which of two readers to drop: one that is ordered before this, else one of this warp, so that readers of two
    // warps stay.
    const auto spare = [me](const Touch& r) { return seen(r, me) ? 2 : r.thread / 32 == me / 32 ? 1 : 0; };
    c.readers[spare(c.readers[0]) >= spare(c.readers[1]) ? 0 : 1] = mine;
  }
}

void touch_range(std::vector<Cell>& cells, std::size_t offset, const char* p, unsigned bytes, unsigned kind,
                 const void* code) {
  for (std::size_t i = offset; i < offset + bytes;) {
    const std::size_t end = std::min((i | 1) + 1, offset + bytes);
    std::uint8_t mask = 0;
    for (std::size_t j = i; j < end; ++j) mask |= static_cast<std::uint8_t>(1u << (j & 1));
    touch(cells[i / 2], p + (i - offset), mask, kind, code);
    i = end;
  }
}

}  // namespace

void access(const void* address, unsigned bytes, unsigned kind, const void* code) {
  Block* b = block_now;
  if (!b || !running.lane || busy || bytes == 0) return;
  if (const Product* w = b->hopper ? in_flight(*b, address) : nullptr)
    b->fault(
        "accumulator in flight",
        fmt::format("{} of registers that the wgmma of {} is writing; call wgmma_commit() and wgmma_wait<0>() first",
                    verb(kind), at(w->where)),
        line_of(code));
  busy = true;
  const char* p = static_cast<const char*>(address);
  struct Done {
    ~Done() { busy = false; }
  } done;
  const auto offset = [p](const char* low) { return static_cast<std::size_t>(p - low); };
  if (b->in_dynamic(p, 1)) {
    busy = false;  // a fault does not return here
    touch_range(shadow_of(*b).dynamic, offset(b->dynamic), p, bytes, kind, code);
    return;
  }
  const Range own = thread_local_range();
  if (p >= own.low && p + bytes <= own.high) {
    const auto within = [p](const auto& v) {
      const char* low = reinterpret_cast<const char*>(&v);
      return p >= low && p < low + sizeof v;
    };
    if (within(threadIdx) || within(blockIdx) || within(blockDim) || within(gridDim) || within(running)) return;
    busy = false;
    if (b->cluster.blocks.size() > 1)
      b->fault("cluster", "a static __shared__ variable in a cluster: here the blocks would share it; use dynamic_smem",
               line_of(code));
    touch_range(shadow_of(*b).fixed, offset(own.low), p, bytes, kind, code);
    return;
  }
  if (b->launch.overlaps && !b->lane().waited && is_device(p, bytes)) {
    busy = false;
    b->fault("missing wait", fmt::format("{} of global memory before griddepcontrol.wait", verb(kind)), line_of(code));
  }
}

void access(const void* p, unsigned bytes, unsigned kind, Where where) {
  access(p, bytes, kind, place(where));
}

void begin_block(Block& b) {
  reading_for = ~0u;  // a fault may have left it
  if (shadows.size() <= b.rank) shadows.resize(b.rank + 1);
  Shadow& shadow = shadow_of(b);
  shadow.dynamic.resize(std::max(shadow.dynamic.size(), b.launch.smem_bytes / 2 + 1));
  const Range own = thread_local_range();
  shadow.fixed.resize(static_cast<std::size_t>(own.high - own.low) / 2 + 1);
  shadow.now = 1;
  shadow.all = 0;
  shadow.crossed = false;
  shadow.known.assign(std::size_t{b.threads} * columns(b), 0);
  shadow.fences.assign(b.threads, {});
  shadow.cluster.clear();
  shadow.all_async.assign(columns(b) - b.threads, 0);
  for (auto& v : shadow.at_barrier) v.clear();
}

void met_all() {
  const Block& b = *block_now;
  Shadow& shadow = shadow_of(b);
  shadow.all = shadow.now++;
  if (shadow.crossed)
    for (unsigned u = b.threads; u < columns(b); ++u)
      for (unsigned t = 0; t < b.threads; ++t)
        shadow.all_async[u - b.threads] = std::max(shadow.all_async[u - b.threads], known(t, u));
}

void met_lanes(Block& b, std::uint32_t mask) {
  Shadow& shadow = shadow_of(b);
  const unsigned n = columns(b), base = b.lane().index & ~31u;
  const unsigned from = shadow.crossed ? 0 : base, to = shadow.crossed ? n : std::min(base + 32, b.threads);
  std::vector<std::uint32_t> merged(n, 0);
  for (unsigned i = 0; i < 32; ++i)
    if (mask >> i & 1)
      for (unsigned u = from; u < to; ++u) merged[u] = std::max(merged[u], known(base + i, u));
  for (unsigned i = 0; i < 32; ++i)
    if (mask >> i & 1) merged[base + i] = shadow.now;
  for (unsigned i = 0; i < 32; ++i)
    if (mask >> i & 1) std::memcpy(&known(base + i, from), &merged[from], (to - from) * sizeof merged[0]);
  ++shadow.now;
}

void arrived(Block& b, unsigned id) {
  release(b, shadow_of(b).at_barrier[id]);
}

void released(Block& b, unsigned id, const std::uint32_t* waiting) {
  auto& v = shadow_of(b).at_barrier[id];
  for (unsigned t = 0; t < b.threads; ++t)
    if (waiting[t / 32] >> (t & 31) & 1)
      for (unsigned u = 0; u < columns(b); ++u) known(t, u) = std::max(known(t, u), v[u]);
  v.clear();
}

void join(Clock& to, const Clock& from) {
  to.resize(std::max(to.size(), from.size()));
  for (std::size_t i = 0; i < from.size(); ++i) to[i] = std::max(to[i], from[i]);
}

void release(Block& b, Clock& clock) {
  Shadow& shadow = shadow_of(b);
  clock.resize(columns(b));
  const unsigned me = b.lane().index;
  for (unsigned u = 0; u < columns(b); ++u) clock[u] = std::max(clock[u], known(me, u));
  clock[me] = shadow.now++;
  shadow.crossed = true;
}

void acquire(Block& b, const Clock& clock) {
  const unsigned me = b.lane().index;
  for (unsigned u = 0; u < clock.size(); ++u) known(me, u) = std::max(known(me, u), clock[u]);
}

void copied(Block& b, unsigned offset, unsigned bytes) {
  Shadow& shadow = shadow_of(b);
  for (unsigned i = offset; i < offset + bytes; ++i) {
    Cell& c = shadow.dynamic[i / 2];
    if (c.block != b.serial) {
      c = Cell{};
      c.block = b.serial;
    }
    c.written |= static_cast<std::uint8_t>(1u << (i & 1));
    c.writer = {shadow.now, static_cast<std::uint16_t>(b.threads), c.written, kWrite, nullptr};
  }
}

void release_copies(Block& b, Clock& clock) {
  Shadow& shadow = shadow_of(b);
  clock.resize(columns(b));
  clock[b.threads] = shadow.now++;
  shadow.crossed = true;
}

void proxy_fence(Block& b) {
  Shadow& shadow = shadow_of(b);
  shadow.fences[b.lane().index].push_back(shadow.now++);
}

void async_read(const void* p, unsigned bytes, bool by_wgmma, const char* what, Where where) {
  Block& b = *block_now;
  reading_for = by_wgmma ? wgmma_of(b, b.lane().index / 128) : stores_of(b);
  struct Done {
    ~Done() { reading_for = ~0u; }
  } done;
  access(p, bytes, kRead, where);
  Shadow& shadow = shadow_of(b);
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(p) - b.dynamic);
  const unsigned me = b.lane().index;
  for (std::size_t i = offset; i < offset + bytes; i += 2) {
    const Touch& w = shadow.dynamic[i / 2].writer;
    if (w.time == 0 || w.thread == b.threads) continue;
    // The writer's first fence since must come before this.
    const Clock& fences = shadow.fences[w.thread];
    const auto fence = std::lower_bound(fences.begin(), fences.end(), w.time);
    if (fence != fences.end() && seen({*fence, w.thread}, me)) continue;
    b.fault("missing proxy fence",
            fmt::format("{} reads shared memory at dynamic offset {} that {} wrote at {}; that thread must call "
                        "fence_proxy_async() after the store, before the barrier",
                        what, i, name_of(b, w.thread), line_of(w.code)),
            where);
  }
}

std::uint32_t time(Block& b) {
  return shadow_of(b).now++;
}

void wgmma_done(Block& b, unsigned first, std::uint32_t read) {
  const unsigned u = wgmma_of(b, first / 128);
  for (unsigned t = first; t < first + 128; ++t) known(t, u) = std::max(known(t, u), read);
  shadow_of(b).crossed = true;
}

void stores_done(Block& b, std::uint32_t read) {
  std::uint32_t& k = known(b.lane().index, stores_of(b));
  k = std::max(k, read);
  shadow_of(b).crossed = true;
}
void cluster_arrived(Block& b) {
  release(b, shadow_of(b).cluster);
}
void cluster_waited(Block& b) {
  acquire(b, shadow_of(b).cluster);
}

}  // namespace sim::race

namespace sim {
bool race_checked() {
  return race::enabled;
}
}  // namespace sim
