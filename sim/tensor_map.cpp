// cuTensorMapEncodeTiled: validates as the driver does, and keeps the fields.
#include "tensor_map.h"

#include <cstring>

#include "calls.h"

namespace {

unsigned size_of(CUtensorMapDataType t) {
  switch (t) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8:
      return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
      return 2;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
      return 4;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
      return 8;
  }
  return 0;
}

}  // namespace

CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* base,
                                const cuuint64_t* dims, const cuuint64_t* strides, const cuuint32_t* box,
                                const cuuint32_t* element_strides, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
  if (const int injected = sim::enter("cuTensorMapEncodeTiled")) return static_cast<CUresult>(injected);
  constexpr CUresult refused = CUDA_ERROR_INVALID_VALUE;
  const auto multiple = [](std::uint64_t v, std::uint64_t of) { return v % of == 0; };
  const unsigned bytes = size_of(type);
  // The driver takes ranks up to 5; the copy engine here those up to 3.
  if (!map || !dims || !box || !element_strides || bytes == 0 || rank < 1 || rank > 3 || (rank > 1 && !strides))
    return refused;
  if (!multiple(reinterpret_cast<std::uintptr_t>(map), 64) || !base ||
      !multiple(reinterpret_cast<std::uintptr_t>(base), 16))
    return refused;
  const bool is_float = type == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 || type == CU_TENSOR_MAP_DATA_TYPE_FLOAT32 ||
                        type == CU_TENSOR_MAP_DATA_TYPE_FLOAT64 || type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  if (fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE && !is_float) return refused;
  sim::TensorMap m{};
  m.magic = sim::kTensorMapMagic;
  m.rank = static_cast<std::uint8_t>(rank);
  m.bytes = static_cast<std::uint8_t>(bytes);
  m.swizzle = static_cast<std::uint8_t>(swizzle == CU_TENSOR_MAP_SWIZZLE_NONE ? 0 : 16u << swizzle);
  m.type = static_cast<std::uint8_t>(type);
  m.nan_fill = fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;
  m.base = static_cast<char*>(base);
  for (unsigned i = 0; i < 3; ++i) {
    m.box[i] = m.step[i] = 1;
    m.dims[i] = 1;
    if (i >= rank) continue;
    if (dims[i] < 1 || dims[i] > std::uint64_t{1} << 32 || box[i] < 1 || box[i] > 256 || element_strides[i] < 1 ||
        element_strides[i] > 8)
      return refused;
    m.dims[i] = static_cast<std::uint32_t>(dims[i]);
    m.box[i] = static_cast<std::uint16_t>(box[i]);
    if (i == 0) continue;
    m.step[i] = static_cast<std::uint8_t>(element_strides[i]);
    if (!multiple(strides[i - 1], 16) || strides[i - 1] >= std::uint64_t{1} << 40) return refused;
    m.strides[i - 1] = strides[i - 1];
  }
  const unsigned inner = box[0] * bytes;
  if (!multiple(inner, 16) || (m.swizzle && inner > m.swizzle)) return refused;
  std::memset(map, 0, sizeof *map);
  std::memcpy(static_cast<void*>(map), &m, sizeof m);
  return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** f, unsigned version, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  ENTER("cudaGetDriverEntryPointByVersion");
  int driver = 0;
  cudaDriverGetVersion(&driver);
  const bool known = std::strcmp(symbol, "cuTensorMapEncodeTiled") == 0;
  const bool found = known && driver >= 12000 && static_cast<unsigned>(driver) >= version;
  *f = found ? reinterpret_cast<void*>(&cuTensorMapEncodeTiled) : nullptr;
  if (result)
    *result = found   ? cudaDriverEntryPointSuccess
              : known ? cudaDriverEntryPointVersionNotSufficent
                      : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
