// Ranks are threads, or processes of one machine: all that passes between them goes through memory that they share, a
// file without a name (memfd) that the rank which made the identifier holds open until all have come.
#include "nccl.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "cuda_bf16.h"
#include "cuda_streams.h"
#include "nccl_lanes.h"

namespace {

enum class Kind { all_reduce, reduce, reduce_scatter, all_gather, broadcast, send, receive };
struct Call {
  Kind kind;
  const void* send;
  void* receive;
  std::size_t count;
  ncclDataType_t type;
  ncclRedOp_t op;
  int root;  ///< send, receive: the peer
};

std::size_t size_of(ncclDataType_t t) {
  switch (t) {
    case ncclInt8:
    case ncclUint8:
      return 1;
    case ncclBfloat16:
      return 2;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64:
      return 8;
    default:
      return 4;
  }
}

template <class T, class Sum>
void fold(const std::vector<std::vector<char>>& parts, ncclRedOp_t op, std::size_t n, void* out) {
  for (std::size_t i = 0; i < n; ++i) {
    const auto part = [&](std::size_t r) { return static_cast<Sum>(reinterpret_cast<const T*>(parts[r].data())[i]); };
    Sum s = part(0);
    for (std::size_t r = 1; r < parts.size(); ++r) {
      const Sum v = part(r);
      s = op == ncclSum ? s + v : op == ncclProd ? s * v : op == ncclMax ? std::max(s, v) : std::min(s, v);
    }
    static_cast<T*>(out)[i] = static_cast<T>(s);
  }
}

/// The parts of all ranks, in rank order.
void reduce(const std::vector<std::vector<char>>& parts, const Call& c) {
  switch (c.type) {
    case ncclInt8:
      return fold<signed char, int>(parts, c.op, c.count, c.receive);
    case ncclUint8:
      return fold<unsigned char, unsigned>(parts, c.op, c.count, c.receive);
    case ncclInt32:
      return fold<int, int>(parts, c.op, c.count, c.receive);
    case ncclUint32:
      return fold<unsigned, unsigned>(parts, c.op, c.count, c.receive);
    case ncclInt64:
      return fold<long long, long long>(parts, c.op, c.count, c.receive);
    case ncclUint64:
      return fold<unsigned long long, unsigned long long>(parts, c.op, c.count, c.receive);
    case ncclFloat32:
      return fold<float, float>(parts, c.op, c.count, c.receive);
    case ncclFloat64:
      return fold<double, double>(parts, c.op, c.count, c.receive);
    case ncclBfloat16:
      return fold<__nv_bfloat16, float>(parts, c.op, c.count, c.receive);
  }
}

/// Files of identifiers of this process, until all of their ranks have come.
struct Files {
  std::mutex mutex;
  std::map<int, unsigned> serial;  // by descriptor
  unsigned next = 0;
};
Files& files() {
  static auto* f = new Files;
  return *f;
}

}  // namespace

struct ncclComm {
  sim::Shared* shared;
  int rank;
  int file;  ///< of the identifier, where this process made it; else -1
  unsigned serial;
  std::size_t size() const { return shared->ranks; }
  ~ncclComm() {
    close_file();
    munmap(shared, sim::Shared::bytes(static_cast<int>(size())));
  }
  /// Once all ranks have come, or this one goes.
  void close_file() {
    if (file < 0) return;
    std::lock_guard lock(files().mutex);
    if (const auto f = files().serial.find(file); f != files().serial.end() && f->second == serial) {
      files().serial.erase(f);
      close(file);
    }
    file = -1;
  }
};

