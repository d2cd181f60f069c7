// What blocks on sm_90 have beyond engine.h: the async proxy's view of shared memory, clusters, registers of
// warpgroups, and the checks at a thread's end.
#include "hopper.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include "hopper_ptx.h"
#include "race.h"
#include "threads.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>

/// Before AddressSanitizer's report of an access to memory that an instruction in flight owns.
extern "C" void __asan_on_error() {
  using namespace sim;
  if (!block_now || !running.lane) return;
  const auto* p = static_cast<const char*>(__asan_get_report_address());
  Where load;
  if (const Product* w = in_flight(*block_now, p))
    std::fprintf(stderr,
                 "sim: accumulator in flight: thread %s touches registers that the wgmma of %s is writing; call "
                 "wgmma_commit() and wgmma_wait<0>() first\n",
                 block_now->describe(*running.lane).c_str(), at(w->where).c_str());
  else if (block_now->in_dynamic(p, 1) &&
           being_loaded(*block_now, static_cast<unsigned>(p - block_now->dynamic), 1, &load))
    std::fprintf(
        stderr,
        "sim: load in flight: thread %s touches shared memory at dynamic offset %ld that the bulk load of %s is "
        "writing; wait for its mbarrier, with the parity of this round\n",
        block_now->describe(*running.lane).c_str(), static_cast<long>(p - block_now->dynamic), at(load).c_str());
}
#endif

namespace sim {

/// A kernel's threads may use 65,536 registers, in steps of 8 a thread.
Hopper::Hopper(Block& b) : warpgroups(b.threads / 128), fenced(b.launch.smem_bytes, '\xff') {
  const unsigned each = std::min(65536 / b.threads / 8 * 8, 255u);
  for (Warpgroup& g : warpgroups) g.registers = each;
  all_registers = each * static_cast<unsigned>(warpgroups.size());
}

Hopper& hopper(Block& b) {
  if (!b.hopper) b.hopper = std::make_unique<Hopper>(b);
  return *b.hopper;
}

void poison([[maybe_unused]] void* p, [[maybe_unused]] std::size_t bytes, [[maybe_unused]] bool poisoned) {
#ifdef __SANITIZE_ADDRESS__
  if (poisoned)
    ASAN_POISON_MEMORY_REGION(p, bytes);
  else
    ASAN_UNPOISON_MEMORY_REGION(p, bytes);
#endif
}

// ---- shared memory

unsigned shared_offset(const void* p, std::size_t bytes, unsigned alignment, const char* what, Where where) {
  Block& b = *block_now;
  if (!b.in_dynamic(p, bytes))
    b.fault("bad address",
            fmt::format("{}: {} (and {} bytes) is not in this block's dynamic shared memory of {} bytes; static "
                        "__shared__ variables cannot be used here",
                        what, p, bytes, b.launch.smem_bytes),
            where);
  const auto offset = static_cast<unsigned>(static_cast<const char*>(p) - b.dynamic);
  if (offset % alignment)
    b.fault("misaligned", fmt::format("{}: dynamic offset {} is not a multiple of {}", what, offset, alignment), where);
  return offset;
}

std::uint32_t shared_address(const void* p, Where where) {
  return (block_now->rank << kRankShift) + kSharedBase + shared_offset(p, 1, 1, "a shared address", where);
}

void write_shared(Block& b, unsigned offset, const void* from, unsigned bytes) {
  std::memcpy(b.dynamic + offset, from, bytes);
  std::memcpy(&hopper(b).fenced[offset], from, bytes);
}

void need_fenced(Block& b, unsigned offset, unsigned bytes, const char* what, Where where) {
  Where load;
  if (being_loaded(b, offset, bytes, &load))
    b.fault(
        "load in flight",
        fmt::format("{} reads shared memory at dynamic offset {}, which the bulk load of {} is still writing; wait for "
                    "its mbarrier, with the parity of this round",
                    what, offset, at(load)),
        where);
  const Hopper& h = hopper(b);
  for (unsigned i = offset; i < offset + bytes; ++i)
    if (b.dynamic[i] != h.fenced[i])
      b.fault(
          "missing proxy fence",
          fmt::format("{} reads shared memory at dynamic offset {}, which an ordinary store wrote; the threads that "
                      "wrote it must call fence_proxy_async() after the stores, before the barrier",
                      what, i),
          where);
}

/// Loads may still be writing there: AddressSanitizer would report that.
[[gnu::no_sanitize("address"), gnu::optimize("O3", "no-tree-loop-distribute-patterns")]] static void copy_unchecked(
    char* to, const char* from, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) to[i] = from[i];
}

