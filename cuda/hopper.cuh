// Instructions of sm_90: mbarriers, bulk and tensor copies, clusters, registers of warpgroups. One each under nvcc;
// without it, sim/hopper_ptx.h emulates them and reports misuse. wgmma: cuda/wgmma.cuh.
// Compiled for another part they trap: the host chooses kernels by the device.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#ifndef __CUDACC__
#include "hopper_ptx.h"  // of sim/
#endif

namespace dapo {

#ifdef __CUDACC__
#define HOPPER_WHERE
#define HOPPER_ONLY_WHERE
#define HOPPER_HERE
#define HOPPER_EMULATED(...)
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER_PTX(...) __VA_ARGS__
#else
#define HOPPER_PTX(...) __trap();
#endif
#else
#define HOPPER_WHERE , std::source_location where = std::source_location::current()
#define HOPPER_ONLY_WHERE std::source_location where = std::source_location::current()
#define HOPPER_HERE , where
#define HOPPER_EMULATED(...) __VA_ARGS__
#define HOPPER_PTX(...)
#endif

/// Whether this pass of the compiler is for sm_90a (the host's passes too): kernels of Hopper alone are empty elsewhere.
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
inline constexpr bool kForHopper = true;
#else
inline constexpr bool kForHopper = false;
#endif

/// Address of shared memory as PTX takes it; in a cluster, bits 24 and up are this block's rank.
__device__ __forceinline__ std::uint32_t shared_address(const void* p HOPPER_WHERE) {
#ifdef __CUDACC__
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
#else
  return sim::shared_address(p, where);
#endif
}

// ---- the async proxy: wgmma, bulk copies

/// Makes this thread's ordinary writes to shared memory visible to wgmma and bulk copies: after the writes, before the
/// barrier that precedes those.
__device__ __forceinline__ void fence_proxy_async(HOPPER_ONLY_WHERE) {
  HOPPER_PTX(asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");)
  HOPPER_EMULATED(sim::fence_proxy_async(where);)
}

// ---- mbarriers: 8 bytes of shared memory. A phase ends when its arrivals and the bytes it expects have come. A wait
// for parity p passes if the phase of that parity has ended; on a fresh one, parity 1 passes at once.

__device__ __forceinline__ void mbarrier_init(std::uint64_t* barrier, std::uint32_t count HOPPER_WHERE) {
  HOPPER_PTX(asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(count)
                          : "memory");)
  HOPPER_EMULATED(sim::mbarrier_init(barrier, count, where);)
}
/// After the inits, by their thread; then a barrier of the block, or of the cluster.
__device__ __forceinline__ void mbarrier_init_fence(HOPPER_ONLY_WHERE) {
  HOPPER_PTX(asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");)
  HOPPER_EMULATED(sim::mbarrier_init_fence(where);)
}
/// Ends an mbarrier's life, so that its memory can be used otherwise.
__device__ __forceinline__ void mbarrier_inval(std::uint64_t* barrier HOPPER_WHERE) {
  HOPPER_PTX(asm volatile("mbarrier.inval.shared::cta.b64 [%0];\n" ::"r"(shared_address(barrier)) : "memory");)
  HOPPER_EMULATED(sim::mbarrier_inval(barrier, where);)
}
__device__ __forceinline__ void mbarrier_arrive(std::uint64_t* barrier, std::uint32_t count = 1 HOPPER_WHERE) {
  HOPPER_PTX(asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(count)
                          : "memory");)
  HOPPER_EMULATED(sim::mbarrier_arrive(barrier, count, 0, where);)
}
/// Arrives, and expects bytes of copies in this phase.
__device__ __forceinline__ void mbarrier_arrive_expect(std::uint64_t* barrier, std::uint32_t bytes HOPPER_WHERE) {
  HOPPER_PTX(
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(bytes)
                   : "memory");)
  HOPPER_EMULATED(sim::mbarrier_arrive(barrier, 1, bytes, where);)
}
__device__ __forceinline__ void mbarrier_expect(std::uint64_t* barrier, std::uint32_t bytes HOPPER_WHERE) {
  HOPPER_PTX(asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(barrier)),
                          "r"(bytes)
                          : "memory");)
  HOPPER_EMULATED(sim::mbarrier_expect(barrier, bytes, where);)
}
/// Arrives at an mbarrier of the cluster (cluster_address).
__device__ __forceinline__ void mbarrier_arrive_remote(std::uint32_t barrier HOPPER_WHERE) {
  HOPPER_PTX(asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];\n" ::"r"(barrier) : "memory");)
  HOPPER_EMULATED(sim::mbarrier_arrive_remote(barrier, where);)
}
/// False if the phase has not ended after a while.
__device__ __forceinline__ bool mbarrier_try_wait(std::uint64_t* barrier, std::uint32_t parity HOPPER_WHERE) {
  HOPPER_PTX(std::uint32_t done; asm volatile(
                 "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
                 : "=r"(done)
                 : "r"(shared_address(barrier)), "r"(parity)
                 : "memory");
             return done != 0;)
  HOPPER_EMULATED(return sim::mbarrier_try_wait(barrier, parity, where);)
}
/// The same for data or arrivals that come from other blocks of the cluster.
__device__ __forceinline__ bool mbarrier_try_wait_cluster(std::uint64_t* barrier, std::uint32_t parity HOPPER_WHERE) {
  HOPPER_PTX(std::uint32_t done;
             asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], "
                          "%2;\nselp.u32 %0, 1, 0, p;\n}\n"
                          : "=r"(done)
                          : "r"(shared_address(barrier)), "r"(parity)
                          : "memory");
             return done != 0;)
  HOPPER_EMULATED(return sim::mbarrier_try_wait(barrier, parity, where);)
}
__device__ __forceinline__ void mbarrier_wait(std::uint64_t* barrier, std::uint32_t parity HOPPER_WHERE) {
  while (!mbarrier_try_wait(barrier, parity HOPPER_HERE)) {
  }
}
__device__ __forceinline__ void mbarrier_wait_cluster(std::uint64_t* barrier, std::uint32_t parity HOPPER_WHERE) {
  while (!mbarrier_try_wait_cluster(barrier, parity HOPPER_HERE)) {
  }
}

