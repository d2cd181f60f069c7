#include "ptx.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "engine.h"
#include "hopper_ptx.h"
#include "race.h"
#include "tensor_core.h"

extern "C" char __executable_start, end;

namespace sim {

bool is_shared(const void* p, std::size_t bytes) {
  if (block_now->in_dynamic(p, bytes)) return true;
  const char* c = static_cast<const char*>(p);
#ifdef __SANITIZE_ADDRESS__
  return c >= &__executable_start && c < &end;
#else
  const Range r = thread_local_range();
  return c >= r.low && c + bytes <= r.high;
#endif
}

namespace {

void need_shared(const void* p, std::size_t bytes, const char* what, Where where) {
  if (!is_shared(p, bytes))
    block_now->fault("bad address",
                     fmt::format("{}: {} (and {} bytes) is not in this block's shared memory", what, p, bytes), where);
}

float bf16(std::uint32_t word, unsigned half) {
  return std::bit_cast<float>(half ? word & 0xffff0000u : word << 16);
}
float tf32(std::uint32_t word) {
  return std::bit_cast<float>(word & 0xffffe000u);
}

struct Mma {
  float* d;
  const std::uint32_t *a, *b;
  const float* c;
};

/// Registers to matrices, and back.
template <int depth>
struct Tiles {
  float a[16][depth], b[depth][8], d[16][8];
};

template <int depth>
void gather_sums(Block& b, Tiles<depth>& t) {
  for (unsigned l = 0; l < 32; ++l) {
    const float* c = static_cast<Mma*>(b.peer(l).argument)->c;
    for (unsigned i = 0; i < 4; ++i) t.d[l / 4 + (i / 2) * 8][l % 4 * 2 + i % 2] = c[i];
  }
}

template <int depth>
void scatter_sums(Block& b, const Tiles<depth>& t) {
  for (unsigned l = 0; l < 32; ++l) {
    float* d = static_cast<Mma*>(b.peer(l).argument)->d;
    for (unsigned i = 0; i < 4; ++i) d[i] = t.d[l / 4 + (i / 2) * 8][l % 4 * 2 + i % 2];
  }
}

void run_mma_bf16(Block& block, std::uint32_t) {
  Tiles<16> t;
  for (unsigned l = 0; l < 32; ++l) {
    const auto& m = *static_cast<Mma*>(block.peer(l).argument);
    const unsigned group = l / 4, two = l % 4 * 2;
    for (unsigned e = 0; e < 8; ++e)  // register e/2: rows alternate, then columns + 8
      t.a[group + (e / 2 % 2) * 8][two + e % 2 + (e / 4) * 8] = bf16(m.a[e / 2], e % 2);
    for (unsigned e = 0; e < 4; ++e) t.b[two + e % 2 + (e / 2) * 8][group] = bf16(m.b[e / 2], e % 2);
  }
  gather_sums(block, t);
  multiply_bf16(t.a[0], t.b[0], t.d[0], 16, 8, 16);
  scatter_sums(block, t);
}

void run_mma_tf32(Block& block, std::uint32_t) {
  Tiles<8> t;
  for (unsigned l = 0; l < 32; ++l) {
    const auto& m = *static_cast<Mma*>(block.peer(l).argument);
    for (unsigned e = 0; e < 4; ++e) t.a[l / 4 + (e % 2) * 8][l % 4 + (e / 2) * 4] = tf32(m.a[e]);
    for (unsigned e = 0; e < 2; ++e) t.b[l % 4 + e * 4][l / 4] = tf32(m.b[e]);
  }
  gather_sums(block, t);
  multiply_fma(t.a[0], t.b[0], t.d[0], 16, 8, 8);
  scatter_sums(block, t);
}

struct Ldmatrix {
  std::uint32_t* r;
  const char* row;
  int count;
  bool transposed;
  Where where;
};

void run_ldmatrix(Block& block, std::uint32_t) {
  const auto arg = [&block](unsigned l) { return static_cast<Ldmatrix*>(block.peer(l).argument); };
  const int count = arg(0)->count;
  std::uint16_t m[4][8][8];
  for (unsigned l = 0; l < 8u * static_cast<unsigned>(count); ++l) std::memcpy(m[l / 8][l % 8], arg(l)->row, 16);
  for (int j = 0; j < count; ++j) {
    // Eight rows of 16 bytes are one pass over the 32 banks unless two of them share their four banks.
    unsigned rows_in[8] = {}, passes = 1;
    for (unsigned i = 0; i < 8; ++i) {
      const auto column = reinterpret_cast<std::uintptr_t>(arg(8 * static_cast<unsigned>(j) + i)->row) / 16 % 8;
      passes = std::max(passes, ++rows_in[column]);
    }
    ++block.stats.ldmatrix_phases;
    block.stats.ldmatrix_conflicts += passes - 1;
  }
  for (unsigned l = 0; l < 32; ++l)
    for (int j = 0; j < count; ++j) {
      const unsigned i = l / 4, two = l % 4 * 2;
      const auto lo = arg(l)->transposed ? m[j][two][i] : m[j][i][two];
      const auto hi = arg(l)->transposed ? m[j][two + 1][i] : m[j][i][two + 1];
      arg(l)->r[j] = static_cast<std::uint32_t>(hi) << 16 | lo;
    }
}

struct Stmatrix {
  const std::uint32_t* r;
  char* row;
  int count;
  bool transposed;
};

void run_stmatrix(Block& block, std::uint32_t) {
  const auto arg = [&block](unsigned l) { return static_cast<Stmatrix*>(block.peer(l).argument); };
  for (unsigned j = 0; j < static_cast<unsigned>(arg(0)->count); ++j)
    for (unsigned l = 0; l < 32; ++l)
      for (unsigned half = 0; half < 2; ++half) {
        const unsigned i = l / 4, two = l % 4 * 2 + half;
        const auto v = static_cast<std::uint16_t>(arg(l)->r[j] >> 16 * half);
        std::memcpy(arg(j * 8 + (arg(0)->transposed ? two : i))->row + (arg(0)->transposed ? i : two) * 2, &v, 2);
      }
}

}  // namespace

void check_aligned(const void* p, unsigned bytes, const char* what, Where where) {
  if (reinterpret_cast<std::uintptr_t>(p) % bytes && block_now)
    block_now->fault("misaligned", fmt::format("{}: address {} is not a multiple of {}", what, p, bytes), where);
}

void cp_async(void* shared, const void* global, unsigned width, unsigned bytes, Where where) {
  check_aligned(shared, width, "cp.async to shared", where);
  if (bytes) check_aligned(global, width, "cp.async from global", where);
  need_shared(shared, width, "cp.async", where);
  if (bytes > width) block_now->fault("bad address", fmt::format("cp.async of {} bytes reads {}", width, bytes), where);
  if (bytes && is_shared(global, 1) && block_now->in_dynamic(global, 1))
    block_now->fault("bad address", "cp.async reads from shared memory", where);
  if (race::enabled) race::access(shared, width, race::kWrite | race::kAsync, __builtin_return_address(0));
  std::memset(shared, 0xFF, width);
  Lane& l = *running.lane;
  l.copies.push_back({static_cast<char*>(shared), static_cast<const char*>(global), bytes, width, l.groups});
}

void cp_async_commit() {
  ++running.lane->groups;
}

void cp_async_wait(int pending) {
  Lane& l = *running.lane;
  std::size_t kept = 0;
  for (AsyncCopy& c : l.copies) {
    if (pending >= 0 && c.group + static_cast<unsigned>(pending) >= l.groups) {
      l.copies[kept++] = c;
      continue;
    }
    std::memcpy(c.to, c.from, c.bytes);
    std::memset(c.to + c.bytes, 0, c.width - c.bytes);
    if (race::enabled) race::access(c.to, c.width, race::kWrite, __builtin_return_address(0));
  }
  l.copies.resize(kept);
}

void ldmatrix(std::uint32_t* r, const void* row, int count, bool transposed, Where where) {
  const unsigned lane = running.lane->index & 31;
  if (lane < 8u * static_cast<unsigned>(count)) {
    check_aligned(row, 16, "ldmatrix", where);
    need_shared(row, 16, "ldmatrix", where);
    if (race::enabled) race::access(row, 16, race::kRead, __builtin_return_address(0));
  }
  Ldmatrix arg{r, static_cast<const char*>(row), count, transposed, where};
  block_now->meet(~0u, transposed ? "ldmatrix.trans" : "ldmatrix", run_ldmatrix, &arg, where);
}

void stmatrix(void* row, const std::uint32_t* r, int count, bool transposed, Where where) {
  const unsigned lane = running.lane->index & 31;
  if (lane < 8u * static_cast<unsigned>(count)) {
    check_aligned(row, 16, "stmatrix", where);
    need_shared(row, 16, "stmatrix", where);
    if (race::enabled) race::access(row, 16, race::kWrite, where);
  }
  Stmatrix arg{r, static_cast<char*>(row), count, transposed};
  block_now->meet(~0u, transposed ? "stmatrix.trans" : "stmatrix", run_stmatrix, &arg, where);
}

bool elect(unsigned mask, Where where) {
  // Any lane of the mask, so that code that counts on the lowest one fails.
  unsigned lane = static_cast<unsigned>((block_now->launch.seed ^ mask) * 0x9E3779B97F4A7C15ull >> 59);
  while (!(mask >> lane & 1)) lane = (lane + 1) & 31;
  block_now->meet(
      mask, "elect.sync", [](Block&, std::uint32_t) {}, nullptr, where);
  return (running.lane->index & 31) == lane;
}

void mma_bf16_16816(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const float (&c)[4],
                    Where where) {
  Mma arg{d, a, b, c};
  block_now->meet(~0u, "mma.m16n8k16", run_mma_bf16, &arg, where);
}

void mma_tf32_1688(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const float (&c)[4],
                   Where where) {
  Mma arg{d, a, b, c};
  block_now->meet(~0u, "mma.m16n8k8", run_mma_tf32, &arg, where);
}

void wait_for_previous_kernel() {
  running.lane->waited = true;
}
void let_next_kernel_start() {
  if (block_now->launch.overlaps && !running.lane->waited)
    block_now->fault("missing wait", "griddepcontrol.launch_dependents before griddepcontrol.wait", "?");
}
void bar_sync(unsigned id, unsigned threads, Where where) {
  block_now->sync(id, threads, "bar.sync", true, 0, where);
}
void bar_arrive(unsigned id, unsigned threads, Where where) {
  block_now->sync(id, threads, "bar.arrive", false, 0, where);
}

void* dynamic_smem(Where where) {
  if (!running.dynamic_smem)
    block_now->fault("bad address", "dynamic_smem() in a kernel launched with smem_bytes = 0", where);
  return running.dynamic_smem;
}

}  // namespace sim