void fence_proxy_async(Where where) {
  Block& b = *block_now;
  Hopper& h = hopper(b);
  mbarrier_init_fence(where);
  if (race::enabled) race::proxy_fence(b);
  if (b.cluster.engine->busy())
    copy_unchecked(h.fenced.data(), b.dynamic, b.launch.smem_bytes);
  else  // every thread of a kernel that copies by cp.async fences each tile: ten times as fast
    std::memcpy(h.fenced.data(), b.dynamic, b.launch.smem_bytes);
}

// ---- clusters

unsigned cluster_rank() {
  return block_now->rank;
}
unsigned cluster_size() {
  return static_cast<unsigned>(block_now->cluster.blocks.size());
}

Block& peer_block(unsigned rank, const char* what, Where where) {
  Block& b = *block_now;
  if (rank >= b.cluster.blocks.size())
    b.fault("bad address", fmt::format("{}: block {} of a cluster of {}", what, rank, b.cluster.blocks.size()), where);
  Block& peer = *b.cluster.blocks[rank];
  if (&peer == &b) return b;
  if (b.cluster.phase == 0)
    b.fault("cluster",
            fmt::format("{}: block {} of the cluster may not have started; call cluster_sync() first", what, rank),
            where);
  if (peer.exited())
    b.fault("cluster",
            fmt::format("{}: threads of block {} of the cluster have returned, and its shared memory may be gone; end "
                        "the kernel with cluster_sync()",
                        what, rank),
            where);
  return peer;
}

Remote remote(std::uint32_t address, std::size_t bytes, unsigned alignment, const char* what, Where where) {
  Block& b = peer_block(address >> kRankShift, what, where);
  const std::uint32_t offset = (address & ((1u << kRankShift) - 1)) - kSharedBase;
  if (offset + bytes > b.launch.smem_bytes || offset % alignment)
    block_now->fault("bad address",
                     fmt::format("{}: shared::cluster address {:#x} (and {} bytes) is not in block {}'s dynamic shared "
                                 "memory of {} bytes, or not a multiple of {}",
                                 what, address, bytes, b.rank, b.launch.smem_bytes, alignment),
                     where);
  return {&b, offset};
}

std::uint32_t cluster_address(const void* p, unsigned rank, Where where) {
  if (rank >= cluster_size())
    block_now->fault("bad address", fmt::format("mapa: block {} of a cluster of {}", rank, cluster_size()), where);
  return (rank << kRankShift) + kSharedBase + shared_offset(p, 1, 1, "mapa", where);
}

void cluster_arrive(bool relaxed, Where where) {
  Block& b = *block_now;
  Cluster& c = b.cluster;
  Lane& me = b.lane();
  if (me.at_cluster) b.fault("bad barrier", "barrier.cluster.arrive twice; cluster_wait() comes in between", where);
  for (const auto& peer : c.blocks)
    if (peer->exited())
      b.fault("divergent barrier",
              fmt::format("barrier.cluster.arrive: {} threads of block {} have exited", peer->exited(), peer->rank),
              where);
  if (race::enabled && !relaxed) race::cluster_arrived(b);
  me.at_cluster = true;
  me.cluster_arrived = c.phase;
  if (++c.arrived < c.blocks.size() * b.threads) return;
  c.arrived = 0;
  ++c.phase;
  for (const auto& peer : c.blocks) ++peer->barriers_met;
  for (const Lane* l : c.waiting) l->block->wake(*l);
  c.waiting.clear();
}

void cluster_wait(Where where) {
  Block& b = *block_now;
  Cluster& c = b.cluster;
  Lane& me = b.lane();
  if (!me.at_cluster) b.fault("bad barrier", "barrier.cluster.wait without cluster_arrive()", where);
  if (me.cluster_arrived == c.phase) {
    c.waiting.push_back(&me);
    b.block_until_woken("barrier.cluster.wait", where);
  }
  if (race::enabled) race::cluster_waited(b);
  me.at_cluster = false;
}