// ---- bulk copies: sizes and addresses are multiples of 16. A load is counted by an mbarrier. A store or reduction
// joins its thread's open group; its source may be written again after bulk_wait_read.

__device__ __forceinline__ void bulk_load(void* shared, const void* global, std::uint32_t bytes,
                                          std::uint64_t* barrier HOPPER_WHERE) {
  HOPPER_PTX(
      asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(
                       shared_address(shared)),
                   "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(shared_address(barrier))
                   : "memory");)
  HOPPER_EMULATED(sim::bulk_load(shared, global, bytes, barrier, where);)
}
__device__ __forceinline__ void bulk_store(void* global, const void* shared, std::uint32_t bytes HOPPER_WHERE) {
  HOPPER_PTX(asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\n" ::"l"(
                              __cvta_generic_to_global(global)),
                          "r"(shared_address(shared)), "r"(bytes)
                          : "memory");)
  HOPPER_EMULATED(sim::bulk_store(global, shared, bytes, where);)
}
/// global += shared.
__device__ __forceinline__ void bulk_add(float* global, const float* shared, std::uint32_t bytes HOPPER_WHERE) {
  HOPPER_PTX(asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;\n" ::"l"(
                              __cvta_generic_to_global(global)),
                          "r"(shared_address(shared)), "r"(bytes)
                          : "memory");)
  HOPPER_EMULATED(sim::bulk_add(global, shared, bytes, where);)
}
/// To another block of the cluster, whose mbarrier counts it.
__device__ __forceinline__ void bulk_copy_cluster(std::uint32_t to, const void* shared, std::uint32_t bytes,
                                                  std::uint32_t barrier HOPPER_WHERE) {
  HOPPER_PTX(
      asm volatile(
          "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(to),
          "r"(shared_address(shared)), "r"(bytes), "r"(barrier)
          : "memory");)
  HOPPER_EMULATED(sim::bulk_copy_cluster(to, shared, bytes, barrier, where);)
}
/// What this thread has started since the last commit becomes a group.
__device__ __forceinline__ void bulk_commit(HOPPER_ONLY_WHERE) {
  HOPPER_PTX(asm volatile("cp.async.bulk.commit_group;\n" ::: "memory");)
  HOPPER_EMULATED(sim::bulk_commit(where);)
}
/// Waits until at most N of this thread's groups still read shared memory.
template <int N>
__device__ __forceinline__ void bulk_wait_read(HOPPER_ONLY_WHERE) {
  HOPPER_PTX(asm volatile("cp.async.bulk.wait_group.read %0;\n" ::"n"(N) : "memory");)
  HOPPER_EMULATED(sim::bulk_wait(N, where);)
}
/// Waits until at most N of this thread's groups are under way: the others' writes are visible.
template <int N>
__device__ __forceinline__ void bulk_wait(HOPPER_ONLY_WHERE) {
  HOPPER_PTX(asm volatile("cp.async.bulk.wait_group %0;\n" ::"n"(N) : "memory");)
  HOPPER_EMULATED(sim::bulk_wait(N, where);)
}

