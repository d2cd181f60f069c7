// wgmma of bf16 with fp32 sums: d (64 x N in a warpgroup's registers) = a b + d. One instruction each; sim/wgmma.cpp
// emulates them. For sm_90a only: elsewhere they trap.
#pragma once

#include "cuda/hopper.cuh"

namespace dapo {

/// How a tile lies in shared memory: unswizzled cores of 8 x 16 bytes, or lines of 128, 64 or 32 bytes whose 16-byte
/// parts are exchanged: bits 4-6 of the address ^= bits 7-9 (2 or 1 bits of each for 64 and 32).
enum class Swizzle : std::uint64_t { none = 0, b128 = 1, b64 = 2, b32 = 3 };

/// Descriptor of an operand whose first element is at `start` (shared, a multiple of 16). K-major (elements of a row
/// lie along k): `stride` is the distance in bytes of groups of 8 rows; `leading` that of 8 elements along k,
/// unswizzled only. MN-major: unswizzled `stride` is that of groups of 8 along mn and `leading` of 8 along k;
/// swizzled `leading` is that of whole lines along mn and `stride` of 8 along k. Adding bytes / 16 to a descriptor
/// moves its start.
__device__ __forceinline__ std::uint64_t wgmma_descriptor(const void* start, std::uint32_t leading,
                                                          std::uint32_t stride, Swizzle swizzle HOPPER_WHERE) {
  const std::uint32_t address = shared_address(start HOPPER_HERE) & 0x3ffff;  // in a cluster the rank is above
  HOPPER_EMULATED(sim::check_descriptor(address, leading, stride, where);)
  return static_cast<std::uint64_t>(address >> 4) | static_cast<std::uint64_t>(leading >> 4 & 0x3fff) << 16 |
         static_cast<std::uint64_t>(stride >> 4 & 0x3fff) << 32 | static_cast<std::uint64_t>(swizzle) << 62;
}

/// Before the first wgmma, and again whenever ordinary code has written accumulators or fragments of A.
__device__ __forceinline__ void wgmma_fence(HOPPER_ONLY_WHERE) {
  HOPPER_PTX(asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");)
  HOPPER_EMULATED(sim::wgmma_fence(where);)
}
/// What the warpgroup has issued since the last commit becomes a group.
__device__ __forceinline__ void wgmma_commit(HOPPER_ONLY_WHERE) {
  HOPPER_PTX(asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");)
  HOPPER_EMULATED(sim::wgmma_commit(where);)
}
/// Waits until at most N groups are under way. Before it, neither accumulators nor fragments of A may be touched, and
/// shared memory that is an operand must not change.
template <int N>
__device__ __forceinline__ void wgmma_wait(HOPPER_ONLY_WHERE) {
  HOPPER_PTX(asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(N) : "memory");)
  HOPPER_EMULATED(sim::wgmma_wait(N, where);)
}

/// Keeps the compiler from moving reads and writes of accumulators past this place: before wgmma_fence, after
/// wgmma_wait.
template <int R>
__device__ __forceinline__ void wgmma_pin([[maybe_unused]] float (&d)[R]) {
#ifdef __CUDACC__
#pragma unroll
  for (int i = 0; i < R; ++i) asm volatile("" : "+f"(d[i])::"memory");
#endif
}

/// Computes x, which is not negative, before the wgmma_wait that follows: ptxas moves arithmetic beyond a wait if it can,
/// and then it does not run beside wgmma. (A trap in place of the sleep makes it spill.)
__device__ __forceinline__ void wgmma_finish_before_wait([[maybe_unused]] float x) {
  HOPPER_PTX(asm volatile("{\n.reg .pred p;\nsetp.lt.f32 p, %0, 0f00000000;\n@p nanosleep.u32 1;\n}\n" ::"f"(x)
                          : "memory");)
}

/// How operands are taken: as MN-major, or negated.
struct WgmmaForm {
  bool transposed_a = false, transposed_b = false, negative_a = false, negative_b = false;
};

/// Register r of thread t is element (t/32*16 + t%32/4 + r/2%2*8, r/4*8 + t%4*2 + r%2) of d. keep = 0: d starts as 0.
/// a in registers: as the 16 x 16 of mma_m16n8k16, of rows t/32*16 on.
template <int N, WgmmaForm form = WgmmaForm{}>
struct Wgmma;

// The operands of the instructions, by the number of registers.
#define DAPO_TEXT_4 "%0, %1, %2, %3"
#define DAPO_D_4 "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
#define DAPO_TEXT_8 DAPO_TEXT_4 ", %4, %5, %6, %7"
#define DAPO_D_8 DAPO_D_4, "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
#define DAPO_TEXT_12 DAPO_TEXT_8 ", %8, %9, %10, %11"
#define DAPO_D_12 DAPO_D_8, "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11])
#define DAPO_TEXT_16 DAPO_TEXT_12 ", %12, %13, %14, %15"
#define DAPO_D_16 DAPO_D_12, "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
#define DAPO_TEXT_32 DAPO_TEXT_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define DAPO_D_32                                                                                                    \
  DAPO_D_16, "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
      "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define DAPO_TEXT_48 DAPO_TEXT_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define DAPO_D_48                                                                                                    \
  DAPO_D_32, "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), \
      "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47])
#define DAPO_TEXT_64 DAPO_TEXT_48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define DAPO_D_64                                                                                                    \
  DAPO_D_48, "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
      "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
#define DAPO_TEXT_96                                                                                            \
  DAPO_TEXT_64                                                                                                  \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, " \
  "%85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define DAPO_D_96                                                                                                    \
  DAPO_D_64, "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71]), \
      "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79]),        \
      "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]),        \
      "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95])