namespace {

/// A call of a group, with what it receives before it is added up.
struct Work {
  ncclComm_t comm;
  Call call;
  std::vector<std::vector<char>> parts;
};

void pass(sim::Exchange& exchange, const Work& w, std::size_t peer, bool sends, void* data, std::size_t bytes) {
  const Call& c = w.call;
  const bool message = c.kind == Kind::send || c.kind == Kind::receive;
  const sim::Header header = message ? sim::Header{static_cast<std::uint32_t>(Kind::send), 0, 0, 0, bytes, bytes}
                                     : sim::Header{static_cast<std::uint32_t>(c.kind),
                                                   static_cast<std::uint32_t>(c.type),
                                                   static_cast<std::uint32_t>(c.op),
                                                   static_cast<std::uint32_t>(c.root),
                                                   c.count,
                                                   bytes};
  const auto own = static_cast<std::size_t>(w.comm->rank);
  exchange.pass(w.comm->shared, sends ? own : peer, sends ? peer : own, sends, header, data);
}

void add(sim::Exchange& exchange, Work& w) {
  const Call& c = w.call;
  const std::size_t bytes = c.count * size_of(c.type), ranks = w.comm->size();
  const auto own = static_cast<std::size_t>(w.comm->rank), root = static_cast<std::size_t>(c.root);
  auto* const out = static_cast<char*>(const_cast<void*>(c.send));
  auto* const in = static_cast<char*>(c.receive);
  if (c.kind == Kind::send) return pass(exchange, w, root, true, out, bytes);
  if (c.kind == Kind::receive) return pass(exchange, w, root, false, in, bytes);
  const bool sums =
      c.kind == Kind::all_reduce || c.kind == Kind::reduce_scatter || (c.kind == Kind::reduce && own == root);
  if (sums) w.parts.assign(ranks, std::vector<char>(bytes));
  for (std::size_t peer = 0; peer < ranks; ++peer) {
    const bool to_peer = c.kind == Kind::reduce ? peer == root : c.kind != Kind::broadcast || own == root;
    const bool from_peer = c.kind == Kind::reduce ? own == root : c.kind != Kind::broadcast || peer == root;
    pass(exchange, w, peer, true, c.kind == Kind::reduce_scatter ? out + peer * bytes : out, to_peer ? bytes : 0);
    pass(exchange, w, peer, false,
         sums                         ? w.parts[peer].data()
         : c.kind == Kind::all_gather ? in + peer * bytes
                                      : in,
         from_peer ? bytes : 0);
  }
}

struct Grouped {
  ncclComm_t comm;
  Call call;
  cudaStream_t stream;
};
thread_local int depth = 0;
thread_local std::vector<Grouped> grouped;

/// All begin before any waits; results are stored when all has come, since buffers may be shared.
ncclResult_t run_group(const std::vector<Grouped>& calls) {
  std::vector<Work> works;
  works.reserve(calls.size());
  sim::Exchange exchange;
  for (const auto& [comm, call, stream] : calls) add(exchange, works.emplace_back(Work{comm, call, {}}));
  const sim::Exchange::Result result = exchange.run();
  if (result == sim::Exchange::Result::aborted) return ncclRemoteError;
  if (result == sim::Exchange::Result::wrong) return ncclInvalidUsage;
  for (const Work& w : works)
    if (!w.parts.empty()) reduce(w.parts, w.call);
  return ncclSuccess;
}

ncclResult_t submit_group(const std::vector<Grouped>& calls) {
  if (calls.empty()) return ncclSuccess;
  for (const Grouped& g : calls)
    if (g.stream != calls[0].stream) sim::catch_up(g.stream);
  auto result = std::make_shared<ncclResult_t>(ncclSuccess);
  const cudaError_t e = sim::submit(calls[0].stream, [=] {
    *result = run_group(calls);
    return *result == ncclSuccess ? cudaSuccess : cudaErrorUnknown;
  });
  return e == cudaSuccess || *result != ncclSuccess ? *result : ncclUnhandledCudaError;
}

ncclResult_t collective(const char* name, const Call& c, ncclComm_t comm, cudaStream_t stream) {
  if (const int injected = sim::enter(name)) return static_cast<ncclResult_t>(injected);
  if (!comm || c.root < 0 || c.root >= static_cast<int>(comm->size())) return ncclInvalidArgument;
  if (depth) return grouped.push_back({comm, c, stream}), ncclSuccess;
  return submit_group({{comm, c, stream}});
}

}  // namespace

