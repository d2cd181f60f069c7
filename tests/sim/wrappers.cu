// Every instruction of cuda/hopper.cuh and cuda/wgmma.cuh, once: nvcc compiles this for sm_80 and sm_90a (make
// cuda-compile), g++ for the simulator.
#include "cuda/hopper.cuh"
#include "cuda/ptx.cuh"
#include "cuda/wgmma_product.cuh"

namespace {

using namespace dapo;

template <int N, WgmmaForm form>
__device__ float both(std::uint64_t a, std::uint64_t b, const std::uint32_t (&fragments)[4]) {
  float d[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; ++i) d[i] = 0.0f;
  wgmma_pin(d);
  wgmma_fence();
  Wgmma<N, form>::shared(d, a, b, 0);
  if constexpr (!form.transposed_a) Wgmma<N, form>::registers_a(d, fragments, b, 1);
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_pin(d);
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < N / 2; ++i) sum += d[i];
  return sum;
}

__global__ void __launch_bounds__(128) products(float* out, std::uint32_t word) {
  auto* smem = dynamic_smem<unsigned char>();
  const std::uint64_t a = wgmma_descriptor(smem, 16, 1024, Swizzle::b128);
  const std::uint64_t b = wgmma_descriptor(smem + 8192, 1024, 128, Swizzle::none);
  const std::uint32_t fragments[4] = {word, word, word, word};
  float sum = both<8, WgmmaForm{}>(a, b, fragments) + both<16, WgmmaForm{}>(a, b, fragments);
  sum += both<24, WgmmaForm{}>(a, b, fragments) + both<32, WgmmaForm{}>(a, b, fragments);
  sum += both<64, WgmmaForm{true, false, false, false}>(a, b, fragments);
  sum += both<64, WgmmaForm{false, true, true, false}>(a, b, fragments);
  sum += both<96, WgmmaForm{false, false, false, true}>(a, b, fragments);
  sum += both<128, WgmmaForm{}>(a, b, fragments) + both<192, WgmmaForm{}>(a, b, fragments);
  sum += both<256, WgmmaForm{true, true, false, false}>(a, b, fragments);
  sum += both<256, WgmmaForm{}>(a, b, fragments);
  out[threadIdx.x] = sum;
}

__global__ void copies(const __grid_constant__ CUtensorMap map, float* global) {
  auto* smem = dynamic_smem<unsigned char>();
  auto* barrier = reinterpret_cast<std::uint64_t*>(smem + 4096);
  tensor_prefetch_map(&map);
  mbarrier_init(barrier, 2);
  mbarrier_init_fence();
  fence_proxy_async();
  tensor_prefetch_2d(&map, 0, 0);
  mbarrier_expect(barrier, 16);
  mbarrier_arrive_expect(barrier, 4096);
  mbarrier_arrive(barrier);
  bulk_load(smem, global, 16, barrier);
  tensor_load_2d(smem, &map, 0, 0, barrier);
  tensor_load_3d(smem, &map, 0, 0, 0, barrier);
  tensor_load_2d_multicast(smem, &map, 0, 0, barrier, 3);
  if (!mbarrier_try_wait(barrier, 0)) mbarrier_wait(barrier, 0);
  if (!mbarrier_try_wait_cluster(barrier, 0)) mbarrier_wait_cluster(barrier, 0);
  tensor_store_2d(&map, 0, 0, smem);
  tensor_store_3d(&map, 0, 0, 0, smem);
  tensor_add_2d(&map, 0, 0, smem);
  bulk_store(global, smem, 16);
  bulk_add(global, reinterpret_cast<const float*>(smem), 16);
  bulk_commit();
  bulk_wait_read<0>();
  bulk_wait<0>();
  mbarrier_inval(barrier);
}

__global__ void cluster(std::uint32_t* out) {
  auto* smem = dynamic_smem<unsigned char>();
  cluster_sync();
  const std::uint32_t peer = cluster_address(smem, (cluster_rank() + 1) % cluster_size());
  cluster_store(peer, 1);
  cluster_store_async(peer + 4, 2, peer + 8);
  bulk_copy_cluster(peer + 16, smem + 16, 16, peer + 8);
  mbarrier_arrive_remote(peer + 8);
  out[threadIdx.x] = cluster_load(peer) + cluster_add(peer, 3);
  cluster_arrive_relaxed();
  cluster_wait();
  std::uint32_t r[4] = {1, 2, 3, 4};
  stmatrix_x4(smem + threadIdx.x * 16, r);
  stmatrix_x4_trans(smem + threadIdx.x * 16, r);
  const std::uint32_t two[2] = {1, 2}, one[1] = {1};
  stmatrix_x2(smem + threadIdx.x * 16, two);
  stmatrix_x2_trans(smem + threadIdx.x * 16, two);
  stmatrix_x1(smem + threadIdx.x * 16, one);
  stmatrix_x1_trans(smem + threadIdx.x * 16, one);
  if (elect_one()) out[0] = 1;
}

__global__ void __launch_bounds__(384, 1) registers(float* out) {
  if (threadIdx.x < 128)
    registers_give<40>();
  else
    registers_take<232>();
  out[threadIdx.x] = 1.0f;
}

}  // namespace

namespace dapo {
/// Keeps the kernels, for the compilers.
const void* hopper_wrappers[] = {reinterpret_cast<const void*>(products),
                                 reinterpret_cast<const void*>(copies),
                                 reinterpret_cast<const void*>(cluster),
                                 reinterpret_cast<const void*>(registers),
                                 reinterpret_cast<const void*>(dapo::cuda::wgmma_product<128, 4>),
                                 reinterpret_cast<const void*>(dapo::cuda::wgmma_product<256, 3>),
                                 reinterpret_cast<const void*>(dapo::cuda::wgmma_product<128, 4, false, true>),
                                 reinterpret_cast<const void*>(dapo::cuda::wgmma_product<128, 4, true, true>)};
}  // namespace dapo
