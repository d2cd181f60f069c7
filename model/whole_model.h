// The Hugging Face folder of a model that tensor-parallel ranks share. The first rank of the group writes it, and asks the
// others for their parts of each piece that it is about to write: no rank holds more than its own part and one piece.
#pragma once

#include <functional>
#include <string>

#include "core/safetensors.h"
#include "model/weights.h"

namespace dapo {

/// Runs work() on the first rank of a tensor-parallel group; in it, save_whole() may be called. The other ranks give it
/// their parts until work() has ended, or failed, which is thrown on that rank alone. `host`: the group, for memory of
/// the host. One rank: work() alone.
void lend_parts(const Weights& weights, Comm& host, const std::function<void()>& work);

/// As Weights::save, on the first rank inside lend_parts(). Of several groups with the same weights each may write a share
/// of the files.
void save_whole(const Weights& weights, Comm& host, const std::string& folder, const ShardFiles& files = {});

}  // namespace dapo