// ---- tensor copies: a box of a tensor at (x, y, z), x innermost and x * element a multiple of 16 bytes. Elements
// outside the tensor are loaded as zeros, which count as bytes, and not stored. `shared` is a multiple of 128;
// swizzled lines begin 128, 64 or 32 bytes apart, and the exchange takes the address, so tiles are aligned to 1024,
// 512 or 256.

__device__ __forceinline__ void tensor_load_2d(void* shared, const CUtensorMap* map, int x, int y,
                                               std::uint64_t* barrier HOPPER_WHERE) {
  HOPPER_PTX(asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, "
                          "{%2, %3}], [%4];\n" ::"r"(shared_address(shared)),
                          "l"(map), "r"(x), "r"(y), "r"(shared_address(barrier))
                          : "memory");)
  HOPPER_EMULATED(sim::tensor_load({shared, map, 2, {x, y, 0}}, barrier, 0, where);)
}
__device__ __forceinline__ void tensor_load_3d(void* shared, const CUtensorMap* map, int x, int y, int z,
                                               std::uint64_t* barrier HOPPER_WHERE) {
  HOPPER_PTX(asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, "
                          "{%2, %3, %4}], [%5];\n" ::"r"(shared_address(shared)),
                          "l"(map), "r"(x), "r"(y), "r"(z), "r"(shared_address(barrier))
                          : "memory");)
  HOPPER_EMULATED(sim::tensor_load({shared, map, 3, {x, y, z}}, barrier, 0, where);)
}
/// To the same place in each block of the mask, counted by its mbarrier at the same place.
__device__ __forceinline__ void tensor_load_2d_multicast(void* shared, const CUtensorMap* map, int x, int y,
                                                         std::uint64_t* barrier, std::uint16_t blocks HOPPER_WHERE) {
  HOPPER_PTX(asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::"
                          "cluster [%0], [%1, {%2, %3}], [%4], %5;\n" ::"r"(shared_address(shared)),
                          "l"(map), "r"(x), "r"(y), "r"(shared_address(barrier)), "h"(blocks)
                          : "memory");)
  HOPPER_EMULATED(sim::tensor_load({shared, map, 2, {x, y, 0}}, barrier, blocks, where);)
}
__device__ __forceinline__ void tensor_store_2d(const CUtensorMap* map, int x, int y, const void* shared HOPPER_WHERE) {
  HOPPER_PTX(
      asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];\n" ::"l"(map),
                   "r"(x), "r"(y), "r"(shared_address(shared))
                   : "memory");)
  HOPPER_EMULATED(sim::tensor_store({shared, map, 2, {x, y, 0}}, false, where);)
}
__device__ __forceinline__ void tensor_store_3d(const CUtensorMap* map, int x, int y, int z,
                                                const void* shared HOPPER_WHERE) {
  HOPPER_PTX(
      asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%1, %2, %3}], [%4];\n" ::"l"(map),
                   "r"(x), "r"(y), "r"(z), "r"(shared_address(shared))
                   : "memory");)
  HOPPER_EMULATED(sim::tensor_store({shared, map, 3, {x, y, z}}, false, where);)
}
/// The tensor's box += shared: fp32, or bf16 rounded to nearest even.
__device__ __forceinline__ void tensor_add_2d(const CUtensorMap* map, int x, int y, const void* shared HOPPER_WHERE) {
  HOPPER_PTX(
      asm volatile(
          "cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%0, {%1, %2}], [%3];\n" ::"l"(map),
          "r"(x), "r"(y), "r"(shared_address(shared))
          : "memory");)
  HOPPER_EMULATED(sim::tensor_store({shared, map, 2, {x, y, 0}}, true, where);)
}
/// The box into L2.
__device__ __forceinline__ void tensor_prefetch_2d(const CUtensorMap* map, int x, int y HOPPER_WHERE) {
  HOPPER_PTX(asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %2}];\n" ::"l"(map), "r"(x), "r"(y)
                          : "memory");)
  HOPPER_EMULATED(sim::tensor_prefetch({nullptr, map, 2, {x, y, 0}}, where);)
}
/// The map itself, before its first use.
__device__ __forceinline__ void tensor_prefetch_map(const CUtensorMap* map) {
  HOPPER_PTX(asm volatile("prefetch.tensormap [%0];\n" ::"l"(map) : "memory");)
  HOPPER_EMULATED(static_cast<void>(map);)
}

