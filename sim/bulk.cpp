// The copy engine: bulk and tensor copies that deliver at random later moments.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "hopper.h"
#include "hopper_ptx.h"
#include "race.h"
#include "threads.h"

namespace sim {
namespace {

/// Where byte `offset` of an unswizzled box lies.
unsigned swizzled(unsigned offset, unsigned span) {
  const unsigned mask = span ? span / 16 - 1 : 0, address = offset + kSharedBase;
  return (address ^ ((address >> 7 & mask) << 4)) - kSharedBase;
}

/// The element in global memory, or null outside the tensor.
char* global(const Copy& c, unsigned line, unsigned column) {
  const TensorMap& m = c.map;
  const long x = c.at[0] + static_cast<long>(column);
  const long y = c.at[1] + static_cast<long>(line % m.box[1]) * m.step[1];
  const long z = c.at[2] + static_cast<long>(line / m.box[1]) * m.step[2];
  if (x < 0 || y < 0 || z < 0 || x >= long{m.dims[0]} || y >= long{m.dims[1]} || z >= long{m.dims[2]}) return nullptr;
  return m.base + x * m.bytes + static_cast<long>(m.strides[0]) * y + static_cast<long>(m.strides[1]) * z;
}

/// Calls f(offset in shared memory, line, column) for each element of the lines.
template <class F>
void each_element(const Copy& c, unsigned from, unsigned to, F f) {
  for (unsigned line = from; line < to; ++line)
    for (unsigned i = 0; i < c.map.box[0]; ++i)
      f(swizzled(c.offset + line * c.map.pitch() + i * c.map.bytes, c.map.swizzle), line, i);
}

void load_lines(Copy& c, unsigned to) {
  static constexpr std::uint16_t kNan[4] = {0x7ff7, 0x7ff7, 0x7ff7, 0x7ff7};  // what an H100 fills with
  static constexpr char kZeros[16] = {};
  const long bytes = long{to - c.line} * c.map.line_bytes();
  for (unsigned rank = 0; rank < c.block->cluster.blocks.size(); ++rank) {
    if (!(c.blocks >> rank & 1)) continue;
    Block& b = rank == c.block->rank ? *c.block : peer_block(rank, "a bulk copy", c.where);
    const auto barrier = hopper(b).mbarriers.find(c.barrier);
    if (barrier == b.hopper->mbarriers.end())
      b.fault("bad mbarrier",
              fmt::format("the mbarrier at dynamic offset {} was invalidated while this copy was under way", c.barrier),
              c.where, &c.block->lanes[c.thread]);
    each_element(c, c.line, to, [&](unsigned offset, unsigned line, unsigned column) {
      const char* from = global(c, line, column);
      poison(b.dynamic + offset, c.map.bytes, false);
      write_shared(b, offset, from ? from : c.map.nan_fill ? reinterpret_cast<const char*>(kNan) : kZeros, c.map.bytes);
      if (race::enabled) race::copied(b, offset, c.map.bytes);
    });
    if (race::enabled) race::release_copies(b, barrier->second.arriving);
    arrive(b, c.barrier, 0, 0, bytes, "a bulk copy", c.where);
  }
}

void add(const TensorMap& m, char* to, const char* from) {
  if (m.type == CU_TENSOR_MAP_DATA_TYPE_FLOAT32) {
    float v;
    std::memcpy(&v, from, 4);
    atomic_update(reinterpret_cast<float*>(to), [v](float old) { return old + v; });
  } else {  // bf16: the fp32 sum, rounded to nearest even
    std::uint16_t v;
    std::memcpy(&v, from, 2);
    const auto wide = [](std::uint16_t w) { return std::bit_cast<float>(std::uint32_t{w} << 16); };
    atomic_update(reinterpret_cast<std::uint16_t*>(to), [&](std::uint16_t old) {
      const auto sum = std::bit_cast<std::uint32_t>(wide(old) + wide(v));
      return static_cast<std::uint16_t>((sum + 0x7fff + (sum >> 16 & 1)) >> 16);
    });
  }
}

void store_lines(Copy& c, unsigned to) {
  Block& b = *c.block;
  each_element(c, c.line, to, [&](unsigned offset, unsigned line, unsigned column) {
    const char* was = &c.source[(line * c.map.box[0] + column) * c.map.bytes];
    if (std::memcmp(b.dynamic + offset, was, c.map.bytes) != 0)
      b.fault("operand overwritten",
              fmt::format("shared memory at dynamic offset {} changed before this bulk store had read it; call "
                          "bulk_commit() and bulk_wait_read<N>() before the buffer is written again",
                          offset),
              c.where, &b.lanes[c.thread]);
    char* out = global(c, line, column);
    if (!out) return;
    if (c.kind == Copy::add)
      add(c.map, out, b.dynamic + offset);
    else
      std::memcpy(out, b.dynamic + offset, c.map.bytes);
  });
}

void deliver_lines(Copy& c, unsigned to) {
  (c.kind == Copy::load ? load_lines : store_lines)(c, to);
  c.line = to;
}

TensorMap lines_of_16(const void* base, unsigned bytes) {
  TensorMap m{};
  m.rank = 2;
  m.bytes = 16;
  m.box[0] = m.box[2] = 1;
  m.box[1] = static_cast<std::uint16_t>(bytes / 16);
  m.step[1] = m.step[2] = 1;
  m.dims[0] = m.dims[2] = 1;
  m.dims[1] = bytes / 16;
  m.strides[0] = 16;
  m.base = const_cast<char*>(static_cast<const char*>(base));
  return m;
}

void check_bulk(const void* global, unsigned bytes, const char* what, Where where) {
  Block& b = *block_now;
  if (bytes == 0 || bytes % 16 || reinterpret_cast<std::uintptr_t>(global) % 16)
    b.fault("misaligned",
            fmt::format("{} of {} bytes at {}: size and addresses must be multiples of 16, the size not 0", what, bytes,
                        global),
            where);
  if (b.in_dynamic(global, 1))
    b.fault("bad address", fmt::format("{}: {} is shared memory, not global", what, global), where);
}

Copy begin(Copy::Kind kind, const TensorMap& map, unsigned offset, Where where) {
  const Lane& me = block_now->lane();
  return Copy{kind, map, {0, 0, 0}, block_now, offset, 0, 0, me.index, me.bulk_groups, 0, {}, where};
}

/// A copy of a tensor map's box; validates what the instruction would trap on.
Copy begin(Copy::Kind kind, const TensorCopy& t, const char* what, Where where) {
  Block& b = *block_now;
  TensorMap m;
  std::memcpy(&m, t.map, sizeof m);
  if (reinterpret_cast<std::uintptr_t>(t.map) % 64 || m.magic != kTensorMapMagic)
    b.fault("bad address",
            fmt::format("{}: {} is not a tensor map, or not a multiple of 64; pass it as a `const __grid_constant__ "
                        "CUtensorMap` that cuTensorMapEncodeTiled filled",
                        what, static_cast<const void*>(t.map)),
            where);
  if (m.rank != t.rank)
    b.fault("bad address", fmt::format("{}.{}d with a tensor map of {} dimensions", what, t.rank, m.rank), where);
  if (t.at[0] * static_cast<int>(m.bytes) % 16)
    b.fault("misaligned",
            fmt::format("{}: the innermost coordinate {} is {} bytes, not a multiple of 16 (an illegal instruction)",
                        what, t.at[0], t.at[0] * static_cast<int>(m.bytes)),
            where);
  const unsigned offset = t.shared ? shared_offset(t.shared, m.span(), 128, what, where) : 0;
  Copy c = begin(kind, m, offset, where);
  std::copy_n(t.at, 3, c.at);
  return c;
}

void start_load(Copy&& c, const char* what) {
  for (unsigned rank = 0; rank < c.block->cluster.blocks.size(); ++rank) {
    if (!(c.blocks >> rank & 1)) continue;
    Block& b = peer_block(rank, what, c.where);
    mbarrier(b, c.barrier, true, what, c.where);
    if (c.offset + c.map.span() > b.launch.smem_bytes)
      b.fault("bad address", fmt::format("{}: the box ends beyond the block's shared memory", what), c.where);
    check_overwrite(b, c);
    for (const auto& s : b.cluster.engine->copies)
      if (s->kind != Copy::load && s->block == &b && c.offset < s->offset + s->map.span() &&
          s->offset < c.offset + c.map.span())
        b.fault("operand overwritten",
                fmt::format("the bulk load of {} writes shared memory that this bulk store has not read; call "
                            "bulk_wait_read<N>() first",
                            at(c.where)),
                s->where, &b.lanes[s->thread]);
    each_element(c, 0, c.map.lines(), [&](unsigned offset, unsigned, unsigned) {
      if (race::enabled && &b == block_now)
        race::access(b.dynamic + offset, c.map.bytes, race::kWrite | race::kAsync, c.where);
      std::memset(b.dynamic + offset, 0xff, c.map.bytes);
      poison(b.dynamic + offset, c.map.bytes, true);
    });
  }
  auto& copies = c.block->cluster.engine->copies;
  copies.push_back(std::make_unique<Copy>(std::move(c)));
}

void start_store(Copy&& c, const char* what) {
  Block& b = *c.block;
  c.source.resize(std::size_t{c.map.lines()} * c.map.line_bytes());
  each_element(c, 0, c.map.lines(), [&](unsigned offset, unsigned line, unsigned column) {
    need_fenced(b, offset, c.map.bytes, what, c.where);
    if (race::enabled) race::async_read(b.dynamic + offset, c.map.bytes, false, what, c.where);
    std::memcpy(&c.source[(line * c.map.box[0] + column) * c.map.bytes], b.dynamic + offset, c.map.bytes);
  });
  if (race::enabled) b.lane().bulk_reads.emplace_back(c.group, race::time(b));
  ++b.lane().bulk_open;
  b.lane().bulk_where = c.where;
  b.cluster.engine->copies.push_back(std::make_unique<Copy>(std::move(c)));
}

}  // namespace

void Engine::deliver(Block& by) {
  const std::size_t i = by.random() % copies.size();
  Copy& c = *copies[i];
  const unsigned left = c.map.lines() - c.line;
  deliver_lines(c, c.line + 1 + static_cast<unsigned>(by.random() % left));
  if (c.line < c.map.lines()) return;
  copies[i] = std::move(copies.back());
  copies.pop_back();
}

void Engine::finish(const Block& block, unsigned thread, unsigned group) {
  std::erase_if(copies, [&](std::unique_ptr<Copy>& c) {
    if (c->kind == Copy::load || c->block != &block || c->thread != thread || c->group >= group) return false;
    deliver_lines(*c, c->map.lines());
    return true;
  });
}

bool being_loaded(const Block& b, unsigned offset, unsigned bytes, Where* where) {
  for (const auto& c : b.cluster.engine->copies)
    if (c->kind == Copy::load && (c->blocks >> b.rank & 1) && offset < c->offset + c->map.span() &&
        c->offset < offset + bytes) {
      *where = c->where;
      return true;
    }
  return false;
}

void tensor_load(const TensorCopy& t, std::uint64_t* barrier, unsigned mask, Where where) {
  constexpr const char* what = "cp.async.bulk.tensor";
  Copy c = begin(Copy::load, t, what, where);
  c.barrier = shared_offset(barrier, 8, 8, what, where);
  c.blocks = mask ? mask : 1u << block_now->rank;
  if (c.blocks >> block_now->cluster.blocks.size())
    block_now->fault("bad address",
                     fmt::format("{}: multicast mask {:#x} names blocks beyond the cluster's {}", what, mask,
                                 block_now->cluster.blocks.size()),
                     where);
  start_load(std::move(c), what);
}

void tensor_store(const TensorCopy& t, bool add, Where where) {
  const char* what = add ? "cp.reduce.async.bulk.tensor" : "cp.async.bulk.tensor to global memory";
  Copy c = begin(add ? Copy::add : Copy::store, t, what, where);
  if (add && c.map.type != CU_TENSOR_MAP_DATA_TYPE_FLOAT32 && c.map.type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16)
    block_now->fault("bad address", fmt::format("{}: the tensor's type is neither float32 nor bf16", what), where);
  start_store(std::move(c), what);
}

void tensor_prefetch(const TensorCopy& t, Where where) {
  begin(Copy::load, t, "cp.async.bulk.prefetch.tensor", where);
}

void bulk_load(void* shared, const void* global, unsigned bytes, std::uint64_t* barrier, Where where) {
  constexpr const char* what = "cp.async.bulk";
  check_bulk(global, bytes, what, where);
  Copy c = begin(Copy::load, lines_of_16(global, bytes), shared_offset(shared, bytes, 16, what, where), where);
  c.barrier = shared_offset(barrier, 8, 8, what, where);
  c.blocks = 1u << block_now->rank;
  start_load(std::move(c), what);
}

void bulk_store(void* global, const void* shared, unsigned bytes, Where where) {
  constexpr const char* what = "cp.async.bulk to global memory";
  check_bulk(global, bytes, what, where);
  start_store(begin(Copy::store, lines_of_16(global, bytes), shared_offset(shared, bytes, 16, what, where), where),
              what);
}

void bulk_add(float* global, const float* shared, unsigned bytes, Where where) {
  constexpr const char* what = "cp.reduce.async.bulk";
  check_bulk(global, bytes, what, where);
  TensorMap m = lines_of_16(global, bytes);
  m.type = CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  m.bytes = 4;
  m.box[0] = 4;
  m.dims[0] = 4;
  start_store(begin(Copy::add, m, shared_offset(shared, bytes, 16, what, where), where), what);
}

void bulk_copy_cluster(std::uint32_t to, const void* from, unsigned bytes, std::uint32_t barrier, Where where) {
  constexpr const char* what = "cp.async.bulk.shared::cluster";
  const unsigned source = shared_offset(from, bytes, 16, what, where);
  if (bytes == 0 || bytes % 16)
    block_now->fault("misaligned", fmt::format("{}: {} bytes, not a multiple of 16", what, bytes), where);
  need_fenced(*block_now, source, bytes, what, where);
  const Remote r = remote(to, bytes, 16, what, where), b = remote(barrier, 8, 8, what, where);
  if (r.block != b.block)
    block_now->fault("bad mbarrier", fmt::format("{}: data and mbarrier are of different blocks", what), where);
  Copy c = begin(Copy::load, lines_of_16(from, bytes), r.offset, where);
  c.barrier = b.offset;
  c.blocks = 1u << r.block->rank;
  start_load(std::move(c), what);
}

void bulk_commit(Where) {
  Lane& me = block_now->lane();
  ++me.bulk_groups;
  me.bulk_open = 0;
}

void bulk_wait(int pending, Where) {
  Lane& me = block_now->lane();
  const unsigned left = static_cast<unsigned>(pending);
  if (me.bulk_groups <= left) return;
  me.bulk_waited = std::max(me.bulk_waited, me.bulk_groups - left);
  for (const auto& [group, time] : me.bulk_reads)
    if (group < me.bulk_waited) race::stores_done(*block_now, time);
  block_now->cluster.engine->finish(*block_now, me.index, me.bulk_waited);
}

}  // namespace sim
