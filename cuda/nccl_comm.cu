#include <nccl.h>

#include <algorithm>
#include <cstring>

#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/nccl_comm.h"
#include "cuda/shape.h"

namespace dapo {
namespace cuda {
namespace {

constexpr int kThreads = 256;
/// Sums go through memory of this size, in chunks.
constexpr int64_t kScratchBytes = 64 << 20;

void check(ncclResult_t result, const char* call) {
  if (result != ncclSuccess)
    fail(result == ncclRemoteError ? kExitLostRank : kExitResources, "{}: {}; NCCL_DEBUG=INFO says more", call,
         ncclGetErrorString(result));
}

/// to[i] = from[0, i] + from[1, i] + ..., in this order; a thread an element.
template <class T>
__global__ void add_ranks_kernel(T* to, const T* from, int ranks, int64_t n) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= n) return;
  T sum = from[i];
  for (int r = 1; r < ranks; ++r) sum += from[r * n + i];
  to[i] = sum;
}
template <class T>
__global__ void most_of_ranks_kernel(T* to, const T* from, int ranks, int64_t n) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= n) return;
  T most = from[i];
  for (int r = 1; r < ranks; ++r) {
    const T value = from[r * n + i];
    if (value > most || value != value) most = value;  // once NaN, always NaN
  }
  to[i] = most;
}

cudaStream_t stream_of(Backend& backend) {
  if (auto* own = dynamic_cast<CudaBackend<bf16>*>(&backend)) return own->stream();
  auto* own = dynamic_cast<CudaBackend<float>*>(&backend);
  CHECK(own, "NCCL needs the CUDA backend");
  return own->stream();
}

/// Calls between its creation and end() are one group: they go on together.
class Group {
 public:
  Group() { check(ncclGroupStart(), "ncclGroupStart"); }
  ~Group() {
    if (open_) ncclGroupEnd();
  }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;
  void end() {
    open_ = false;
    check(ncclGroupEnd(), "ncclGroupEnd");
  }

 private:
  bool open_ = true;
};

