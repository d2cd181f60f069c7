#include "nccl.h"

#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cuda_bf16.h"
#include "cuda_streams.h"

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
void fold(const std::vector<Call>& calls, std::size_t offset, std::size_t n, ncclRedOp_t op, void* out) {
  for (std::size_t i = 0; i < n; ++i) {
    Sum s = static_cast<Sum>(static_cast<const T*>(calls[0].send)[offset + i]);
    for (std::size_t r = 1; r < calls.size(); ++r) {
      const Sum v = static_cast<Sum>(static_cast<const T*>(calls[r].send)[offset + i]);
      s = op == ncclSum ? s + v : op == ncclProd ? s * v : op == ncclMax ? std::max(s, v) : std::min(s, v);
    }
    static_cast<T*>(out)[i] = static_cast<T>(s);
  }
}

void reduce(const std::vector<Call>& calls, std::size_t offset, std::size_t n, std::vector<char>& out) {
  out.resize(n * size_of(calls[0].type));
  switch (calls[0].type) {
    case ncclInt8:
      return fold<signed char, int>(calls, offset, n, calls[0].op, out.data());
    case ncclUint8:
      return fold<unsigned char, unsigned>(calls, offset, n, calls[0].op, out.data());
    case ncclInt32:
      return fold<int, int>(calls, offset, n, calls[0].op, out.data());
    case ncclUint32:
      return fold<unsigned, unsigned>(calls, offset, n, calls[0].op, out.data());
    case ncclInt64:
      return fold<long long, long long>(calls, offset, n, calls[0].op, out.data());
    case ncclUint64:
      return fold<unsigned long long, unsigned long long>(calls, offset, n, calls[0].op, out.data());
    case ncclFloat32:
      return fold<float, float>(calls, offset, n, calls[0].op, out.data());
    case ncclFloat64:
      return fold<double, double>(calls, offset, n, calls[0].op, out.data());
    case ncclBfloat16:
      return fold<__nv_bfloat16, float>(calls, offset, n, calls[0].op, out.data());
  }
}

/// The calls of all ranks with one sequence number, once all have arrived; all results are computed before any is
/// stored, since buffers may be shared.
void run(const std::vector<Call>& calls) {
  const Call& c = calls[0];
  const std::size_t bytes = c.count * size_of(c.type), ranks = calls.size();
  std::vector<char> out;
  if (c.kind == Kind::all_reduce || c.kind == Kind::reduce) {
    reduce(calls, 0, c.count, out);
    for (std::size_t r = 0; r < ranks; ++r)
      if (c.kind == Kind::all_reduce || static_cast<int>(r) == c.root) std::memcpy(calls[r].receive, out.data(), bytes);
  } else if (c.kind == Kind::reduce_scatter) {
    reduce(calls, 0, c.count * ranks, out);
    for (std::size_t r = 0; r < ranks; ++r) std::memcpy(calls[r].receive, out.data() + r * bytes, bytes);
  } else if (c.kind == Kind::all_gather) {
    for (const Call& from : calls)
      out.insert(out.end(), static_cast<const char*>(from.send), static_cast<const char*>(from.send) + bytes);
    for (const Call& to : calls) std::memcpy(to.receive, out.data(), out.size());
  } else {
    for (const Call& to : calls) std::memmove(to.receive, calls[c.root].send, bytes);
  }
}

struct Meeting {
  std::vector<Call> calls;
  std::size_t come = 0, left = 0;
  bool wrong = false;
};

struct Message {
  const void* data;
  std::size_t bytes;
  bool taken = false, wrong = false;
};

struct Ranks {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::uint64_t, Meeting> meetings;
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<Message>>> messages;  // from, to
  std::size_t count;
  bool aborted = false;
};

std::mutex all_mutex;
std::map<std::string, std::weak_ptr<Ranks>> all_ranks;

}  // namespace

struct ncclComm {
  std::shared_ptr<Ranks> ranks;
  int rank;
  std::uint64_t posted = 0;

  std::uint64_t post(const Call& c) {
    std::lock_guard lock(ranks->mutex);
    Meeting& m = ranks->meetings[posted];
    m.calls.resize(ranks->count);
    m.calls[rank] = c;
    if (++m.come == ranks->count) {
      for (const Call& other : m.calls)
        m.wrong |= other.kind != c.kind || other.count != c.count || other.type != c.type || other.op != c.op ||
                   other.root != c.root;
      if (!m.wrong) run(m.calls);
      ranks->changed.notify_all();
    }
    return posted++;
  }
  ncclResult_t wait(std::uint64_t sequence) {
    std::unique_lock lock(ranks->mutex);
    Meeting& m = ranks->meetings[sequence];
    ranks->changed.wait(lock, [&] { return m.come == ranks->count || ranks->aborted; });
    if (ranks->aborted && m.come != ranks->count) return ncclRemoteError;
    const bool wrong = m.wrong;
    if (++m.left == ranks->count) ranks->meetings.erase(sequence);
    return wrong ? ncclInvalidUsage : ncclSuccess;
  }

