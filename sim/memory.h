// The simulator's view of who owns an address.
#pragma once

#include <cstddef>

#include "sim.h"

namespace sim {

bool is_pinned(const void* p, std::size_t bytes);
void count_memory(Live& live);

}  // namespace sim
