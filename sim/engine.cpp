#include "engine.h"

#include <fmt/format.h>

#include <bit>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>

#include "hopper.h"
#include "race.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

thread_local constinit uint3 threadIdx{};
thread_local constinit uint3 blockIdx{};
thread_local constinit dim3 blockDim{};
thread_local constinit dim3 gridDim{};

namespace sim {

thread_local constinit Running running;
thread_local constinit Block* block_now = nullptr;

namespace {
thread_local Fibers fibers;
struct Faulted {};
std::string triple(uint3 v) {
  return fmt::format("({},{},{})", v.x, v.y, v.z);
}
}  // namespace

std::string at(const Where& w) {
  return fmt::format("{}:{}", w.file_name(), w.line());
}

Block::Block(const Launch& l, Cluster& c, unsigned r)
    : launch(l), cluster(c), rank(r), threads(l.block.x * l.block.y * l.block.z) {
  lanes.resize(threads);
  warps.resize((threads + 31) / 32);
  barriers_.resize(16);
  for (auto& b : barriers_) b.waiting.resize(warps.size());
  groups_.resize(threads / 128);
  // Exactly of the requested size, so that AddressSanitizer sees the end.
  void* memory = nullptr;
  if (l.smem_bytes && posix_memalign(&memory, 1024, l.smem_bytes)) throw std::bad_alloc();
  dynamic = static_cast<char*>(memory);
}

Block::~Block() {
  std::free(dynamic);
}

std::uint64_t Block::random() {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return random_ * 0x2545F4914F6CDD1Dull >> 32;
}

void Block::prepare(uint3 block_index, std::uint32_t block_serial) {
  index = block_index;
  serial = block_serial;
  const std::uint64_t linear = (std::uint64_t(index.z) * launch.grid.y + index.y) * launch.grid.x + index.x;
  random_ = (launch.seed + linear * 0x9E3779B97F4A7C15ull) | 1;
  for (int i = 0; i < 3; ++i) random();
  if (dynamic) std::memset(dynamic, 0xFF, launch.smem_bytes);
  for (unsigned i = 0; i < threads; ++i) {
    Lane& l = lanes[i];
    l.thread = {i % launch.block.x, i / launch.block.x % launch.block.y, i / (launch.block.x * launch.block.y)};
    l.index = i;
    l.block = this;
    l.fiber = nullptr;
    l.waits_at = nullptr;
    l.groups = l.wgmma_groups = l.fences = l.bulk_groups = l.bulk_open = l.bulk_waited = 0;
    l.at_cluster = l.waited = false;
    l.copies.clear();
    l.bulk_reads.clear();
  }
  ready_warps_ = 0;
  for (unsigned w = 0; w < warps.size(); ++w) {
    const unsigned n = threads - w * 32 < 32 ? threads - w * 32 : 32;
    warps[w].exists = warps[w].ready = n == 32 ? ~0u : (1u << n) - 1;
    warps[w].exited = 0;
    warps[w].meetings.clear();
    ready_warps_ |= 1u << w;
  }
  for (auto& b : barriers_) {
    b.arrived = 0;
    std::fill(b.waiting.begin(), b.waiting.end(), 0);
  }
  for (auto& g : groups_) g.arrived = g.exited = 0;
  live_ = threads;
  exited_ = 0;
  barriers_met = 0;
  hopper.reset();
  if (race::enabled) race::begin_block(*this);
  ++stats.blocks;
  stats.threads += threads;
}

Cluster::Cluster(const Launch& launch) : engine(std::make_unique<Engine>()), launch_(launch) {
  const unsigned n = launch.cluster.x * launch.cluster.y * launch.cluster.z;
  for (unsigned i = 0; i < n; ++i) blocks.push_back(std::make_unique<Block>(launch, *this, i));
}

Cluster::~Cluster() = default;

bool Cluster::run(std::uint32_t index, std::uint32_t serial) {
  const dim3 g = launch_.grid, c = launch_.cluster;
  const unsigned nx = g.x / c.x, ny = g.y / c.y;
  const uint3 first{index % nx * c.x, index / nx % ny * c.y, index / (nx * ny) * c.z};
  arrived = phase = 0;
  waiting.clear();
  engine->clear();
  faulted = false;
  for (unsigned r = 0; r < blocks.size(); ++r)
    blocks[r]->prepare({first.x + r % c.x, first.y + r / c.x % c.y, first.z + r / (c.x * c.y)}, serial + r);
  blockDim = launch_.block;
  gridDim = launch_.grid;
  block_now = nullptr;
  Block::enter(blocks[0]->pick());
  fibers.enter(fibers.start(&Block::entry));
  running.lane = nullptr;
  block_now = nullptr;
  if (faulted) fibers.reset();
  return !faulted;
}

void Cluster::add_stats(Stats& to) const {
  for (const auto& b : blocks) {
    const Stats& s = b->stats;
    to.blocks += s.blocks;
    to.threads += s.threads;
    to.switches += s.switches;
    to.barriers += s.barriers;
    to.collectives += s.collectives;
    to.ldmatrix_phases += s.ldmatrix_phases;
    to.ldmatrix_conflicts += s.ldmatrix_conflicts;
  }
}

void Block::enter(Lane* next) {
  running.lane = next;
  threadIdx = next->thread;
  if (next->block == block_now) return;
  block_now = next->block;
  blockIdx = block_now->index;
  running.dynamic_smem = block_now->dynamic;
}

void Block::entry() {
  for (;;) {
    Lane* next = nullptr;
    try {
      block_now->run_lane();
      next = block_now->finish();
    } catch (const Faulted&) {
    }
    if (!next) fibers.leave(fibers.home());
    enter(next);
    if (next->fiber) {
      ++block_now->stats.switches;
      fibers.leave(next->fiber);
    }
  }
}

void Block::run_lane() {
  running.lane->fiber = fibers.running();
  try {
    launch.call(launch.arguments.get());
  } catch (const std::exception& e) {
    fault("exception", e.what(), "?");
  }
}

Lane* Block::finish() {
  Lane& me = lane();
  Warp& w = warp();
  if (launch.overlaps && !me.waited)
    fault("missing wait", "exited without griddepcontrol.wait: later kernels could start before earlier ones end", "?");
  const std::uint32_t bit = 1u << (me.index & 31);
  w.exited |= bit;
  --live_;
  ++exited_;
  for (const Meeting& m : w.meetings)
    if (m.mask & bit)
      fault("missing lane",
            fmt::format("exited, while lanes {:#010x} of its warp wait for mask {:#010x} in {}", m.arrived, m.mask,
                        m.what),
            m.where);
  if (const Barrier& b = barriers_[0]; b.arrived)
    fault("divergent barrier", fmt::format("exited, while {} threads wait in {}", b.arrived, b.what), b.where);
  if (me.index / 128 < groups_.size()) {
    GroupMeeting& g = groups_[me.index / 128];
    ++g.exited;
    if (g.arrived)
      fault(
          "divergent warpgroup",
          fmt::format("exited, while {} threads of its warpgroup wait in {}: all 128 must reach it", g.arrived, g.what),
          g.where);
  }
  check_exit(*this);
  if (Lane* lane = next()) return lane;
  for (const auto& b : cluster.blocks)
    if (b->live_) deadlock();
  return nullptr;
}

/// The next lane to run; where none can, the copies under way bring their data first. Null: none will.
Lane* Block::next() {
  Engine& engine = *cluster.engine;
  const auto n = static_cast<unsigned>(cluster.blocks.size());
  for (;;) {
    if (engine.busy() && (random() & 7) == 0) engine.deliver(*this);
    if (n <= 1) {
      if (Lane* lane = pick()) return lane;
    } else {
      const unsigned first = (random() & 7) == 0 ? static_cast<unsigned>(random() % n) : rank;
      for (unsigned i = 0; i < n; ++i)
        if (Lane* lane = cluster.blocks[(first + i) % n]->pick()) return lane;
    }
    if (!engine.busy()) return nullptr;
    engine.deliver(*this);
  }
}

/// A ready lane: mostly of the warp that ran last (its stacks are in cache), sometimes of any warp.
Lane* Block::pick() {
  const auto choose = [this](std::uint32_t mask) {
    const unsigned r = random() & 31;
    return (std::countr_zero(std::rotr(mask, static_cast<int>(r))) + r) & 31;
  };
  if (!warps[warp_now_ < warps.size() ? warp_now_ : (warp_now_ = 0)].ready || (random() & 15) == 0) {
    for (;;) {
      if (!ready_warps_) return nullptr;
      warp_now_ = choose(ready_warps_);
      if (warps[warp_now_].ready) break;
      ready_warps_ &= ~(1u << warp_now_);
    }
  }
  Warp& w = warps[warp_now_];
  const unsigned i = choose(w.ready);
  w.ready &= ~(1u << i);
  return &lanes[warp_now_ * 32 + i];
}

void Block::wake(unsigned w, std::uint32_t mask) {
  if (!mask) return;
  warps[w].ready |= mask;
  ready_warps_ |= 1u << w;
}

void Block::block_until_woken(const char* what, Where where) {
  Lane& me = lane();
  me.waits_at = what;
  me.where = where;
  Lane* lane = next();
  if (!lane) deadlock();
  if (lane != &me) switch_to(lane);
  me.waits_at = nullptr;
}

void Block::switch_to(Lane* lane) {
  enter(lane);
  ++stats.switches;
  fibers.enter(lane->fiber ? lane->fiber : fibers.start(&Block::entry));
}

void Block::yield() {
  Lane& me = lane();
  wake(me.index / 32, 1u << (me.index & 31));
  Lane* lane = next();
  if (lane != &me) switch_to(lane);
}

std::string Block::describe(const Lane& l) const {
  return fmt::format("{}, warp {} lane {}", triple(l.thread), l.index / 32, l.index % 32);
}

void Block::fault(const char* kind, const std::string& text, Where where, const Lane* who) {
  fault(kind, text, at(where), who);
}

void Block::fault(const char* kind, const std::string& text, const std::string& where, const Lane* who) {
  cluster.faulted = true;
  record_fault({kind, function_name(launch.function), triple(index), describe(who ? *who : lane()), where, text});
#ifdef __SANITIZE_ADDRESS__
  throw Faulted{};  // unwinds, so that no string is reported as a leak
#else
  fibers.leave(fibers.home());  // the compiler assumes that the race checker's hooks do not throw
#endif
}

}  // namespace sim
