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

void begin_block(Block& block);
/// All live threads of the block met.
void met_all();
/// Lanes of the running warp met in __syncwarp.
void met_lanes(Block& block, std::uint32_t mask);
/// The running thread arrived at named barrier `id`; later, all that wait there are released.
void arrived(Block& block, unsigned id);
void released(Block& block, unsigned id, const std::uint32_t* waiting);

}  // namespace sim::race
