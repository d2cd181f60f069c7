#include "engine.h"

#include <fmt/format.h>

#include <bit>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>

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
/// Names of operations and files are literals: nearly always the same pointer.
bool same(const char* a, const char* b) {
  return a == b || std::strcmp(a, b) == 0;
}
bool same(const Where& a, const Where& b) {
  return a.line() == b.line() && same(a.file_name(), b.file_name());
}
std::string triple(uint3 v) {
  return fmt::format("({},{},{})", v.x, v.y, v.z);
}
}  // namespace

std::string at(const Where& w) {
  return fmt::format("{}:{}", w.file_name(), w.line());
}

Block::Block(const Launch& l) : launch(l), threads(l.block.x * l.block.y * l.block.z) {
  lanes.resize(threads);
  warps.resize((threads + 31) / 32);
  barriers_.resize(16);
  for (auto& b : barriers_) b.waiting.resize(warps.size());
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

bool Block::run(uint3 block_index, std::uint32_t block_serial) {
  index = block_index;
  serial = block_serial;
  block_now = this;
  const std::uint64_t linear = (std::uint64_t(index.z) * launch.grid.y + index.y) * launch.grid.x + index.x;
  random_ = (launch.seed + linear * 0x9E3779B97F4A7C15ull) | 1;
  for (int i = 0; i < 3; ++i) random();
  if (dynamic) std::memset(dynamic, 0xFF, launch.smem_bytes);
  for (unsigned i = 0; i < threads; ++i) {
    Lane& l = lanes[i];
    l.thread = {i % launch.block.x, i / launch.block.x % launch.block.y, i / (launch.block.x * launch.block.y)};
    l.index = i;
    l.fiber = nullptr;
    l.waits_at = nullptr;
    l.groups = 0;
    l.waited = false;
    l.copies.clear();
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
  live_ = threads;
  exited_ = 0;
  faulted_ = false;
  blockIdx = index;
  blockDim = launch.block;
  gridDim = launch.grid;
  running.dynamic_smem = dynamic;
  if (race::enabled) race::begin_block(*this);
  ++stats.blocks;
  stats.threads += threads;

  enter(pick());
  fibers.enter(fibers.start(&Block::entry));
  running.lane = nullptr;
  block_now = nullptr;
  if (faulted_) fibers.reset();
  return !faulted_;
}

void Block::enter(Lane* next) {
  running.lane = next;
  threadIdx = next->thread;
}

void Block::entry() {
  Block& b = *block_now;
  for (;;) {
    Lane* next = nullptr;
    try {
      b.run_lane();
      next = b.finish();
    } catch (const Faulted&) {
    }
    if (!next) fibers.leave(fibers.home());
    b.enter(next);
    if (next->fiber) {
      ++b.stats.switches;
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
  if (Lane* next = pick()) return next;
  if (live_) deadlock();
  return nullptr;
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
  Lane* next = pick();
  if (!next) deadlock();
  enter(next);
  ++stats.switches;
  fibers.enter(next->fiber ? next->fiber : fibers.start(&Block::entry));
  me.waits_at = nullptr;
}

void Block::yield() {
  Lane& me = lane();
  wake(me.index / 32, 1u << (me.index & 31));
  Lane* next = pick();
  if (next == &me) return;
  enter(next);
  ++stats.switches;
  fibers.enter(next->fiber ? next->fiber : fibers.start(&Block::entry));
}

void Block::sync(unsigned id, unsigned count, const char* what, bool wait, int predicate, Where where) {
  if (id >= barriers_.size()) fault("bad barrier", fmt::format("{}: barrier {} of 0..15", what, id), where);
  if (count % 32 || count == 0)
    if (id != 0) fault("bad barrier", fmt::format("{}: {} threads, not a multiple of 32", what, count), where);
  Barrier& b = barriers_[id];
  if (id == 0 && exited_)
    fault("divergent barrier", fmt::format("{} threads of the block have exited before {}", exited_, what), where);
  if (b.arrived == 0) {
    b = Barrier{count, 0, what, where, std::move(b.waiting), 0, 1, 0};
  } else if (b.expected != count) {
    fault("bad barrier",
          fmt::format("barrier {} is waited for with {} threads at {} and {} here", id, b.expected, at(b.where), count),
          where);
  } else if (id == 0 && !(same(b.where, where) && same(b.what, what))) {
    fault("divergent barrier",
          fmt::format("{} here, while {} threads wait in {} at {}", what, b.arrived, b.what, at(b.where)), where);
  }
  b.count += predicate != 0;
  b.all &= predicate != 0;
  b.any |= predicate != 0;
  if (race::enabled && id) race::arrived(*this, id);
  Lane& me = lane();
  if (++b.arrived < b.expected) {
    if (wait) {
      b.waiting[me.index / 32] |= 1u << (me.index & 31);
      block_until_woken(what, where);
    }
    return;
  }
  ++stats.barriers;
  if (id == 0) {
    if (race::enabled) race::met_all();
    barrier_result = same(what, "__syncthreads_count") ? b.count : same(what, "__syncthreads_and") ? b.all : b.any;
  } else if (race::enabled) {
    if (wait) b.waiting[me.index / 32] |= 1u << (me.index & 31);
    race::released(*this, id, b.waiting.data());
    if (wait) b.waiting[me.index / 32] &= ~(1u << (me.index & 31));
  }
  b.arrived = 0;
  for (unsigned w = 0; w < warps.size(); ++w) {
    wake(w, b.waiting[w]);
    b.waiting[w] = 0;
  }
  // Otherwise the last one to arrive would always continue first.
  if (wait) yield();
}

void Block::meet(std::uint32_t mask, const char* what, void (*op)(Block&, std::uint32_t), void* argument, Where where) {
  Lane& me = lane();
  Warp& w = warp();
  const std::uint32_t bit = 1u << (me.index & 31);
  if (!(mask & bit))
    fault("missing lane", fmt::format("{}: the lane is not in its own mask {:#010x}", what, mask), where);
  if (mask & ~w.exists)
    fault("missing lane",
          fmt::format("{}: mask {:#010x} names lanes beyond the block's {} threads", what, mask, threads), where);
  if (mask & w.exited)
    fault("missing lane", fmt::format("{}: lanes {:#010x} of mask {:#010x} have exited", what, mask & w.exited, mask),
          where);
  me.argument = argument;
  Meeting* found = nullptr;
  for (Meeting& m : w.meetings) {
    if (m.mask == mask && same(m.where, where) && same(m.what, what)) {
      found = &m;
    } else if ((m.arrived & mask) && (m.mask & bit)) {
      fault("missing lane",
            fmt::format("{} with mask {:#010x} here, while lanes {:#010x} wait for this one in {} with mask "
                        "{:#010x} at {}",
                        what, mask, m.arrived, m.what, m.mask, at(m.where)),
            where);
    }
  }
  if (!found) found = &w.meetings.emplace_back(Meeting{mask, 0, what, where});
  found->arrived |= bit;
  if (found->arrived != mask) return block_until_woken(what, where);
  ++stats.collectives;
  *found = w.meetings.back();
  w.meetings.pop_back();
  op(*this, mask);
  wake(me.index / 32, mask & ~bit);
}

void Block::deadlock() {
  std::string text = "no thread can run:";
  std::vector<std::pair<std::string, unsigned>> places;
  for (const Lane& l : lanes) {
    if (!l.waits_at) continue;
    const std::string place = fmt::format("{} at {}", l.waits_at, at(l.where));
    bool known = false;
    for (auto& [p, n] : places)
      if (p == place) ++n, known = true;
    if (!known) places.emplace_back(place, 1);
  }
  for (const auto& [p, n] : places) text += fmt::format(" {} threads wait in {};", n, p);
  text += fmt::format(" {} exited", exited_);
  fault("deadlock", text, places.empty() ? "?" : places[0].first.substr(places[0].first.find(" at ") + 4));
}

std::string Block::describe(const Lane& l) const {
  return fmt::format("{}, warp {} lane {}", triple(l.thread), l.index / 32, l.index % 32);
}

void Block::fault(const char* kind, const std::string& text, Where where, const Lane* who) {
  fault(kind, text, at(where), who);
}

void Block::fault(const char* kind, const std::string& text, const std::string& where, const Lane* who) {
  faulted_ = true;
  record_fault({kind, function_name(launch.function), triple(index), describe(who ? *who : lane()), where, text});
#ifdef __SANITIZE_ADDRESS__
  throw Faulted{};  // unwinds, so that no string is reported as a leak
#else
  fibers.leave(fibers.home());  // the compiler assumes that the race checker's hooks do not throw
#endif
}

}  // namespace sim
