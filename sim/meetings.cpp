// Where the threads of a block meet: barriers, masks of a warp, warpgroups; and what to say where they cannot.
#include <fmt/format.h>

#include <cstring>

#include "engine.h"
#include "hopper.h"
#include "race.h"

namespace sim {
namespace {

/// Names of operations and files are literals: nearly always the same pointer.
bool same(const char* a, const char* b) {
  return a == b || std::strcmp(a, b) == 0;
}
bool same(const Where& a, const Where& b) {
  return a.line() == b.line() && same(a.file_name(), b.file_name());
}

}  // namespace

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
  ++barriers_met;
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

void Block::meet_group(const char* what, void (*op)(Block&, unsigned), void* argument, Where where) {
  Lane& me = lane();
  const unsigned group = me.index / 128;
  if (group >= groups_.size())
    fault("divergent warpgroup",
          fmt::format("{}: the block's {} threads end within this warpgroup; launch a multiple of 128", what, threads),
          where);
  GroupMeeting& g = groups_[group];
  if (g.exited)
    fault("divergent warpgroup", fmt::format("{}: {} threads of the warpgroup have exited", what, g.exited), where);
  me.argument = argument;
  if (g.arrived == 0) {
    g.what = what;
    g.where = where;
  } else if (!(same(g.where, where) && same(g.what, what))) {
    fault("divergent warpgroup",
          fmt::format("{} here, while {} threads of the warpgroup wait in {} at {}: all 128 must reach the same "
                      "instruction",
                      what, g.arrived, g.what, at(g.where)),
          where);
  }
  if (++g.arrived < 128) return block_until_woken(what, where);
  g.arrived = 0;
  ++stats.collectives;
  op(*this, group * 128);
  for (unsigned w = 0; w < 4; ++w) wake(group * 4 + w, ~(me.index / 32 == group * 4 + w ? 1u << (me.index & 31) : 0));
}

void Block::deadlock() {
  std::string text = "no thread can run:";
  std::vector<std::pair<std::string, unsigned>> places;
  unsigned gone = 0;
  for (const auto& b : cluster.blocks) {
    gone += b->exited_;
    for (const Lane& l : b->lanes) {
      if (!l.waits_at) continue;
      const std::string place = fmt::format("{} at {}", l.waits_at, at(l.where));
      bool known = false;
      for (auto& [p, n] : places)
        if (p == place) ++n, known = true;
      if (!known) places.emplace_back(place, 1);
    }
  }
  for (const auto& [p, n] : places) text += fmt::format(" {} threads wait in {};", n, p);
  text += fmt::format(" {} exited", gone);
  for (const auto& b : cluster.blocks) text += why_stuck(*b);
  fault("deadlock", text, places.empty() ? "?" : places[0].first.substr(places[0].first.find(" at ") + 4));
}

}  // namespace sim
