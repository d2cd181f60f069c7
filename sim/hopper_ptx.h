// Emulation of the instructions in cuda/hopper.cuh and cuda/wgmma.cuh.
#pragma once

#include <cstdint>
#include <source_location>

#include "cuda.h"
#include "vector_types.h"

namespace sim {

using Where = std::source_location;

/// p as a shared address: rank << 24 | 1024 + offset in the block's dynamic shared memory.
std::uint32_t shared_address(const void* p, Where where);

// ---- wgmma

/// Reports parts of a descriptor that would be lost: they are multiples of 16 below 2^18.
void check_descriptor(std::uint32_t start, std::uint32_t leading, std::uint32_t stride, Where where);

/// d (64 x columns in the warpgroup's registers) = a b + (keep_sum ? d : 0), executed when it is waited for.
struct Wgmma {
  float* d;
  unsigned columns;
  const std::uint32_t* a_registers;  ///< 4, or null: a is a descriptor
  std::uint64_t a, b;
  bool keep_sum, negative_a, negative_b, transposed_a, transposed_b;
};
void wgmma(const Wgmma& w, Where where);
void wgmma_fence(Where where);
void wgmma_commit(Where where);
void wgmma_wait(int pending, Where where);

// ---- mbarriers

void mbarrier_init(std::uint64_t* barrier, unsigned count, Where where);
void mbarrier_inval(std::uint64_t* barrier, Where where);
void mbarrier_init_fence(Where where);
void mbarrier_arrive(std::uint64_t* barrier, unsigned count, long expect, Where where);
void mbarrier_expect(std::uint64_t* barrier, long bytes, Where where);
void mbarrier_complete(std::uint64_t* barrier, long bytes, Where where);
/// At a shared::cluster address.
void mbarrier_arrive_remote(std::uint32_t barrier, Where where);
bool mbarrier_test(std::uint64_t* barrier, unsigned parity, Where where);
/// Waits for the phase, but for some calls that time out at once.
bool mbarrier_try_wait(std::uint64_t* barrier, unsigned parity, Where where);

// ---- bulk copies

struct TensorCopy {
  const void* shared;
  const CUtensorMap* map;
  int rank;
  int at[3];
};
/// Into the blocks of `mask`, or this one (0), at the same offset; each one's mbarrier at the same offset counts it.
void tensor_load(const TensorCopy& c, std::uint64_t* barrier, unsigned mask, Where where);
void tensor_store(const TensorCopy& c, bool add, Where where);
void tensor_prefetch(const TensorCopy& c, Where where);
void bulk_load(void* shared, const void* global, unsigned bytes, std::uint64_t* barrier, Where where);
void bulk_store(void* global, const void* shared, unsigned bytes, Where where);
void bulk_add(float* global, const float* shared, unsigned bytes, Where where);
/// To another block's shared memory; its mbarrier counts it.
void bulk_copy_cluster(std::uint32_t to, const void* from, unsigned bytes, std::uint32_t barrier, Where where);
void bulk_commit(Where where);
void bulk_wait(int pending, Where where);
void fence_proxy_async(Where where);

// ---- clusters

unsigned cluster_rank();
unsigned cluster_size();
std::uint32_t cluster_address(const void* p, unsigned rank, Where where);
void cluster_arrive(bool relaxed, Where where);
void cluster_wait(Where where);
std::uint32_t cluster_load(std::uint32_t address, Where where);
void cluster_store(std::uint32_t address, std::uint32_t value, Where where);
std::uint32_t cluster_add(std::uint32_t address, std::uint32_t value, Where where);
/// A store that the mbarrier at `barrier` counts as 4 bytes.
void cluster_store_async(std::uint32_t address, std::uint32_t value, std::uint32_t barrier, Where where);

// ---- warps and warpgroups

void set_registers(unsigned count, bool increase, Where where);
void stmatrix(void* row, const std::uint32_t* r, int count, bool transposed, Where where);
/// One lane of the mask, always the same for a mask.
bool elect(unsigned mask, Where where);

}  // namespace sim