class NcclComm final : public Comm {
 public:
  NcclComm(Backend& backend, HostComm& host) : backend_(backend), host_(host), stream_(stream_of(backend)) {
    ncclUniqueId id{};
    if (host.rank() == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    const std::string bytes = host.broadcast_bytes(std::string(id.internal, sizeof id.internal), 0);
    std::memcpy(id.internal, bytes.data(), sizeof id.internal);
    scratch_ = static_cast<char*>(backend_.allocate(kScratchBytes, true));
    host.together([&] { check(ncclCommInitRank(&comm_, host.size(), id, host.rank()), "ncclCommInitRank"); });
  }
  ~NcclComm() override {
    if (comm_) ncclCommDestroy(comm_);
    if (scratch_) backend_.release(scratch_, kScratchBytes);
  }
  NcclComm(const NcclComm&) = delete;
  NcclComm& operator=(const NcclComm&) = delete;

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  void all_reduce_sum(const Tensor& t) override;
  void all_reduce_max(const Tensor& t) override;
  void all_gather(const Tensor& out, const Tensor& in) override;
  void reduce_scatter(const Tensor& out, const Tensor& in) override;
  void all_to_all(const Tensor& out, const Tensor& in) override;
  void broadcast(const Tensor& t, int root) override;
  void send(const Tensor& t, int to) override;
  void recv(const Tensor& t, int from) override;
  void barrier() override {
    backend_.synchronize();
    host_.barrier();
  }
  std::vector<std::string> all_gather_bytes(std::string_view bytes) override { return host_.all_gather_bytes(bytes); }
  std::string broadcast_bytes(std::string bytes, int root) override {
    return host_.broadcast_bytes(std::move(bytes), root);
  }

 private:
  /// Block r of `out` = block rank() of rank r's `in`, for all r; distances and sizes in bytes.
  void exchange(char* out, size_t out_distance, const char* in, size_t in_distance, size_t bytes);
  void gather(void* out, const void* in, size_t bytes) {
    if (bytes > 0) check(ncclAllGather(in, out, bytes, ncclUint8, comm_, stream_), "ncclAllGather");
  }
  template <class T>
  void add(T* to, const T* from, int64_t n) {
    if (n > 0)
      launch(add_ranks_kernel<T>, {grid_of(ceil_div(n, kThreads)), dim3(kThreads), 0, stream_}, to, from, size(), n);
  }

  Backend& backend_;
  HostComm& host_;
  cudaStream_t stream_;
  ncclComm_t comm_ = nullptr;
  char* scratch_ = nullptr;
};

void NcclComm::exchange(char* out, size_t out_distance, const char* in, size_t in_distance, size_t bytes) {
  if (bytes == 0) return;
  Group group;
  for (int r = 0; r < size(); ++r) {
    check(ncclSend(in + r * in_distance, bytes, ncclUint8, r, comm_, stream_), "ncclSend");
    check(ncclRecv(out + r * out_distance, bytes, ncclUint8, r, comm_, stream_), "ncclRecv");
  }
  group.end();
}

void NcclComm::all_reduce_sum(const Tensor& t) {
  host_.meet_for("all_reduce_sum", t.dtype, t.numel());
  with_summable("all_reduce_sum", t, [&](auto type) {
    using T = decltype(type);
    const int64_t chunk = kScratchBytes / static_cast<int64_t>(sizeof(T));
    for (int64_t begin = 0; begin < t.numel(); begin += chunk) {
      T* const here = static_cast<T*>(t.data) + begin;
      const int64_t count = std::min(chunk, t.numel() - begin), slice = count / size(), rest = count - slice * size();
      T* const all = reinterpret_cast<T*>(scratch_);
      if (slice > 0) {
        const size_t bytes = slice * sizeof(T);
        T* const own = here + rank() * slice;
        exchange(scratch_, bytes, reinterpret_cast<const char*>(here), bytes, bytes);
        add(own, all, slice);
        gather(here, own, bytes);
      }
      if (rest > 0) {
        gather(all, here + slice * size(), rest * sizeof(T));
        add(here + slice * size(), all, rest);
      }
    }
  });
}

void NcclComm::all_reduce_max(const Tensor& t) {
  host_.meet_for("all_reduce_max", t.dtype, t.numel());
  with_summable("all_reduce_max", t, [&](auto type) {
    using T = decltype(type);
    const int64_t chunk = kScratchBytes / static_cast<int64_t>(sizeof(T)) / size();
    for (int64_t begin = 0; begin < t.numel(); begin += chunk) {
      T* const here = static_cast<T*>(t.data) + begin;
      const int64_t n = std::min(chunk, t.numel() - begin);
      gather(scratch_, here, n * sizeof(T));
      launch(most_of_ranks_kernel<T>, {grid_of(ceil_div(n, kThreads)), dim3(kThreads), 0, stream_}, here,
             reinterpret_cast<const T*>(scratch_), size(), n);
    }
  });
}

void NcclComm::all_gather(const Tensor& out, const Tensor& in) {
  CHECK(out.dtype == in.dtype && out.numel() == in.numel() * size(), "{} of {}", out.describe(), in.describe());
  host_.meet_for("all_gather", in.dtype, in.numel());
  gather(out.data, in.data, in.bytes());
}

void NcclComm::reduce_scatter(const Tensor& out, const Tensor& in) {
  CHECK(out.dtype == in.dtype && in.numel() == out.numel() * size(), "{} of {}", out.describe(), in.describe());
  host_.meet_for("reduce_scatter", out.dtype, out.numel());
  with_summable("reduce_scatter", in, [&](auto type) {
    using T = decltype(type);
    const int64_t chunk = kScratchBytes / static_cast<int64_t>(sizeof(T)) / size(), n = out.numel();
    for (int64_t begin = 0; begin < n; begin += chunk) {
      const int64_t count = std::min(chunk, n - begin);
      exchange(scratch_, count * sizeof(T), reinterpret_cast<const char*>(static_cast<const T*>(in.data) + begin),
               n * sizeof(T), count * sizeof(T));
      add(static_cast<T*>(out.data) + begin, reinterpret_cast<const T*>(scratch_), count);
    }
  });
}

void NcclComm::all_to_all(const Tensor& out, const Tensor& in) {
  CHECK(out.dtype == in.dtype && out.numel() == in.numel() && in.numel() % size() == 0, "{} and {}", out.describe(),
        in.describe());
  CHECK(out.data != in.data || in.numel() == 0, "not in place");
  host_.meet_for("all_to_all", in.dtype, in.numel());
  const size_t block = in.bytes() / size();
  exchange(static_cast<char*>(out.data), block, static_cast<const char*>(in.data), block, block);
}

void NcclComm::broadcast(const Tensor& t, int root) {
  CHECK(root >= 0 && root < size(), "root {} of {} ranks", root, size());
  host_.meet_for("broadcast", t.dtype, t.numel(), root);
  if (t.bytes() > 0) check(ncclBroadcast(t.data, t.data, t.bytes(), ncclUint8, root, comm_, stream_), "ncclBroadcast");
}

void NcclComm::send(const Tensor& t, int to) {
  CHECK(to >= 0 && to < size() && to != rank(), "rank {} sends to rank {} of {}", rank(), to, size());
  if (t.bytes() > 0) check(ncclSend(t.data, t.bytes(), ncclUint8, to, comm_, stream_), "ncclSend");
}

void NcclComm::recv(const Tensor& t, int from) {
  CHECK(from >= 0 && from < size() && from != rank(), "rank {} receives from rank {} of {}", rank(), from, size());
  if (t.bytes() > 0) check(ncclRecv(t.data, t.bytes(), ncclUint8, from, comm_, stream_), "ncclRecv");
}

}  // namespace
}  // namespace cuda

std::unique_ptr<Comm> make_nccl_comm(Backend& backend, HostComm& host) {
  return std::make_unique<cuda::NcclComm>(backend, host);
}

}  // namespace dapo
