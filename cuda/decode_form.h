// Which of the kernels of decode attention runs.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace dapo::cuda {

/// How a decode step's attention runs (attention_decode.cuh).
enum class DecodeForm : uint8_t { wide, deep, shallow };

/// For so many blocks, by the shared memory that a block of the wide kernel and of the one with the deep ring takes.
inline DecodeForm decode_form(int64_t blocks, size_t wide_bytes, size_t deep_bytes, const cudaDeviceProp& card) {
  const auto at_once = [&](size_t bytes) {
    return card.multiProcessorCount *
           static_cast<int64_t>(card.sharedMemPerMultiprocessor / (bytes + card.reservedSharedMemPerBlock));
  };
  if (blocks <= card.multiProcessorCount && wide_bytes <= card.sharedMemPerBlockOptin) return DecodeForm::wide;
  return blocks <= at_once(deep_bytes) ? DecodeForm::deep : DecodeForm::shallow;
}

}  // namespace dapo::cuda