std::uint32_t cluster_load(std::uint32_t address, Where where) {
  const Remote r = remote(address, 4, 4, "ld.shared::cluster", where);
  std::uint32_t v;
  std::memcpy(&v, r.block->dynamic + r.offset, 4);
  return v;
}
void cluster_store(std::uint32_t address, std::uint32_t value, Where where) {
  const Remote r = remote(address, 4, 4, "st.shared::cluster", where);
  std::memcpy(r.block->dynamic + r.offset, &value, 4);
}
std::uint32_t cluster_add(std::uint32_t address, std::uint32_t value, Where where) {
  const std::uint32_t old = cluster_load(address, where);
  cluster_store(address, old + value, where);
  return old;
}
void cluster_store_async(std::uint32_t address, std::uint32_t value, std::uint32_t barrier, Where where) {
  const Remote r = remote(address, 4, 4, "st.async", where), b = remote(barrier, 8, 8, "st.async", where);
  if (r.block != b.block)
    block_now->fault("bad mbarrier", "st.async: data and mbarrier are of different blocks", where);
  mbarrier(*b.block, b.offset, false, "st.async", where);
  std::memcpy(r.block->dynamic + r.offset, &value, 4);
  arrive(*b.block, b.offset, 0, 0, 4, "st.async", where);
}

// ---- registers

namespace {

struct Registers {
  unsigned count;
  bool increase, done;
  unsigned gives;  ///< at the decision
  Where where;
};
constexpr const char* kWaitsForRegisters = "setmaxnreg.inc (too few free)";

void set_registers_of_group(Block& b, unsigned first) {
  Hopper& h = hopper(b);
  Warpgroup& g = h.warpgroups[first / 128];
  auto* r = static_cast<Registers*>(b.lanes[first].argument);
  for (unsigned t = 0; t < 128; ++t)
    if (const auto* o = static_cast<Registers*>(b.lanes[first + t].argument); o->count != r->count)
      b.fault("divergent warpgroup", "setmaxnreg: threads of a warpgroup ask for different numbers of registers",
              o->where, &b.lanes[first + t]);
  const bool done = !r->increase || r->count - g.registers <= h.free_registers;
  if (done) {
    if (!r->increase) ++h.gives;
    h.free_registers += g.registers;
    h.free_registers -= r->count;
    g.registers = r->count;
  }
  g.wanted = done ? 0 : r->count;
  for (unsigned t = 0; t < 128; ++t) {
    auto* o = static_cast<Registers*>(b.lanes[first + t].argument);
    o->done = done;
    o->gives = h.gives;
  }
  if (done && !r->increase)
    for (const Lane& l : b.lanes)
      if (l.waits_at == kWaitsForRegisters) b.wake(l);
}

}  // namespace

void set_registers(unsigned count, bool increase, Where where) {
  Block& b = *block_now;
  const char* what = increase ? "setmaxnreg.inc" : "setmaxnreg.dec";
  if (count % 8 || count < 24 || count > 256)
    b.fault("bad registers", fmt::format("{} {}: not a multiple of 8 in 24..256", what, count), where);
  Hopper& h = hopper(b);
  if (b.lane().index / 128 < h.warpgroups.size())
    if (const unsigned has = h.warpgroups[b.lane().index / 128].registers; increase ? count < has : count > has)
      b.fault("bad registers",
              fmt::format("{} {}: the warpgroup has {} registers a thread ({} threads share 65,536)", what, count, has,
                          b.threads),
              where);
  Registers r{count, increase, false, 0, where};
  b.meet_group(what, set_registers_of_group, &r, where);
  if (r.done) return;
  if (r.gives == h.gives) b.block_until_woken(kWaitsForRegisters, where);
  set_registers(count, increase, where);
}

// ---- a thread's end

void check_exit(Block& b) {
  const Lane& me = b.lane();
  if (me.at_cluster && b.cluster.blocks.size() > 1)
    b.fault("divergent barrier", "the thread ends between barrier.cluster.arrive and wait", me.where);
  if (!b.hopper) return;
  if (me.index / 128 < b.hopper->warpgroups.size()) {
    const Warpgroup& g = b.hopper->warpgroups[me.index / 128];
    if (!g.products.empty())
      b.fault("wgmma in flight", "a thread ends while its wgmma is under way; call wgmma_commit() and wgmma_wait<0>()",
              g.products.back().where);
  }
  if (me.bulk_open || me.bulk_waited < me.bulk_groups)
    b.fault(
        "store in flight",
        "the thread ends before its bulk stores have read shared memory; call bulk_commit() and bulk_wait_read<0>()",
        me.bulk_where);
  if (b.exited() < b.threads) return;
  for (const auto& c : b.cluster.engine->copies)
    if (c->kind == Copy::load && (c->blocks >> b.rank & 1))
      b.fault("load in flight", "the block ends while a bulk load is writing its shared memory; wait for its mbarrier",
              c->where);
}

}  // namespace sim
