// All PTX of the project: asynchronous copies, matrix fragments, tensor-core products, named barriers, cached loads.
// Under nvcc each is one instruction; without it, sim/ptx.h emulates the same layouts and reports misuse.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#ifndef __CUDACC__
#include "ptx.h"  // of sim/
#endif

namespace dapo {

#ifdef __CUDACC__
#define DAPO_WHERE
#define DAPO_EMULATED(...)
#define DAPO_PTX(...) __VA_ARGS__
#else
#define DAPO_WHERE , std::source_location where = std::source_location::current()
#define DAPO_EMULATED(...) __VA_ARGS__
#define DAPO_PTX(...)
#endif

/// This block's dynamic shared memory as T[], aligned to 1024 bytes: what LaunchConfig::smem_bytes asked for.
#ifdef __CUDACC__
template <class T>
__device__ __forceinline__ T* dynamic_smem() {
  extern __shared__ __align__(1024) unsigned char dapo_dynamic_smem[];
  return reinterpret_cast<T*>(dapo_dynamic_smem);
}
#else
template <class T>
T* dynamic_smem(std::source_location where = std::source_location::current()) {
  return static_cast<T*>(sim::dynamic_smem(where));
}
#endif

/// Address of shared memory as PTX takes it.
__device__ __forceinline__ std::uint32_t smem_address(const void* p) {
  DAPO_PTX(return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));)
  DAPO_EMULATED(return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(p));)
}

// ---- asynchronous copies: 16 bytes, both addresses multiples of 16

/// Starts copying 16 bytes from global to shared memory past L1; only `bytes` (0 or 16, or any between) are read, the
/// rest arrive as zeros (bytes = 0: a predicated-off copy that still clears; `global` need not be valid then).
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, int bytes = 16 DAPO_WHERE) {
  DAPO_PTX(asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n" ::"r"(smem_address(shared)),
                        "l"(__cvta_generic_to_global(global)), "r"(bytes)
                        : "memory");)
  DAPO_EMULATED(sim::cp_async(shared, global, 16, static_cast<unsigned>(bytes), where);)
}
/// The copies this thread has started since the last commit become a group.
__device__ __forceinline__ void cp_async_commit() {
  DAPO_PTX(asm volatile("cp.async.commit_group;\n" ::: "memory");)
  DAPO_EMULATED(sim::cp_async_commit();)
}
/// Waits until at most N of this thread's groups are under way. Other threads' copies: __syncthreads() after it.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
  DAPO_PTX(asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");)
  DAPO_EMULATED(sim::cp_async_wait(N);)
}
/// Waits for everything this thread has started, committed or not.
__device__ __forceinline__ void cp_async_wait_all() {
  DAPO_PTX(asm volatile("cp.async.wait_all;\n" ::: "memory");)
  DAPO_EMULATED(sim::cp_async_wait(-1);)
}

// ---- fragments: 8x8 matrices of 16-bit elements. Lane l gives the address of row l % 8 of matrix l / 8 (16 bytes,
// aligned to 16) and receives elements (l / 4, l % 4 * 2 + {0, 1}) of each matrix, of its transpose for _trans.

__device__ __forceinline__ void ldmatrix_x1(std::uint32_t (&r)[1], const void* row DAPO_WHERE) {
  DAPO_PTX(asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];\n"
                        : "=r"(r[0])
                        : "r"(smem_address(row))
                        : "memory");)
  DAPO_EMULATED(sim::ldmatrix(r, row, 1, false, where);)
}
__device__ __forceinline__ void ldmatrix_x2(std::uint32_t (&r)[2], const void* row DAPO_WHERE) {
  DAPO_PTX(asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];\n"
                        : "=r"(r[0]), "=r"(r[1])
                        : "r"(smem_address(row))
                        : "memory");)
  DAPO_EMULATED(sim::ldmatrix(r, row, 2, false, where);)
}
__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&r)[4], const void* row DAPO_WHERE) {
  DAPO_PTX(asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                        : "r"(smem_address(row))
                        : "memory");)
  DAPO_EMULATED(sim::ldmatrix(r, row, 4, false, where);)
}
__device__ __forceinline__ void ldmatrix_x1_trans(std::uint32_t (&r)[1], const void* row DAPO_WHERE) {
  DAPO_PTX(asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];\n"
                        : "=r"(r[0])
                        : "r"(smem_address(row))
                        : "memory");)
  DAPO_EMULATED(sim::ldmatrix(r, row, 1, true, where);)
}
__device__ __forceinline__ void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* row DAPO_WHERE) {
  DAPO_PTX(asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];\n"
                        : "=r"(r[0]), "=r"(r[1])
                        : "r"(smem_address(row))
                        : "memory");)
  DAPO_EMULATED(sim::ldmatrix(r, row, 2, true, where);)
}
__device__ __forceinline__ void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row DAPO_WHERE) {
  DAPO_PTX(asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                        : "r"(smem_address(row))
                        : "memory");)
  DAPO_EMULATED(sim::ldmatrix(r, row, 4, true, where);)
}

// ---- tensor-core products of one warp, d = a b + c (d and c may be the same). With g = lane / 4, t = lane % 4:
//   c: {(g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)} of 16 x 8.

