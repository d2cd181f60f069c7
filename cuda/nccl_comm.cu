#include "cuda/nccl_comm.h"

#if __has_include(<nccl.h>)
#include <dlfcn.h>
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <exception>

#include "core/device_comm.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/shape.h"

namespace dapo {
namespace cuda {
namespace {

#define NCCL_FUNCTIONS(X) \
  X(GetUniqueId)          \
  X(CommInitRank)         \
  X(CommDestroy)          \
  X(CommAbort)            \
  X(CommGetAsyncError) X(GetErrorString) X(AllGather) X(Broadcast) X(Send) X(Recv) X(GroupStart) X(GroupEnd)

/// The library, loaded at its first use: programs start without it.
struct Api {
#define X(name) decltype(&::nccl##name) name;
  NCCL_FUNCTIONS(X)
#undef X
};

Api load() {
  Api api{};
#ifdef __CUDACC__
  void* const library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    fail_input("NCCL, which connects ranks on GPUs, is not found: {}; install it, or add its folder to LD_LIBRARY_PATH",
               dlerror());
#define X(name)                                                                  \
  api.name = reinterpret_cast<decltype(api.name)>(dlsym(library, "nccl" #name)); \
  if (api.name == nullptr) fail_input("libnccl.so.2 has no nccl" #name);
#else
#define X(name) api.name = &::nccl##name;
#endif
  NCCL_FUNCTIONS(X)
#undef X
  return api;
}
const Api& nccl() {
  static const Api api = load();
  return api;
}

constexpr int kThreads = 256;
/// Sums go through memory of this size, in chunks.
constexpr int64_t kScratchBytes = 64 << 20;

void check(ncclResult_t result, const char* call) {
  if (result != ncclSuccess)
    fail(result == ncclRemoteError ? kExitLostRank : kExitResources, "{}: {}; NCCL_DEBUG=INFO says more", call,
         nccl().GetErrorString(result));
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

/// Calls f with the CUDA backend that this is.
template <class F>
auto with_cuda(Backend& backend, F&& f) {
  if (auto* own = dynamic_cast<CudaBackend<bf16>*>(&backend)) return f(*own);
  auto* own = dynamic_cast<CudaBackend<float>*>(&backend);
  CHECK(own, "NCCL needs the CUDA backend");
  return f(*own);
}

/// Calls between its creation and end() are one group: they go on together.
class Group {
 public:
  Group() { check(nccl().GroupStart(), "ncclGroupStart"); }
  ~Group() {
    if (open_) nccl().GroupEnd();
  }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;
  void end() {
    open_ = false;
    check(nccl().GroupEnd(), "ncclGroupEnd");
  }

 private:
  bool open_ = true;
};

class NcclComm final : public DeviceComm, private DeviceWatch {
 public:
  NcclComm(Backend& backend, HostComm& host) : DeviceComm(backend, host) {
    ncclUniqueId id{};
    host.together([&] {
      nccl();
      scratch_.reset(static_cast<char*>(backend_.allocate(kScratchBytes, true)));
      if (host.rank() == 0) cuda::check(nccl().GetUniqueId(&id), "ncclGetUniqueId");
    });
    const std::string bytes = host.broadcast_bytes(std::string(id.internal, sizeof id.internal), 0);
    std::memcpy(id.internal, bytes.data(), sizeof id.internal);
    host.together([&] {
      const Entered inside(host_.heartbeat(), "ncclCommInitRank", host_.among(), host_.sequence());
      cuda::check(nccl().CommInitRank(&comm_, host.size(), id, host.rank()), "ncclCommInitRank");
    });
    host.together([&] {
      const Entered inside(host_.heartbeat(), "first NCCL calls", host_.among(), host_.sequence());
      warm_up();
    });
    with_cuda(backend_, [&](auto& own) { own.watch(this); });
  }
  ~NcclComm() override {
    // Recorded steps hold the communicator, whose end would wait for theirs. After an error the other ranks may never
    // end what they have begun with this one.
    with_cuda(backend_, [&](auto& own) { own.unwatch(this); });
    if (comm_) std::uncaught_exceptions() > exceptions_ ? nccl().CommAbort(comm_) : nccl().CommDestroy(comm_);
  }
  NcclComm(const NcclComm&) = delete;
  NcclComm& operator=(const NcclComm&) = delete;

  void all_reduce_sum(const Tensor& t) override;
  void all_reduce_max(const Tensor& t) override;
  void all_gather(const Tensor& out, const Tensor& in) override;
  void reduce_scatter(const Tensor& out, const Tensor& in) override;
  void all_to_all(const Tensor& out, const Tensor& in) override;
  void broadcast(const Tensor& t, int root) override;
  void send(const Tensor& t, int to) override;
  void recv(const Tensor& t, int from) override;

 private:
  struct Release {
    Backend& backend;
    void operator()(char* p) const { backend.release(p, kScratchBytes); }
  };
  void begin_wait() override {
    if (Heartbeat* const h = host_.heartbeat()) h->enter("device wait", host_.among(), host_.sequence(), true);
  }
  void end_wait() override {
    if (Heartbeat* const h = host_.heartbeat()) h->leave();
  }
  void check() override {
    ncclResult_t error = ncclSuccess;
    cuda::check(nccl().CommGetAsyncError(comm_, &error), "ncclCommGetAsyncError");
    if (error != ncclInProgress) cuda::check(error, "NCCL, at work");
  }
  /// That of the ops, or of the work beside them that calls this.
  cudaStream_t stream() const {
    return with_cuda(backend_, [](auto& own) { return own.stream(); });
  }
  /// NCCL connects ranks, and allocates, at the first call of a kind: before the rest of the memory is planned.
  void warm_up() {
    const size_t block = std::min<size_t>(kScratchBytes / 2 / size(), 4 << 20);
    char *const to = scratch_.get(), *const from = to + kScratchBytes / 2;
    exchange(to, block, from, block, block);
    gather(to, from, block);
    cuda::check(nccl().Broadcast(to, to, block, ncclUint8, 0, comm_, stream()), "ncclBroadcast");
    backend_.synchronize();
  }
  /// All ranks are about to do the same, which is reported until the result is destroyed.
  Entered begin(const char* op, const Tensor& t, int root = -1) {
    host_.meet_for(op, t.dtype, t.numel(), root);
    return {host_.heartbeat(), op, host_.among(), host_.sequence()};
  }
  /// Block r of `out` = block rank() of rank r's `in`, for all r; distances and sizes in bytes.
  void exchange(char* out, size_t out_distance, const char* in, size_t in_distance, size_t bytes);
  void gather(void* out, const void* in, size_t bytes) {
    count_sent(bytes);
    if (bytes > 0) cuda::check(nccl().AllGather(in, out, bytes, ncclUint8, comm_, stream()), "ncclAllGather");
  }
  template <class T>
  void add(T* to, const T* from, int64_t n) {
    if (n > 0)
      launch(add_ranks_kernel<T>, {grid_of(ceil_div(n, kThreads)), dim3(kThreads), 0, stream()}, to, from, size(), n);
  }

  ncclComm_t comm_ = nullptr;
  std::unique_ptr<char, Release> scratch_{nullptr, {backend_}};
  const int exceptions_ = std::uncaught_exceptions();
};

void NcclComm::exchange(char* out, size_t out_distance, const char* in, size_t in_distance, size_t bytes) {
  if (bytes == 0) return;
  count_sent(bytes);
  Group group;
  for (int r = 0; r < size(); ++r) {
    cuda::check(nccl().Send(in + r * in_distance, bytes, ncclUint8, r, comm_, stream()), "ncclSend");
    cuda::check(nccl().Recv(out + r * out_distance, bytes, ncclUint8, r, comm_, stream()), "ncclRecv");
  }
  group.end();
}

void NcclComm::all_reduce_sum(const Tensor& t) {
  const Entered inside = begin("all_reduce_sum", t);
  with_summable("all_reduce_sum", t, [&](auto type) {
    using T = decltype(type);
    const int64_t chunk = kScratchBytes / static_cast<int64_t>(sizeof(T));
    for (int64_t begin = 0; begin < t.numel(); begin += chunk) {
      T* const here = static_cast<T*>(t.data) + begin;
      const int64_t count = std::min(chunk, t.numel() - begin), slice = count / size(), rest = count - slice * size();
      T* const all = reinterpret_cast<T*>(scratch_.get());
      if (slice > 0) {
        const size_t bytes = slice * sizeof(T);
        T* const own = here + rank() * slice;
        exchange(scratch_.get(), bytes, reinterpret_cast<const char*>(here), bytes, bytes);
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
  const Entered inside = begin("all_reduce_max", t);
  with_summable("all_reduce_max", t, [&](auto type) {
    using T = decltype(type);
    const int64_t chunk = kScratchBytes / static_cast<int64_t>(sizeof(T)) / size();
    for (int64_t begin = 0; begin < t.numel(); begin += chunk) {
      T* const here = static_cast<T*>(t.data) + begin;
      const int64_t n = std::min(chunk, t.numel() - begin);
      gather(scratch_.get(), here, n * sizeof(T));
      launch(most_of_ranks_kernel<T>, {grid_of(ceil_div(n, kThreads)), dim3(kThreads), 0, stream()}, here,
             reinterpret_cast<const T*>(scratch_.get()), size(), n);
    }
  });
}

void NcclComm::all_gather(const Tensor& out, const Tensor& in) {
  CHECK(out.dtype == in.dtype && out.numel() == in.numel() * size(), "{} of {}", out.describe(), in.describe());
  const Entered inside = begin("all_gather", in);
  gather(out.data, in.data, in.bytes());
}

void NcclComm::reduce_scatter(const Tensor& out, const Tensor& in) {
  CHECK(out.dtype == in.dtype && in.numel() == out.numel() * size(), "{} of {}", out.describe(), in.describe());
  const Entered inside = begin("reduce_scatter", out);
  with_summable("reduce_scatter", in, [&](auto type) {
    using T = decltype(type);
    const int64_t chunk = kScratchBytes / static_cast<int64_t>(sizeof(T)) / size(), n = out.numel();
    for (int64_t begin = 0; begin < n; begin += chunk) {
      const int64_t count = std::min(chunk, n - begin);
      exchange(scratch_.get(), count * sizeof(T), reinterpret_cast<const char*>(static_cast<const T*>(in.data) + begin),
               n * sizeof(T), count * sizeof(T));
      add(static_cast<T*>(out.data) + begin, reinterpret_cast<const T*>(scratch_.get()), count);
    }
  });
}

void NcclComm::all_to_all(const Tensor& out, const Tensor& in) {
  CHECK(out.dtype == in.dtype && out.numel() == in.numel() && in.numel() % size() == 0, "{} and {}", out.describe(),
        in.describe());
  CHECK(out.data != in.data || in.numel() == 0, "not in place");
  const Entered inside = begin("all_to_all", in);
  const size_t block = in.bytes() / size();
  exchange(static_cast<char*>(out.data), block, static_cast<const char*>(in.data), block, block);
}

void NcclComm::broadcast(const Tensor& t, int root) {
  CHECK(root >= 0 && root < size(), "root {} of {} ranks", root, size());
  const Entered inside = begin("broadcast", t, root);
  if (rank() == root) count_sent(t.bytes());
  if (t.bytes() > 0)
    cuda::check(nccl().Broadcast(t.data, t.data, t.bytes(), ncclUint8, root, comm_, stream()), "ncclBroadcast");
}

void NcclComm::send(const Tensor& t, int to) {
  CHECK(to >= 0 && to < size() && to != rank(), "rank {} sends to rank {} of {}", rank(), to, size());
  const Entered inside(host_.heartbeat(), "send", host_.among(), host_.sequence());
  count_message(t.bytes());
  if (t.bytes() > 0) cuda::check(nccl().Send(t.data, t.bytes(), ncclUint8, to, comm_, stream()), "ncclSend");
}

void NcclComm::recv(const Tensor& t, int from) {
  CHECK(from >= 0 && from < size() && from != rank(), "rank {} receives from rank {} of {}", rank(), from, size());
  const Entered inside(host_.heartbeat(), "recv", host_.among(), host_.sequence());
  if (t.bytes() > 0) cuda::check(nccl().Recv(t.data, t.bytes(), ncclUint8, from, comm_, stream()), "ncclRecv");
}

}  // namespace
}  // namespace cuda

std::unique_ptr<Comm> make_nccl_comm(Backend& backend, HostComm& host) {
  return std::make_unique<cuda::NcclComm>(backend, host);
}

}  // namespace dapo

#else
namespace dapo {

std::unique_ptr<Comm> make_nccl_comm(Backend&, HostComm&) {
  fail_input("this program was built without NCCL, which connects ranks on GPUs; install nccl.h and run make again");
}

}  // namespace dapo
#endif
