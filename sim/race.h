// Who touched which word of shared memory, and what orders them. Active where .cu files carry the compiler's calls
// (-fsanitize=thread, without its library); see race.cpp.
#pragma once

#include <cstdint>

#include "engine.h"

namespace sim::race {

/// Set once an instrumented object has been loaded.
extern bool enabled;

enum Access : unsigned { kRead = 0, kWrite = 1, kAtomic = 2, kAsync = 4 };

/// A kernel or intrinsic touches memory; code is where, for the report.
void access(const void* p, unsigned bytes, unsigned kind, const void* code);

void begin_block(Block& block);
/// All live threads of the block met.
void met_all();
/// Lanes of the running warp met in __syncwarp.
void met_lanes(Block& block, std::uint32_t mask);
/// The running thread came to named barrier `id`; later, all who wait there are let through.
void arrived(Block& block, unsigned id);
void released(Block& block, unsigned id, const std::uint32_t* waiting);

}  // namespace sim::race
