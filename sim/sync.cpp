// Barriers, shuffles, votes and warp reductions.
#include <fmt/format.h>

#include <bit>

#include "engine.h"
#include "ptx.h"
#include "race.h"
#include "threads.h"

__attribute__((noinline)) float __fmul_rn(float a, float b) {
  return a * b;
}
__attribute__((noinline)) float __fadd_rn(float a, float b) {
  return a + b;
}
__attribute__((noinline)) float __fsub_rn(float a, float b) {
  return a - b;
}

namespace sim {
namespace {

struct Shuffle {
  std::uint64_t value, result;
  int from;
  const char* what;
  Where where;
};

struct Folded {
  Fold op;
  unsigned value, result;
};

template <class F>
void each(std::uint32_t mask, F f) {
  for (; mask; mask &= mask - 1) f(static_cast<unsigned>(std::countr_zero(mask)));
}

unsigned combine(Fold op, unsigned a, unsigned b) {
  const int sa = a, sb = b;
  switch (op) {
    case Fold::all:
    case Fold::bit_and:
      return a & b;
    case Fold::ballot:
    case Fold::any:
    case Fold::bit_or:
      return a | b;
    case Fold::bit_xor:
      return a ^ b;
    case Fold::add:
      return a + b;
    case Fold::umin:
      return a < b ? a : b;
    case Fold::umax:
      return a > b ? a : b;
    case Fold::min:
      return sa < sb ? a : b;
    case Fold::max:
      return sa > sb ? a : b;
    case Fold::match_any:
      break;
  }
  return 0;
}

const char* name(Fold op) {
  switch (op) {
    case Fold::ballot:
      return "__ballot_sync";
    case Fold::all:
      return "__all_sync";
    case Fold::any:
      return "__any_sync";
    case Fold::match_any:
      return "__match_any_sync";
    case Fold::add:
      return "__reduce_add_sync";
    case Fold::min:
    case Fold::umin:
      return "__reduce_min_sync";
    case Fold::max:
    case Fold::umax:
      return "__reduce_max_sync";
    case Fold::bit_and:
      return "__reduce_and_sync";
    case Fold::bit_or:
      return "__reduce_or_sync";
    case Fold::bit_xor:
      return "__reduce_xor_sync";
  }
  return "?";
}

}  // namespace

int sync_block(const char* what, int predicate, Where where) {
  block_now->sync(0, block_now->threads, what, true, predicate, where);
  return block_now->barrier_result;
}

void sync_warp(unsigned mask, Where where) {
  block_now->meet(
      mask, "__syncwarp",
      [](Block& b, std::uint32_t m) {
        if (race::enabled) race::met_lanes(b, m);
      },
      nullptr, where);
}

unsigned lane_id() {
  return running.lane->index & 31;
}
unsigned active_lanes() {
  return 1u << lane_id();
}
void yield() {
  block_now->yield();
}
void trap(Where where) {
  block_now->fault("trap", "__trap() or a failed device assertion", where);
}

std::uint64_t shuffle(const char* what, unsigned mask, std::uint64_t value, int from, Where where) {
  Shuffle s{value, value, from, what, where};
  block_now->meet(
      mask, what,
      [](Block& b, std::uint32_t m) {
        each(m, [&](unsigned i) {
          auto& mine = *static_cast<Shuffle*>(b.peer(i).argument);
          if (mine.from < 0) return;
          if (!(m >> mine.from & 1))
            b.fault("missing lane",
                    fmt::format("{} reads lane {}, which is not in mask {:#010x}", mine.what, mine.from, m), mine.where,
                    &b.peer(i));
          mine.result = static_cast<Shuffle*>(b.peer(static_cast<unsigned>(mine.from)).argument)->value;
        });
      },
      &s, where);
  return s.result;
}

unsigned fold(Fold op, unsigned mask, unsigned value, Where where) {
  Folded f{op, op == Fold::ballot ? value << lane_id() : value, 0};
  block_now->meet(
      mask, name(op),
      [](Block& b, std::uint32_t m) {
        const auto arg = [&b](unsigned i) { return static_cast<Folded*>(b.peer(i).argument); };
        const Fold o = arg(static_cast<unsigned>(std::countr_zero(m)))->op;
        if (o == Fold::match_any) {
          each(m, [&](unsigned i) {
            each(m, [&](unsigned j) {
              if (arg(i)->value == arg(j)->value) arg(i)->result |= 1u << j;
            });
          });
          return;
        }
        bool first = true;
        unsigned total = 0;
        each(m, [&](unsigned i) {
          total = first ? arg(i)->value : combine(o, total, arg(i)->value);
          first = false;
        });
        each(m, [&](unsigned i) { arg(i)->result = total; });
      },
      &f, where);
  return f.result;
}

}  // namespace sim