#define DAPO_TEXT_128                                                                                          \
  DAPO_TEXT_96                                                                                                 \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, " \
  "%114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define DAPO_D_128                                                                                                    \
  DAPO_D_96, "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]),            \
      "+f"(d[103]), "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), \
      "+f"(d[111]), "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]), "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), \
      "+f"(d[119]), "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), \
      "+f"(d[127])

#define DAPO_WGMMA(N, R, A, B, P, SA, SB, TA, TB, A1, A2, A3, RB, RP, RSA, RSB, RTB)                                   \
  template <WgmmaForm form>                                                                                            \
  struct Wgmma<N, form> {                                                                                              \
    static constexpr int registers = R;                                                                                \
    static __device__ __forceinline__ void shared(float (&d)[R], std::uint64_t a, std::uint64_t b,                     \
                                                  int keep HOPPER_WHERE) {                                             \
      HOPPER_PTX(asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" P ", 0;\n"                                          \
                              "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" DAPO_TEXT_##R               \
                              "}, %" A ", %" B ", p, %" SA ", %" SB ", %" TA ", %" TB ";\n}\n"                         \
                              : DAPO_D_##R                                                                             \
                              : "l"(a), "l"(b), "r"(keep), "n"(form.negative_a ? -1 : 1),                              \
                                "n"(form.negative_b ? -1 : 1), "n"(form.transposed_a ? 1 : 0),                         \
                                "n"(form.transposed_b ? 1 : 0));)                                                      \
      HOPPER_EMULATED(sim::wgmma({d, N, nullptr, a, b, keep != 0, form.negative_a, form.negative_b, form.transposed_a, \
                                  form.transposed_b},                                                                  \
                                 where);)                                                                              \
    }                                                                                                                  \
    static __device__ __forceinline__ void registers_a(float (&d)[R], const std::uint32_t (&a)[4], std::uint64_t b,    \
                                                       int keep HOPPER_WHERE) {                                        \
      static_assert(!form.transposed_a, "A in registers has one layout");                                              \
      HOPPER_PTX(asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" RP ", 0;\n"                                         \
                              "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" DAPO_TEXT_##R               \
                              "}, {%" A ", %" A1 ", %" A2 ", %" A3 "}, %" RB ", p, %" RSA ", %" RSB ", %" RTB ";\n}\n" \
                              : DAPO_D_##R                                                                             \
                              : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep),                         \
                                "n"(form.negative_a ? -1 : 1), "n"(form.negative_b ? -1 : 1),                          \
                                "n"(form.transposed_b ? 1 : 0));)                                                      \
      HOPPER_EMULATED(                                                                                                 \
          sim::wgmma({d, N, a, 0, b, keep != 0, form.negative_a, form.negative_b, false, form.transposed_b}, where);)  \
    }                                                                                                                  \
  };
DAPO_WGMMA(8, 4, "4", "5", "6", "7", "8", "9", "10", "5", "6", "7", "8", "9", "10", "11", "12")
DAPO_WGMMA(16, 8, "8", "9", "10", "11", "12", "13", "14", "9", "10", "11", "12", "13", "14", "15", "16")
DAPO_WGMMA(24, 12, "12", "13", "14", "15", "16", "17", "18", "13", "14", "15", "16", "17", "18", "19", "20")
DAPO_WGMMA(32, 16, "16", "17", "18", "19", "20", "21", "22", "17", "18", "19", "20", "21", "22", "23", "24")
DAPO_WGMMA(64, 32, "32", "33", "34", "35", "36", "37", "38", "33", "34", "35", "36", "37", "38", "39", "40")
DAPO_WGMMA(96, 48, "48", "49", "50", "51", "52", "53", "54", "49", "50", "51", "52", "53", "54", "55", "56")
DAPO_WGMMA(128, 64, "64", "65", "66", "67", "68", "69", "70", "65", "66", "67", "68", "69", "70", "71", "72")
DAPO_WGMMA(192, 96, "96", "97", "98", "99", "100", "101", "102", "97", "98", "99", "100", "101", "102", "103", "104")
DAPO_WGMMA(256, 128, "128", "129", "130", "131", "132", "133", "134", "129", "130", "131", "132", "133", "134", "135",
           "136")
#undef DAPO_WGMMA
#undef DAPO_TEXT_4
#undef DAPO_D_4
#undef DAPO_TEXT_8
#undef DAPO_D_8
#undef DAPO_TEXT_12
#undef DAPO_D_12
#undef DAPO_TEXT_16
#undef DAPO_D_16
#undef DAPO_TEXT_32
#undef DAPO_D_32
#undef DAPO_TEXT_48
#undef DAPO_D_48
#undef DAPO_TEXT_64
#undef DAPO_D_64
#undef DAPO_TEXT_96
#undef DAPO_D_96
#undef DAPO_TEXT_128
#undef DAPO_D_128

}  // namespace dapo
