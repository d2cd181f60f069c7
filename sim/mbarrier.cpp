// mbarriers: phases of arrivals and bytes.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "hopper.h"
#include "hopper_ptx.h"
#include "race.h"

namespace sim {
namespace {

constexpr std::uint64_t kMagic = 0x6d62617272696572;  // what the object holds; its contents are opaque
constexpr long kMostBytes = (1 << 20) - 1;
constexpr unsigned kMostCount = (1 << 20) - 1;

unsigned offset_of(const std::uint64_t* barrier, const char* what, Where where) {
  return shared_offset(barrier, 8, 8, what, where);
}

void complete(Block& b, Mbarrier& m) {
  ++m.phase;
  m.pending = m.count;
  m.expected = m.copied = 0;
  if (race::enabled) race::join(m.completed, m.arriving);
  for (const Lane* l : m.waiting) b.wake(*l);
  m.waiting.clear();
}

}  // namespace

Mbarrier& mbarrier(Block& b, unsigned offset, bool async, const char* what, Where where) {
  Hopper& h = hopper(b);
  const auto it = h.mbarriers.find(offset);
  if (it == h.mbarriers.end())
    block_now->fault("bad mbarrier",
                     fmt::format("{}: no mbarrier at dynamic offset {}; mbarrier_init comes first", what, offset),
                     where);
  std::uint64_t word;
  std::memcpy(&word, b.dynamic + offset, 8);
  if (word != kMagic)
    block_now->fault("bad mbarrier",
                     fmt::format("{}: the mbarrier at dynamic offset {} (of {}) was overwritten", what, offset,
                                 at(it->second.where)),
                     where);
  Mbarrier& m = it->second;
  const bool other = &b != block_now || block_now->lane().index != m.thread;
  if ((other || async) && !m.fenced)
    block_now->fault(
        "bad mbarrier",
        fmt::format("{}: the mbarrier at dynamic offset {} (of {}) may not be visible; its thread must call "
                    "mbarrier_init_fence() after mbarrier_init",
                    what, offset, at(m.where)),
        where);
  if (other && &b == block_now && b.barriers_met == m.epoch && b.cluster.phase == 0)
    block_now->fault("bad mbarrier",
                     fmt::format("{}: no barrier since the mbarrier at dynamic offset {} (of {}) was initialised; call "
                                 "__syncthreads() or, in a cluster, cluster_sync()",
                                 what, offset, at(m.where)),
                     where);
  return m;
}

void arrive(Block& b, unsigned offset, unsigned arrivals, long expect, long copied, const char* what, Where where) {
  Mbarrier& m = hopper(b).mbarriers.at(offset);
  m.bytes += expect - copied;
  m.expected += expect;
  m.copied += copied;
  if (m.bytes > kMostBytes || m.bytes < -kMostBytes)
    b.fault("bad mbarrier",
            fmt::format("{}: {} bytes are under way at the mbarrier at dynamic offset {}, at most {} can be", what,
                        m.bytes, offset, kMostBytes),
            where);
  if (arrivals > m.pending)
    b.fault(
        "bad mbarrier",
        fmt::format("{}: {} arrivals at the mbarrier at dynamic offset {} (of {}), but only {} of its {} are missing "
                    "in this phase ({} of {} bytes have been copied); mbarrier_init takes the arrivals of a phase",
                    what, arrivals, offset, at(m.where), m.pending, m.count, m.copied, m.expected),
        where);
  m.pending -= arrivals;
  if (m.pending == 0 && m.bytes == 0) complete(b, m);
}

void mbarrier_init(std::uint64_t* barrier, unsigned count, Where where) {
  Block& b = *block_now;
  const unsigned offset = offset_of(barrier, "mbarrier.init", where);
  if (count < 1 || count > kMostCount)
    b.fault("bad mbarrier", fmt::format("mbarrier.init: count {} is not in 1..{}", count, kMostCount), where);
  if (hopper(b).mbarriers.contains(offset))
    b.fault("bad mbarrier",
            fmt::format("mbarrier.init: dynamic offset {} already holds the mbarrier of {}; mbarrier_inval it first",
                        offset, at(hopper(b).mbarriers.at(offset).where)),
            where);
  hopper(b).mbarriers[offset] =
      Mbarrier{count, count, 0, 0, 0, 0, b.lane().index, b.barriers_met, false, {}, {}, {}, where};
  if (race::enabled) race::access(barrier, 8, race::kWrite, where);
  std::memcpy(barrier, &kMagic, 8);
}

void mbarrier_inval(std::uint64_t* barrier, Where where) {
  const unsigned offset = offset_of(barrier, "mbarrier.inval", where);
  Mbarrier& m = mbarrier(*block_now, offset, false, "mbarrier.inval", where);
  if (!m.waiting.empty())
    block_now->fault("bad mbarrier",
                     fmt::format("mbarrier.inval: {} threads wait at dynamic offset {}", m.waiting.size(), offset),
                     where);
  hopper(*block_now).mbarriers.erase(offset);
}

void mbarrier_init_fence(Where) {
  Block& b = *block_now;
  for (auto& [offset, m] : hopper(b).mbarriers)
    if (m.thread == b.lane().index) m.fenced = true;
}

void mbarrier_arrive(std::uint64_t* barrier, unsigned count, long expect, Where where) {
  const char* what = expect ? "mbarrier.arrive.expect_tx" : "mbarrier.arrive";
  const unsigned offset = offset_of(barrier, what, where);
  Mbarrier& m = mbarrier(*block_now, offset, false, what, where);
  if (race::enabled) race::release(*block_now, m.arriving);
  arrive(*block_now, offset, count, expect, 0, what, where);
}

void mbarrier_expect(std::uint64_t* barrier, long bytes, Where where) {
  const unsigned offset = offset_of(barrier, "mbarrier.expect_tx", where);
  mbarrier(*block_now, offset, false, "mbarrier.expect_tx", where);
  arrive(*block_now, offset, 0, bytes, 0, "mbarrier.expect_tx", where);
}

void mbarrier_complete(std::uint64_t* barrier, long bytes, Where where) {
  const unsigned offset = offset_of(barrier, "mbarrier.complete_tx", where);
  mbarrier(*block_now, offset, false, "mbarrier.complete_tx", where);
  arrive(*block_now, offset, 0, 0, bytes, "mbarrier.complete_tx", where);
}

void mbarrier_arrive_remote(std::uint32_t barrier, Where where) {
  const Remote r = remote(barrier, 8, 8, "mbarrier.arrive.shared::cluster", where);
  Mbarrier& m = mbarrier(*r.block, r.offset, false, "mbarrier.arrive.shared::cluster", where);
  if (race::enabled && r.block == block_now) race::release(*block_now, m.arriving);
  arrive(*r.block, r.offset, 1, 0, 0, "mbarrier.arrive.shared::cluster", where);
}

bool mbarrier_test(std::uint64_t* barrier, unsigned parity, Where where) {
  const unsigned offset = offset_of(barrier, "mbarrier.test_wait", where);
  Mbarrier& m = mbarrier(*block_now, offset, false, "mbarrier.test_wait", where);
  const bool done = (m.phase & 1) != (parity & 1);
  if (done && race::enabled) race::acquire(*block_now, m.completed);
  return done;
}

bool mbarrier_try_wait(std::uint64_t* barrier, unsigned parity, Where where) {
  Block& b = *block_now;
  if (mbarrier_test(barrier, parity, where)) return true;
  if ((b.random() & 15) == 0) {
    b.yield();
    return false;
  }
  const unsigned offset = offset_of(barrier, "mbarrier.try_wait", where);
  mbarrier(b, offset, false, "mbarrier.try_wait", where).waiting.push_back(&b.lane());
  b.block_until_woken("mbarrier.try_wait", where);
  return mbarrier_test(barrier, parity, where);
}

std::string why_stuck(const Block& b) {
  std::string text;
  if (!b.hopper) return text;
  const std::string block =
      b.cluster.blocks.size() > 1 ? fmt::format(" of block {} of the cluster", b.rank) : std::string();
  for (const auto& [offset, m] : b.hopper->mbarriers) {
    if (m.waiting.empty()) continue;
    text += fmt::format(
        "; {} threads wait for phase {} (parity {}) of the mbarrier at dynamic offset {}{} (of {}): {} of its {} "
        "arrivals are missing, {} bytes were expected and {} copied",
        m.waiting.size(), m.phase, m.phase & 1, offset, block, at(m.where), m.pending, m.count, m.expected, m.copied);
    if (m.bytes) text += "; expect_tx must be the bytes of the copies, the parts of a box outside the tensor included";
    if (m.phase == 0 && m.pending == m.count && m.expected == 0)
      text += "; nobody has arrived yet: the first wait for a free stage is for parity 1, which is complete at once";
  }
  for (std::size_t i = 0; i < b.hopper->warpgroups.size(); ++i)
    if (const Warpgroup& g = b.hopper->warpgroups[i]; g.wanted)
      text += fmt::format(
          "; warpgroup {}{} waits for {} registers a thread and has {}, {} are free: the sum over the warpgroups may "
          "not "
          "exceed {}",
          i, block, g.wanted, g.registers, b.hopper->free_registers, b.hopper->all_registers);
  return text;
}

}  // namespace sim
