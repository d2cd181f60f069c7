// Emulation of the instructions in cuda/ptx.cuh.
#pragma once

#include <cstdint>
#include <source_location>

#include "vector_types.h"

namespace sim {

using Where = std::source_location;

/// cp.async of `width` (4, 8, 16) bytes: `bytes` come from global memory, the rest are zero. They arrive when this
/// thread waits for the group; until then shared memory holds NaN.
void cp_async(void* shared, const void* global, unsigned width, unsigned bytes, Where where);
void cp_async_commit();
/// Waits until at most `pending` groups of this thread are left; pending < 0: for all, committed or not.
void cp_async_wait(int pending);
/// ldmatrix .x1 .x2 .x4: `row` is this lane's row address; r receives `count` registers.
void ldmatrix(std::uint32_t* r, const void* row, int count, bool transposed, Where where);
/// d = a b + c over the warp; registers in the layout of the PTX manual.
void mma_bf16_16816(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const float (&c)[4],
                    Where where);
void mma_tf32_1688(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const float (&c)[4],
                   Where where);
/// griddepcontrol: kernels run one after another here, but a kernel that a card may start early must wait before it
/// lets the next one start, and before it ends (race checker: before its first access to global memory).
void wait_for_previous_kernel();
void let_next_kernel_start();
void bar_sync(unsigned id, unsigned threads, Where where);
void bar_arrive(unsigned id, unsigned threads, Where where);
/// Reports an address that is not a multiple of `bytes`.
void check_aligned(const void* p, unsigned bytes, const char* what, Where where);
/// This block's dynamic shared memory.
void* dynamic_smem(Where where);

}  // namespace sim
