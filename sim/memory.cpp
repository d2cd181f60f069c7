// Calls on memory: allocations, copies, fills.
#include <cstring>
#include <vector>

#include "allocations.h"
#include "cuda_streams.h"

cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  ENTER("cudaMalloc");
  if (sim::capturing()) return sim::keep(cudaErrorStreamCaptureUnsupported);
  return sim::allocate(p, bytes, true);
}
// A call that frees does so even if it returns an error: on a device that is the error of an earlier call.
cudaError_t cudaFree(void* p) {
  sim::catch_up_device();
  const cudaError_t e = sim::release(p, true);
  ENTER("cudaFree");
  return e;
}
cudaError_t cudaMallocHost(void** p, std::size_t bytes, unsigned) {
  ENTER("cudaMallocHost");
  return sim::allocate(p, bytes, false);
}
cudaError_t cudaHostAlloc(void** p, std::size_t bytes, unsigned) {
  return cudaMallocHost(p, bytes);
}
cudaError_t cudaFreeHost(void* p) {
  sim::catch_up_device();
  const cudaError_t e = sim::release(p, false);
  ENTER("cudaFreeHost");
  return e;
}
cudaError_t cudaHostRegister(void* p, std::size_t bytes, unsigned) {
  ENTER("cudaHostRegister");
  sim::pin(p, bytes);
  return cudaSuccess;
}
cudaError_t cudaHostUnregister(void* p) {
  const bool known = sim::unpin(p);
  ENTER("cudaHostUnregister");
  return known ? cudaSuccess : sim::keep(cudaErrorInvalidValue);
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  ENTER("cudaPointerGetAttributes");
  *a = {sim::is_device(p)      ? cudaMemoryTypeDevice
        : sim::is_pinned(p, 1) ? cudaMemoryTypeHost
                               : cudaMemoryTypeUnregistered,
        0, sim::is_device(p) ? const_cast<void*>(p) : nullptr, sim::is_device(p) ? nullptr : const_cast<void*>(p)};
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  ENTER("cudaMemGetInfo");
  const sim::MemoryUse use = sim::memory_use();
  *free = use.free, *total = use.total;
  return cudaSuccess;
}

// ---- copies

namespace {

/// Whether a copy from or to this memory is held back.
bool deferred(const void* host_memory) {
  return sim::laziness() > 1 || (sim::laziness() == 1 && sim::is_pinned(host_memory, 1));
}

bool copy_allowed(const void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind == cudaMemcpyDefault)
    return (!sim::is_device(to) || sim::is_device(to, bytes)) && (!sim::is_device(from) || sim::is_device(from, bytes));
  return sim::is_device(to, to_device ? bytes : 1) == to_device &&
         sim::is_device(from, from_device ? bytes : 1) == from_device;
}
}  // namespace

cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind, cudaStream_t s) {
  ENTER("cudaMemcpyAsync");
  if (!width || !height) return cudaSuccess;
  if (to_pitch < width || from_pitch < width || !copy_allowed(to, from, 1, kind) ||
      !copy_allowed(static_cast<char*>(to) + to_pitch * (height - 1),
                    static_cast<const char*>(from) + from_pitch * (height - 1), width, kind))
    return sim::keep(cudaErrorInvalidValue);
  const auto rows = [=](const void* source, std::size_t pitch) {
    for (std::size_t i = 0; i < height; ++i)
      std::memmove(static_cast<char*>(to) + i * to_pitch, static_cast<const char*>(source) + i * pitch, width);
    return cudaSuccess;
  };
  const bool to_device = sim::is_device(to), from_device = sim::is_device(from);
  if (!sim::laziness() || (to_device && from_device) || deferred(to_device ? from : to))
    return sim::submit(s, [=] { return rows(from, from_pitch); });
  if (to_device) {
    std::vector<char> staged(width * height);
    for (std::size_t i = 0; i < height; ++i)
      std::memcpy(&staged[i * width], static_cast<const char*>(from) + i * from_pitch, width);
    return sim::submit(s, [rows, width, staged = std::move(staged)] { return rows(staged.data(), width); });
  }
  const cudaError_t e = sim::submit(s, [=] { return rows(from, from_pitch); });
  return e != cudaSuccess || sim::capturing() ? e : sim::catch_up(s);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t s) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, s);
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const cudaError_t e = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return e != cudaSuccess ? e : sim::catch_up(nullptr);
}
cudaError_t cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t s) {
  ENTER("cudaMemsetAsync");
  if (!bytes) return cudaSuccess;
  if (!sim::is_device(p, bytes)) return sim::keep(cudaErrorInvalidValue);
  return sim::submit(s, [=] { return std::memset(p, value, bytes), cudaSuccess; });
}
cudaError_t cudaMemset(void* p, int value, std::size_t bytes) {
  return cudaMemsetAsync(p, value, bytes, nullptr);
}
cudaError_t sim_copy_symbol(void* symbol, const void* from, std::size_t bytes, cudaStream_t s) {
  ENTER("cudaMemcpyToSymbol");
  return sim::submit(s, [=] { return std::memcpy(symbol, from, bytes), cudaSuccess; });
}
