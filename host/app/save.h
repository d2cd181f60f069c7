// Saving a model when the disk may be full.
#pragma once

#include <functional>
#include <string>

#include "core/progress.h"
#include "model/weights.h"

namespace dapo {

/// Calls save() until it succeeds: if it fails while the disk under `folder` has less space than the model takes, a
/// note says so and it is retried every few seconds, for ten minutes or until a signal. Any other error is rethrown. All
/// ranks of `comm` call it, and save() throws the same on all.
std::string save_patiently(const std::string& folder, const Weights& weights, Progress& progress, Comm& comm,
                           const std::function<std::string()>& save);

/// Bytes that a user may still write under `path` (its nearest parent that exists).
uint64_t free_bytes(const std::string& path);

}  // namespace dapo
