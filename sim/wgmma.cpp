// wgmma: shared-memory descriptors, accumulators in flight, execution as late as the wait.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "hopper.h"
#include "hopper_ptx.h"
#include "race.h"
#include "tensor_core.h"

namespace sim {
namespace {

constexpr unsigned kRows = 64, kDepth = 16;

struct Descriptor {
  unsigned start, leading, stride, base, mode;
};
Descriptor decode(std::uint64_t d) {
  return {static_cast<unsigned>(d & 0x3fff) << 4, static_cast<unsigned>(d >> 16 & 0x3fff) << 4,
          static_cast<unsigned>(d >> 32 & 0x3fff) << 4, static_cast<unsigned>(d >> 49 & 7),
          static_cast<unsigned>(d >> 62)};
}

/// Shared address of element (mn, k) of an operand. `mn_major`: neighbours along mn lie side by side.
unsigned element(const Descriptor& d, bool mn_major, unsigned mn, unsigned k) {
  if (d.mode == 0)
    return d.start + mn / 8 * d.stride + k / 8 * d.leading +
           (mn_major ? k % 8 * 16 + mn % 8 * 2 : mn % 8 * 16 + k % 8 * 2);
  const unsigned span = d.mode == 1 ? 128 : d.mode == 2 ? 64 : 32;  // bytes of a line of the pattern
  const unsigned a =
      d.start + (mn_major ? mn % (span / 2) * 2 + mn / (span / 2) * d.leading + k % 8 * span + k / 8 * d.stride
                          : mn % 8 * span + mn / 8 * d.stride + k * 2);
  return a ^ ((((a >> 7) - d.base) & (span / 16 - 1)) << 4);
}

/// The operand as mn x 16 or, `by_k`, as 16 x mn. A load that came too early may still be writing it, which execute()
/// reports; AddressSanitizer would, without a word about the wgmma.
[[gnu::no_sanitize("address")]] std::vector<float> gather(Block& block, std::uint64_t bits, bool mn_major,
                                                          unsigned rows, bool by_k, const char* name, bool issue,
                                                          Where where) {
  const Descriptor d = decode(bits);
  std::vector<float> values(std::size_t{rows} * kDepth);
  const Hopper& h = hopper(block);
  const bool loads = block.cluster.engine->busy();
  for (unsigned mn = 0; mn < rows; ++mn)
    for (unsigned k = 0; k < kDepth; ++k) {
      const unsigned address = element(d, mn_major, mn, k), offset = address - kSharedBase;
      if (address < kSharedBase || offset + 2 > block.launch.smem_bytes)
        block.fault(
            "bad address",
            fmt::format("wgmma: element ({}, {}) of {} lies at dynamic offset {}, outside the block's {} bytes; "
                        "its descriptor has start {}, leading stride {}, stride {}, swizzle mode {}",
                        mn, k, name, static_cast<long>(address) - long{kSharedBase}, block.launch.smem_bytes,
                        static_cast<long>(d.start) - long{kSharedBase}, d.leading, d.stride, d.mode),
            where);
      const auto word = *reinterpret_cast<const std::uint16_t*>(block.dynamic + offset);
      if (issue && (loads || word != *reinterpret_cast<const std::uint16_t*>(&h.fenced[offset])))
        need_fenced(block, offset, 2, "wgmma", where);
      if (issue && race::enabled) race::async_read(block.dynamic + offset, 2, true, "wgmma", where);
      values[by_k ? k * rows + mn : mn * kDepth + k] = std::bit_cast<float>(std::uint32_t{word} << 16);
    }
  return values;
}

/// Element of the accumulator that register r of thread t of the warpgroup holds.
unsigned cell(unsigned t, unsigned r, unsigned columns) {
  return (t / 32 * 16 + t % 32 / 4 + r / 2 % 2 * 8) * columns + r / 4 * 8 + t % 4 * 2 + r % 2;
}

std::vector<float> fragments(const std::array<const std::uint32_t*, 128>& registers) {
  std::vector<float> a(kRows * kDepth);
  for (unsigned t = 0; t < 128; ++t)
    for (unsigned i = 0; i < 4; ++i)
      for (unsigned half = 0; half < 2; ++half) {
        const std::uint32_t word = registers[t][i];
        a[(t / 32 * 16 + t % 32 / 4 + i % 2 * 8) * kDepth + t % 4 * 2 + half + i / 2 * 8] =
            std::bit_cast<float>(half ? word & 0xffff0000u : word << 16);
      }
  return a;
}

bool equal(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

Warpgroup& group_of(Block& b, unsigned first) {
  return hopper(b).warpgroups[first / 128];
}

/// Registers that ordinary code wrote since the last wgmma that used them need a wgmma.fence.
void check_fence(Block& b, Warpgroup& g, Lane& lane, const void* registers, unsigned count, const char* name,
                 Where where) {
  const auto known = g.known.find(registers);
  if (lane.fences == 0 || (known != g.known.end() && known->second.fences == lane.fences &&
                           std::memcmp(known->second.values.data(), registers, count * 4) != 0))
    b.fault("missing wgmma.fence",
            fmt::format("wgmma uses {} that {}; call wgmma_fence() after the last ordinary write to them", name,
                        lane.fences == 0 ? "no wgmma.fence precedes" : "changed since the last wgmma.fence"),
            where, &lane);
}
void remember(Warpgroup& g, const Lane& lane, const void* registers, unsigned count) {
  Known& k = g.known[registers];
  k.values.resize(count);
  std::memcpy(k.values.data(), registers, count * 4);
  k.fences = lane.fences;
}

struct Argument {
  Wgmma w;
  Where where;
};
const Argument& argument(Block& b, unsigned thread) {
  return *static_cast<Argument*>(b.lanes[thread].argument);
}

void check_uniform(Block& b, unsigned first) {
  const Wgmma& w = argument(b, first).w;
  for (unsigned t = 1; t < 128; ++t) {
    const Wgmma& v = argument(b, first + t).w;
    if (v.b != w.b || v.keep_sum != w.keep_sum || (!w.a_registers && v.a != w.a))
      b.fault("divergent warpgroup",
              fmt::format("wgmma: {} differs from thread {}'s; all 128 threads must pass the same",
                          v.keep_sum != w.keep_sum ? "scale-d" : "a descriptor", b.describe(b.lanes[first])),
              argument(b, first + t).where, &b.lanes[first + t]);
  }
}

/// The accumulator in these registers: the one in flight, or what they hold now.
Accumulator& accumulator(Block& b, Warpgroup& g, unsigned first, unsigned columns, Where where) {
  float* const p = argument(b, first).w.d;
  for (const auto& s : g.sums) {
    if (s->registers[0] == p && s->columns == columns) return *s;
    if (p < s->registers[0] + s->columns / 2 && s->registers[0] < p + columns / 2)
      b.fault("accumulator in flight",
              "wgmma writes a part of an accumulator that another wgmma of another shape is writing; call "
              "wgmma_commit() and wgmma_wait<0>() in between",
              where);
  }
  auto s = std::make_unique<Accumulator>();
  s->columns = columns;
  s->tile.resize(std::size_t{kRows} * columns);
  for (unsigned t = 0; t < 128; ++t) {
    float* d = s->registers[t] = argument(b, first + t).w.d;
    check_fence(b, g, b.lanes[first + t], d, columns / 2, "accumulators", where);
    for (unsigned r = 0; r < columns / 2; ++r) s->tile[cell(t, r, columns)] = d[r];
    std::memset(d, 0xff, columns / 2 * sizeof(float));
    poison(d, columns / 2 * sizeof(float), true);
  }
  g.sums.push_back(std::move(s));
  return *g.sums.back();
}

void issue(Block& b, unsigned first) {
  const Argument& arg = argument(b, first);
  const Wgmma& w = arg.w;
  const Where where = arg.where;
  check_uniform(b, first);
  Warpgroup& g = group_of(b, first);
  Product p{};
  p.group = b.lanes[first].wgmma_groups;
  p.a = w.a;
  p.b = w.b;
  p.a_in_registers = w.a_registers != nullptr;
  p.transposed_a = w.transposed_a;
  p.transposed_b = w.transposed_b;
  p.keep_sum = w.keep_sum;
  p.sign = w.negative_a != w.negative_b ? -1.0f : 1.0f;
  p.where = where;
  if (p.a_in_registers) {
    for (unsigned t = 0; t < 128; ++t) {
      p.a_registers[t] = argument(b, first + t).w.a_registers;
      check_fence(b, g, b.lanes[first + t], p.a_registers[t], 4, "fragments of A", where);
      remember(g, b.lanes[first + t], p.a_registers[t], 4);
    }
    p.a_values = fragments(p.a_registers);
  } else {
    p.a_values = gather(b, w.a, w.transposed_a, kRows, false, "A", true, where);
  }
  p.b_values = gather(b, w.b, w.transposed_b, w.columns, true, "B", true, where);
  p.read = race::enabled ? race::time(b) : 0;  // after the reads
  p.sum = &accumulator(b, g, first, w.columns, where);
  g.products.push_back(std::move(p));
}

[[noreturn]] void overwritten(Block& b, const Product& p, bool a, const Where* load) {
  const bool in_registers = a && p.a_in_registers;
  b.fault("operand overwritten",
          fmt::format("{} of this wgmma changed before it was complete{}; wait for it (wgmma_wait) before {}",
                      a ? "A" : "B", load ? ": the bulk load of " + at(*load) + " writes it" : std::string(),
                      in_registers ? "the registers are used again" : "the stage is released"),
          p.where);
}

void execute(Block& b, Product& p) {
  std::vector<float> a =
      p.a_in_registers ? fragments(p.a_registers) : gather(b, p.a, p.transposed_a, kRows, false, "A", false, p.where);
  if (!equal(a, p.a_values)) overwritten(b, p, true, nullptr);
  const unsigned n = p.sum->columns;
  if (!equal(gather(b, p.b, p.transposed_b, n, true, "B", false, p.where), p.b_values))
    overwritten(b, p, false, nullptr);
  if (p.sign < 0)
    for (float& x : a) x = -x;
  if (!p.keep_sum) std::fill(p.sum->tile.begin(), p.sum->tile.end(), 0.0f);
  multiply_bf16(a.data(), p.b_values.data(), p.sum->tile.data(), kRows, static_cast<int>(n), kDepth);
}

struct WaitArgument {
  int pending;
  Where where;
};

void wait(Block& b, unsigned first) {
  const auto& arg = *static_cast<WaitArgument*>(b.lanes[first].argument);
  Warpgroup& g = group_of(b, first);
  const long covered = static_cast<long>(b.lanes[first].wgmma_groups) - arg.pending;
  std::size_t done = 0;
  for (; done < g.products.size() && long{g.products[done].group} < covered; ++done) {
    execute(b, g.products[done]);
    if (race::enabled) race::wgmma_done(b, first, g.products[done].read);
  }
  g.products.erase(g.products.begin(), g.products.begin() + static_cast<std::ptrdiff_t>(done));
  std::erase_if(g.sums, [&](const std::unique_ptr<Accumulator>& s) {
    for (const Product& p : g.products)
      if (p.sum == s.get()) return false;
    for (unsigned t = 0; t < 128; ++t) {
      float* d = s->registers[t];
      poison(d, s->columns / 2 * sizeof(float), false);
      for (unsigned r = 0; r < s->columns / 2; ++r)
        if (std::bit_cast<std::uint32_t>(d[r]) != ~0u)
          b.fault("accumulator in flight",
                  "an accumulator was written between wgmma and the wait for it; call wgmma_commit() and "
                  "wgmma_wait<0>() first",
                  arg.where, &b.lanes[first + t]);
      for (unsigned r = 0; r < s->columns / 2; ++r) d[r] = s->tile[cell(t, r, s->columns)];
      remember(g, b.lanes[first + t], d, s->columns / 2);
    }
    return true;
  });
}

}  // namespace

void check_descriptor(std::uint32_t start, std::uint32_t leading, std::uint32_t stride, Where where) {
  if ((start | leading | stride) % 16 || leading >> 18 || stride >> 18)
    block_now->fault(
        "bad address",
        fmt::format("wgmma_descriptor: start {}, leading {} and stride {} must be multiples of 16, strides "
                    "below 2^18",
                    static_cast<long>(start) - long{kSharedBase}, leading, stride),
        where);
}

void check_overwrite(Block& b, const Copy& c) {
  if (!b.hopper) return;
  // Unexchanged, a byte of the box is in a line of it.
  const unsigned mask = c.map.swizzle ? c.map.swizzle / 16 - 1u : 0;
  const auto written = [&](std::uint64_t bits, bool mn_major, unsigned rows) {
    const Descriptor d = decode(bits);
    for (unsigned mn = 0; mn < rows; ++mn)
      for (unsigned k = 0; k < kDepth; ++k) {
        const unsigned address = element(d, mn_major, mn, k);
        const unsigned at = (address ^ ((address >> 7 & mask) << 4)) - kSharedBase - c.offset;
        if (at < c.map.span() && at % c.map.pitch() < c.map.line_bytes()) return true;
      }
    return false;
  };
  for (const Warpgroup& g : b.hopper->warpgroups)
    for (const Product& p : g.products) {
      if (!p.a_in_registers && written(p.a, p.transposed_a, kRows)) overwritten(b, p, true, &c.where);
      if (written(p.b, p.transposed_b, p.sum->columns)) overwritten(b, p, false, &c.where);
    }
}

const Product* in_flight(const Block& b, const void* p) {
  const unsigned thread = running.lane->index;
  if (!b.hopper || thread / 128 >= b.hopper->warpgroups.size()) return nullptr;
  const auto* at = static_cast<const float*>(p);
  for (const Product& product : b.hopper->warpgroups[thread / 128].products) {
    const float* d = product.sum->registers[thread % 128];
    if (at >= d && at < d + product.sum->columns / 2) return &product;
  }
  return nullptr;
}

void wgmma(const Wgmma& w, Where where) {
  Argument arg{w, where};
  block_now->meet_group("wgmma", issue, &arg, where);
}

void wgmma_fence(Where) {
  ++block_now->lane().fences;
}

void wgmma_commit(Where) {
  ++block_now->lane().wgmma_groups;
}

void wgmma_wait(int pending, Where where) {
  WaitArgument arg{pending, where};
  block_now->meet_group("wgmma.wait_group", wait, &arg, where);
}

}  // namespace sim