  std::shared_ptr<Message> offer(const Call& c) {
    std::lock_guard lock(ranks->mutex);
    auto message = std::make_shared<Message>(Message{c.send, c.count * size_of(c.type)});
    ranks->messages[{rank, c.root}].push_back(message);
    ranks->changed.notify_all();
    return message;
  }
  ncclResult_t receive(const Call& c) {
    std::unique_lock lock(ranks->mutex);
    auto& queue = ranks->messages[{c.root, rank}];
    ranks->changed.wait(lock, [&] { return !queue.empty() || ranks->aborted; });
    if (queue.empty()) return ncclRemoteError;
    const std::shared_ptr<Message> message = queue.front();
    queue.pop_front();
    message->wrong = message->bytes != c.count * size_of(c.type);
    if (!message->wrong) std::memmove(c.receive, message->data, message->bytes);
    message->taken = true;
    ranks->changed.notify_all();
    return message->wrong ? ncclInvalidUsage : ncclSuccess;
  }
  ncclResult_t wait_taken(const Message& message) {
    std::unique_lock lock(ranks->mutex);
    ranks->changed.wait(lock, [&] { return message.taken || ranks->aborted; });
    return !message.taken ? ncclRemoteError : message.wrong ? ncclInvalidUsage : ncclSuccess;
  }
};

namespace {

struct Grouped {
  ncclComm_t comm;
  Call call;
  cudaStream_t stream;
};
thread_local int depth = 0;
thread_local std::vector<Grouped> grouped;

/// All begin before any waits.
ncclResult_t run_group(const std::vector<Grouped>& calls) {
  std::vector<std::pair<ncclComm_t, std::uint64_t>> meetings;
  std::vector<std::pair<ncclComm_t, std::shared_ptr<Message>>> sent;
  for (const auto& [comm, call, stream] : calls)
    if (call.kind == Kind::send)
      sent.emplace_back(comm, comm->offer(call));
    else if (call.kind != Kind::receive)
      meetings.emplace_back(comm, comm->post(call));
  ncclResult_t result = ncclSuccess;
  for (const auto& [comm, call, stream] : calls)
    if (call.kind == Kind::receive)
      if (const ncclResult_t r = comm->receive(call)) result = r;
  for (const auto& [comm, message] : sent)
    if (const ncclResult_t r = comm->wait_taken(*message)) result = r;
  for (const auto& [comm, sequence] : meetings)
    if (const ncclResult_t r = comm->wait(sequence)) result = r;
  return result;
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
  if (!comm || c.root < 0 || c.root >= static_cast<int>(comm->ranks->count)) return ncclInvalidArgument;
  if (depth) return grouped.push_back({comm, c, stream}), ncclSuccess;
  return submit_group({{comm, c, stream}});
}

}  // namespace

ncclResult_t ncclGetVersion(int* version) {
  return *version = 22700, ncclSuccess;
}
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static std::mutex mutex;
  static unsigned next = 0;
  std::lock_guard lock(mutex);
  std::memset(id, 0, sizeof *id);
  std::snprintf(id->internal, sizeof id->internal, "sim-%u", next++);
  return ncclSuccess;
}
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank) {
  if (const int injected = sim::enter("ncclCommInitRank")) return static_cast<ncclResult_t>(injected);
  if (ranks <= 0 || rank < 0 || rank >= ranks) return ncclInvalidArgument;
  std::lock_guard lock(all_mutex);
  auto& known = all_ranks[id.internal];
  auto shared = known.lock();
  if (!shared) {
    known = shared = std::make_shared<Ranks>();
    shared->count = static_cast<std::size_t>(ranks);
  }
  if (shared->count != static_cast<std::size_t>(ranks)) return ncclInvalidUsage;
  *comm = new ncclComm{shared, rank};
  sim::count_handles(1);
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (comm) sim::count_handles(-1);
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  {
    std::lock_guard lock(comm->ranks->mutex);
    comm->ranks->aborted = true;
    comm->ranks->changed.notify_all();
  }
  return ncclCommDestroy(comm);
}
ncclResult_t ncclCommCount(const ncclComm_t comm, int* ranks) {
  return *ranks = static_cast<int>(comm->ranks->count), ncclSuccess;
}
ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  return *rank = comm->rank, ncclSuccess;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  std::lock_guard lock(comm->ranks->mutex);
  *error = comm->ranks->aborted ? ncclRemoteError : ncclSuccess;
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