// ---- clusters: blocks that run together (launch attribute). Kernels begin and end with cluster_sync: before it a
// block may not have started, after its end its shared memory is gone.

__device__ __forceinline__ std::uint32_t cluster_rank() {
  HOPPER_PTX(std::uint32_t r; asm volatile("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(r)); return r;)
  HOPPER_EMULATED(return sim::cluster_rank();)
}
__device__ __forceinline__ std::uint32_t cluster_size() {
  HOPPER_PTX(std::uint32_t r; asm volatile("mov.u32 %0, %%cluster_nctarank;\n" : "=r"(r)); return r;)
  HOPPER_EMULATED(return sim::cluster_size();)
}
/// The address of p in the block of that rank.
__device__ __forceinline__ std::uint32_t cluster_address(const void* p, std::uint32_t rank HOPPER_WHERE) {
  HOPPER_PTX(std::uint32_t r; asm volatile("mapa.shared::cluster.u32 %0, %1, %2;\n"
                                           : "=r"(r)
                                           : "r"(shared_address(p)), "r"(rank));
             return r;)
  HOPPER_EMULATED(return sim::cluster_address(p, rank, where);)
}
__device__ __forceinline__ void cluster_arrive(HOPPER_ONLY_WHERE) {
  HOPPER_PTX(asm volatile("barrier.cluster.arrive.release.aligned;\n" ::: "memory");)
  HOPPER_EMULATED(sim::cluster_arrive(false, where);)
}
/// Without ordering memory.
__device__ __forceinline__ void cluster_arrive_relaxed(HOPPER_ONLY_WHERE) {
  HOPPER_PTX(asm volatile("barrier.cluster.arrive.relaxed.aligned;\n" ::: "memory");)
  HOPPER_EMULATED(sim::cluster_arrive(true, where);)
}
__device__ __forceinline__ void cluster_wait(HOPPER_ONLY_WHERE) {
  HOPPER_PTX(asm volatile("barrier.cluster.wait.acquire.aligned;\n" ::: "memory");)
  HOPPER_EMULATED(sim::cluster_wait(where);)
}
__device__ __forceinline__ void cluster_sync(HOPPER_ONLY_WHERE) {
#ifdef __CUDACC__
  cluster_arrive();
  cluster_wait();
#else
  cluster_arrive(where);
  cluster_wait(where);
#endif
}
__device__ __forceinline__ std::uint32_t cluster_load(std::uint32_t address HOPPER_WHERE) {
  HOPPER_PTX(std::uint32_t v; asm volatile("ld.shared::cluster.u32 %0, [%1];\n"
                                           : "=r"(v)
                                           : "r"(address)
                                           : "memory");
             return v;)
  HOPPER_EMULATED(return sim::cluster_load(address, where);)
}
__device__ __forceinline__ void cluster_store(std::uint32_t address, std::uint32_t value HOPPER_WHERE) {
  HOPPER_PTX(asm volatile("st.shared::cluster.u32 [%0], %1;\n" ::"r"(address), "r"(value) : "memory");)
  HOPPER_EMULATED(sim::cluster_store(address, value, where);)
}
/// The old value.
__device__ __forceinline__ std::uint32_t cluster_add(std::uint32_t address, std::uint32_t value HOPPER_WHERE) {
  HOPPER_PTX(std::uint32_t v; asm volatile("atom.shared::cluster.add.u32 %0, [%1], %2;\n"
                                           : "=r"(v)
                                           : "r"(address), "r"(value)
                                           : "memory");
             return v;)
  HOPPER_EMULATED(return sim::cluster_add(address, value, where);)
}
/// A store that an mbarrier of the same block counts as 4 bytes.
__device__ __forceinline__ void cluster_store_async(std::uint32_t address, std::uint32_t value,
                                                    std::uint32_t barrier HOPPER_WHERE) {
  HOPPER_PTX(asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%0], %1, [%2];\n" ::"r"(address),
                          "r"(value), "r"(barrier)
                          : "memory");)
  HOPPER_EMULATED(sim::cluster_store_async(address, value, barrier, where);)
}

