// Which thread accessed which word of shared memory, and what orders the accesses. Active if .cu files were compiled
// with the compiler's calls (-fsanitize=thread, without its library); see race.cpp.
#pragma once

#include <cstdint>

#include "engine.h"

namespace sim::race {

/// Set once an instrumented object has been loaded.
extern bool enabled;

enum Access : unsigned { kRead = 0, kWrite = 1, kAtomic = 2, kAsync = 4 };

/// A kernel or intrinsic accesses memory; code is the address of the access, for the report.
void access(const void* p, unsigned bytes, unsigned kind, const void* code);
/// The same for instructions that know their place in the source.
void access(const void* p, unsigned bytes, unsigned kind, Where where);

void begin_block(Block& block);
/// All live threads of the block met.
void met_all();
/// Lanes of the running warp met in __syncwarp.
void met_lanes(Block& block, std::uint32_t mask);
/// The running thread arrived at named barrier `id`; later, all that wait there are released.
void arrived(Block& block, unsigned id);
void released(Block& block, unsigned id, const std::uint32_t* waiting);

// ---- sm_90. A clock has, for each thread and for the copy engine, the time up to which its accesses are ordered.

using Clock = std::vector<std::uint32_t>;
void join(Clock& to, const Clock& from);
/// The running thread's accesses come before whoever acquires the clock.
void release(Block& block, Clock& clock);
void acquire(Block& block, const Clock& clock);
/// A bulk copy wrote shared memory of `block`; what it wrote comes before whoever acquires the clock.
void copied(Block& block, unsigned offset, unsigned bytes);
void release_copies(Block& block, Clock& clock);
/// The running thread called fence.proxy.async.
void proxy_fence(Block& block);
/// wgmma or a bulk store reads: ordinary writes must be ordered before it, and fenced by the thread that wrote.
void async_read(const void* p, unsigned bytes, bool by_wgmma, const char* what, Where where);
std::uint32_t time(Block& block);
/// What the wgmma of the 128 threads from `first` read up to that time is done; or the running thread's bulk stores.
void wgmma_done(Block& block, unsigned first, std::uint32_t read);
void stores_done(Block& block, std::uint32_t read);
void cluster_arrived(Block& block);
void cluster_waited(Block& block);

}  // namespace sim::race