ncclResult_t ncclGetVersion(int* version) {
  return *version = 22700, ncclSuccess;
}
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const int file = memfd_create("sim-nccl", MFD_CLOEXEC);
  if (file < 0) return ncclSystemError;
  std::lock_guard lock(files().mutex);
  files().serial[file] = files().next;
  std::memset(id, 0, sizeof *id);
  std::snprintf(id->internal, sizeof id->internal, "%d %d %u", static_cast<int>(getpid()), file, files().next++);
  return ncclSuccess;
}
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank) {
  if (const int injected = sim::enter("ncclCommInitRank")) return static_cast<ncclResult_t>(injected);
  int process = 0, file = -1;
  unsigned serial = 0;
  if (ranks <= 0 || rank < 0 || rank >= ranks || std::sscanf(id.internal, "%d %d %u", &process, &file, &serial) != 3)
    return ncclInvalidArgument;
  const bool own = process == getpid();
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%d/fd/%d", process, file);
  const int opened = open(path, O_RDWR | O_CLOEXEC);
  if (opened < 0) return ncclSystemError;
  sim::Shared* const shared = sim::map_shared(opened, ranks);
  close(opened);
  if (!shared) return ncclSystemError;
  std::uint32_t none = 0;
  if (!shared->ranks.compare_exchange_strong(none, static_cast<std::uint32_t>(ranks)) &&
      none != static_cast<std::uint32_t>(ranks)) {
    munmap(shared, sim::Shared::bytes(ranks));
    return ncclInvalidUsage;
  }
  *comm = new ncclComm{shared, rank, own ? file : -1, serial};
  if (++shared->here == static_cast<std::uint32_t>(ranks) && own) (*comm)->close_file();
  sim::count_handles(1);
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (comm) sim::count_handles(-1);
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  comm->shared->aborted = 1;
  return ncclCommDestroy(comm);
}
ncclResult_t ncclCommCount(const ncclComm_t comm, int* ranks) {
  return *ranks = static_cast<int>(comm->size()), ncclSuccess;
}
ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  return *rank = comm->rank, ncclSuccess;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  *error = comm->shared->aborted ? ncclRemoteError : ncclSuccess;
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t r) {
  static const char* const names[] = {"no error",
                                      "unhandled cuda error",
                                      "unhandled system error",
                                      "internal error",
                                      "invalid argument",
                                      "invalid usage",
                                      "remote process exited or there was a network error",
                                      "NCCL operation in progress"};
  return r >= 0 && r <= 7 ? names[r] : "unknown result code";
}
const char* ncclGetLastError(ncclComm_t) {
  return "";
}

ncclResult_t ncclAllReduce(const void* s, void* r, std::size_t n, ncclDataType_t t, ncclRedOp_t op, ncclComm_t c,
                           cudaStream_t stream) {
  return collective("ncclAllReduce", {Kind::all_reduce, s, r, n, t, op, 0}, c, stream);
}
ncclResult_t ncclReduce(const void* s, void* r, std::size_t n, ncclDataType_t t, ncclRedOp_t op, int root, ncclComm_t c,
                        cudaStream_t stream) {
  return collective("ncclReduce", {Kind::reduce, s, r, n, t, op, root}, c, stream);
}
ncclResult_t ncclReduceScatter(const void* s, void* r, std::size_t n, ncclDataType_t t, ncclRedOp_t op, ncclComm_t c,
                               cudaStream_t stream) {
  return collective("ncclReduceScatter", {Kind::reduce_scatter, s, r, n, t, op, 0}, c, stream);
}
ncclResult_t ncclAllGather(const void* s, void* r, std::size_t n, ncclDataType_t t, ncclComm_t c, cudaStream_t stream) {
  return collective("ncclAllGather", {Kind::all_gather, s, r, n, t, ncclSum, 0}, c, stream);
}
ncclResult_t ncclBroadcast(const void* s, void* r, std::size_t n, ncclDataType_t t, int root, ncclComm_t c,
                           cudaStream_t stream) {
  return collective("ncclBroadcast", {Kind::broadcast, s, r, n, t, ncclSum, root}, c, stream);
}
ncclResult_t ncclSend(const void* s, std::size_t n, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t stream) {
  return collective("ncclSend", {Kind::send, s, nullptr, n, t, ncclSum, peer}, c, stream);
}
ncclResult_t ncclRecv(void* r, std::size_t n, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t stream) {
  return collective("ncclRecv", {Kind::receive, nullptr, r, n, t, ncclSum, peer}, c, stream);
}
ncclResult_t ncclGroupStart() {
  return ++depth, ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  if (depth == 0) return ncclInvalidUsage;
  if (--depth) return ncclSuccess;
  return submit_group(std::exchange(grouped, {}));
}
