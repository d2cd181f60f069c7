// Many tensors onto a device at once, produced by several host threads.
#pragma once

#include <functional>
#include <span>

#include "core/backend.h"

namespace dapo {

/// Calls fill(i, p) for every tensor, on several threads; fill writes the bytes of to[i] to p. p is the tensor itself
/// if the host can write it, else a pinned buffer that is then copied. Blocks until everything has arrived. The first
/// error of a fill is thrown again.
void upload(Backend& backend, std::span<const Tensor> to, const std::function<void(size_t i, void* p)>& fill);

/// Elements of a tensor that keep a thread busy for long enough, while pinned buffers stay small.
inline constexpr int64_t kUploadElements = 4 << 20;

}  // namespace dapo