/// bf16, fp32 sums. a, 16 x 16: registers (g, 2t..), (g + 8, 2t..), (g, 2t + 8..), (g + 8, 2t + 8..), two columns each;
/// b, 16 x 8: (2t.., g), (2t + 8.., g), two rows each.
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                                             const float (&c)[4] DAPO_WHERE) {
  DAPO_PTX(asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};\n"
                        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]),
                          "f"(c[2]), "f"(c[3]));)
  DAPO_EMULATED(sim::mma_bf16_16816(d, a, b, c, where);)
}
/// tf32 (low 13 bits of each word are ignored), fp32 sums. a, 16 x 8: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4);
/// b, 8 x 8: (t, g), (t + 4, g).
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const std::uint32_t (&a)[4],
                                                 const std::uint32_t (&b)[2], const float (&c)[4] DAPO_WHERE) {
  DAPO_PTX(asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};\n"
                        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]),
                          "f"(c[2]), "f"(c[3]));)
  DAPO_EMULATED(sim::mma_tf32_1688(d, a, b, c, where);)
}

// ---- named barriers 1..15 (0 is __syncthreads), for `threads` threads of the block, a multiple of 32, whole warps

__device__ __forceinline__ void barrier_sync(int id, int threads DAPO_WHERE) {
  DAPO_PTX(asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory");)
  DAPO_EMULATED(sim::bar_sync(static_cast<unsigned>(id), static_cast<unsigned>(threads), where);)
}
/// Counts as there, and goes on.
__device__ __forceinline__ void barrier_arrive(int id, int threads DAPO_WHERE) {
  DAPO_PTX(asm volatile("bar.arrive %0, %1;\n" ::"r"(id), "r"(threads) : "memory");)
  DAPO_EMULATED(sim::bar_arrive(static_cast<unsigned>(id), static_cast<unsigned>(threads), where);)
}

// ---- overlap of kernels (launch_overlapped() of launch.h; sm_90 and later)

/// Waits until every kernel and copy ahead in the stream has ended and its writes are visible. In a kernel that
/// launch_overlapped() starts, every thread calls it before it reads or writes global memory; weights alone, which the
/// kernel just before does not write, may be prefetched earlier. In other kernels it returns at once.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if !defined(__CUDACC__)
  sim::wait_for_previous_kernel();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}
/// Lets the next kernel start as soon as all blocks of this one have come here. Only after wait_for_previous_kernel():
/// then, when a kernel starts, all but the one just before it have ended.
__device__ __forceinline__ void let_next_kernel_start() {
#if !defined(__CUDACC__)
  sim::let_next_kernel_start();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}
/// Both: the first statement of a kernel that has nothing to prefetch.
__device__ __forceinline__ void begin_overlapped() {
  wait_for_previous_kernel();
  let_next_kernel_start();
}

// ---- loads, stores and arithmetic

/// 16 bytes through the read-only path, kept out of L1: data used once. p is a multiple of 16.
__device__ __forceinline__ uint4 load_global_nc(const void* p DAPO_WHERE) {
  DAPO_PTX(uint4 v; asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];\n"
                                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                                 : "l"(__cvta_generic_to_global(p)));
           return v;)
  DAPO_EMULATED(sim::check_aligned(p, 16, "ld.global.nc.v4", where); return *static_cast<const uint4*>(p);)
}
/// 16 bytes to global memory, not to be read again soon. p is a multiple of 16.
__device__ __forceinline__ void store_global_streaming(void* p, uint4 v DAPO_WHERE) {
  DAPO_PTX(asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};\n" ::"l"(__cvta_generic_to_global(p)), "r"(v.x),
                        "r"(v.y), "r"(v.z), "r"(v.w)
                        : "memory");)
  DAPO_EMULATED(sim::check_aligned(p, 16, "st.global.cs.v4", where); *static_cast<uint4*>(p) = v;)
}
/// Asks for the line of L2 that holds p; p need not be valid.
__device__ __forceinline__ void prefetch_l2(const void* p) {
  DAPO_PTX(asm volatile("prefetch.global.L2 [%0];\n" ::"l"(__cvta_generic_to_global(p)));)
  DAPO_EMULATED((void)p;)
}
/// 2^x, relative error 2^-22; 0 for -inf.
__device__ __forceinline__ float exp2_approx(float x) {
  DAPO_PTX(float y; asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x)); return y;)
  DAPO_EMULATED(return exp2f(x);)
}
/// log2(x), absolute error 2^-22 near 1.
__device__ __forceinline__ float log2_approx(float x) {
  DAPO_PTX(float y; asm("lg2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x)); return y;)
  DAPO_EMULATED(return log2f(x);)
}
/// Two floats to packed bf16, round to nearest even; lo in the low half.
__device__ __forceinline__ std::uint32_t pack_bf16(float lo, float hi) {
  DAPO_PTX(std::uint32_t r; asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(r) : "f"(hi), "f"(lo)); return r;)
  DAPO_EMULATED(return static_cast<std::uint32_t>(sim::to_bf16(hi)) << 16 | sim::to_bf16(lo);)
}

#undef DAPO_WHERE
#undef DAPO_EMULATED
#undef DAPO_PTX

}  // namespace dapo