// ---- warps and warpgroups

/// This warpgroup's threads may use N registers: waits until others have given them. N is a multiple of 8, 24..256, and
/// the sum over the warpgroups at most what the launch allotted.
template <int N>
__device__ __forceinline__ void registers_take(HOPPER_ONLY_WHERE) {
  HOPPER_PTX(asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(N));)
  HOPPER_EMULATED(sim::set_registers(N, true, where);)
}
template <int N>
__device__ __forceinline__ void registers_give(HOPPER_ONLY_WHERE) {
  HOPPER_PTX(asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(N));)
  HOPPER_EMULATED(sim::set_registers(N, false, where);)
}
/// True for one lane of the warp.
__device__ __forceinline__ bool elect_one(HOPPER_ONLY_WHERE) {
  HOPPER_PTX(std::uint32_t one; asm volatile("{\n.reg .pred p;\nelect.sync _|p, %1;\nselp.u32 %0, 1, 0, p;\n}\n"
                                             : "=r"(one)
                                             : "r"(0xffffffffu)
                                             : "memory");
             return one != 0;)
  HOPPER_EMULATED(return sim::elect(0xffffffffu, where);)
}
/// The inverse of ldmatrix: lane l gives the address of row l % 8 of matrix l / 8, and its elements.
__device__ __forceinline__ void stmatrix_x1(void* row, const std::uint32_t (&r)[1] HOPPER_WHERE) {
  HOPPER_PTX(asm volatile("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%0], {%1};\n" ::"r"(shared_address(row)), "r"(r[0])
                          : "memory");)
  HOPPER_EMULATED(sim::stmatrix(row, r, 1, false, where);)
}
__device__ __forceinline__ void stmatrix_x1_trans(void* row, const std::uint32_t (&r)[1] HOPPER_WHERE) {
  HOPPER_PTX(
      asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};\n" ::"r"(shared_address(row)), "r"(r[0])
                   : "memory");)
  HOPPER_EMULATED(sim::stmatrix(row, r, 1, true, where);)
}
__device__ __forceinline__ void stmatrix_x2(void* row, const std::uint32_t (&r)[2] HOPPER_WHERE) {
  HOPPER_PTX(asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};\n" ::"r"(shared_address(row)),
                          "r"(r[0]), "r"(r[1])
                          : "memory");)
  HOPPER_EMULATED(sim::stmatrix(row, r, 2, false, where);)
}
__device__ __forceinline__ void stmatrix_x2_trans(void* row, const std::uint32_t (&r)[2] HOPPER_WHERE) {
  HOPPER_PTX(asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};\n" ::"r"(shared_address(row)),
                          "r"(r[0]), "r"(r[1])
                          : "memory");)
  HOPPER_EMULATED(sim::stmatrix(row, r, 2, true, where);)
}
__device__ __forceinline__ void stmatrix_x4(void* row, const std::uint32_t (&r)[4] HOPPER_WHERE) {
  HOPPER_PTX(
      asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(shared_address(row)),
                   "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                   : "memory");)
  HOPPER_EMULATED(sim::stmatrix(row, r, 4, false, where);)
}
__device__ __forceinline__ void stmatrix_x4_trans(void* row, const std::uint32_t (&r)[4] HOPPER_WHERE) {
  HOPPER_PTX(asm volatile(
                 "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(shared_address(row)),
                 "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");)
  HOPPER_EMULATED(sim::stmatrix(row, r, 4, true, where);)
}

}  // namespace dapo
