#include "cuda_streams.h"

#include <chrono>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "allocations.h"

using Work = std::function<cudaError_t()>;

struct CUgraph_st {
  std::vector<Work> nodes;
};
struct CUgraphExec_st {
  std::vector<Work> nodes;
};
struct CUstream_st {
  std::shared_ptr<CUgraph_st> capture;
  bool origin = false;
  std::deque<Work> pending;  // DAPO_SIM_LAZY
  std::recursive_mutex running;
  long submitted = 0, finished = 0;
};
struct CUevent_st {
  std::chrono::steady_clock::time_point time;
  bool timed = true, recorded = false;
  CUstream_st* stream = nullptr;
  long after = 0;                       // of the stream's submitted work
  std::shared_ptr<CUgraph_st> capture;  // recorded in a stream that is being captured: whoever waits for it joins
};

namespace sim {
namespace {

struct Host {
  std::recursive_mutex mutex;
  CUstream_st standard;
  std::set<CUstream_st*> streams;
  std::set<CUevent_st*> events;
  std::set<CUgraph_st*> graphs;
  std::set<CUgraphExec_st*> executables;
  int captures = 0;
};
Host& host() {
  static auto* h = new Host;
  return *h;
}

CUstream_st* stream_of(cudaStream_t s) {
  if (!s) return &host().standard;
  return host().streams.contains(s) ? s : nullptr;
}

}  // namespace

bool capturing() {
  std::lock_guard lock(host().mutex);
  return host().captures > 0;
}

int laziness() {
  static const int lazy = [] {
    const char* v = std::getenv("DAPO_SIM_LAZY");
    return v ? std::atoi(v) : 0;
  }();
  return lazy;
}

namespace {

/// Runs the stream's work up to its n-th piece; returns the first error.
cudaError_t catch_up_to(CUstream_st* stream, long n) {
  std::lock_guard only_one(stream->running);  // the order is the stream's
  cudaError_t first = cudaSuccess;
  for (;;) {
    Work work;
    {
      std::lock_guard lock(host().mutex);
      if (stream->finished >= n || stream->pending.empty()) break;
      work = std::move(stream->pending.front());
      stream->pending.pop_front();
    }
    const DeviceOpen open;
    const cudaError_t e = work();
    if (first == cudaSuccess) first = e;
    std::lock_guard lock(host().mutex);
    ++stream->finished;
  }
  return keep(first);
}
cudaError_t catch_up_all(CUstream_st* stream) {
  std::unique_lock lock(host().mutex);
  const long all = stream->submitted;
  lock.unlock();
  return catch_up_to(stream, all);
}

}  // namespace

cudaError_t catch_up(cudaStream_t s) {
  return catch_up_all(stream_of(s));
}

void catch_up_device() {
  if (!laziness()) return;
  std::unique_lock lock(host().mutex);
  const std::set<CUstream_st*> streams = host().streams;
  lock.unlock();
  catch_up_all(&host().standard);
  for (CUstream_st* s : streams) catch_up_all(s);
}

cudaError_t submit(cudaStream_t s, Work work) {
  {
    std::lock_guard lock(host().mutex);
    CUstream_st* stream = stream_of(s);
    if (!stream) return keep(cudaErrorInvalidResourceHandle);
    if (stream->capture) {
      stream->capture->nodes.push_back(std::move(work));
      return cudaSuccess;
    }
    if (!s && host().captures) return keep(cudaErrorStreamCaptureUnsupported);
    if (laziness()) {
      stream->pending.push_back(std::move(work));
      ++stream->submitted;
      return cudaSuccess;
    }
  }
  const DeviceOpen open;
  return keep(work());
}

Live live() {
  Live l;
  count_memory(l);
  l.handles = live_handles();
  std::lock_guard lock(host().mutex);
  l.streams = static_cast<long>(host().streams.size());
  l.events = static_cast<long>(host().events.size());
  l.graphs = static_cast<long>(host().graphs.size());
  l.executables = static_cast<long>(host().executables.size());
  return l;
}

}  // namespace sim

using sim::host;
using sim::keep;

// ---- streams and events

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) {
  ENTER("cudaStreamCreate");
  std::lock_guard lock(host().mutex);
  host().streams.insert(*s = new CUstream_st);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* s) {
  return cudaStreamCreateWithFlags(s, 0);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned flags, int) {
  return cudaStreamCreateWithFlags(s, flags);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0, *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
  sim::catch_up_device();
  {
    std::lock_guard lock(host().mutex);
    if (!host().streams.erase(s)) return keep(cudaErrorInvalidResourceHandle);
    for (CUevent_st* e : host().events)
      if (e->stream == s) e->stream = nullptr;
    delete s;
  }
  ENTER("cudaStreamDestroy");
  return cudaSuccess;
}
namespace {
cudaError_t settle(const char* name, cudaStream_t s) {
  ENTER(name);
  CUstream_st* stream = nullptr;
  {
    std::lock_guard lock(host().mutex);
    stream = sim::stream_of(s);
    if (!stream) return keep(cudaErrorInvalidResourceHandle);
    if (stream->capture || (!s && host().captures)) return keep(cudaErrorStreamCaptureUnsupported);
  }
  return sim::catch_up_all(stream);
}
}  // namespace
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  return settle("cudaStreamSynchronize", s);
}
cudaError_t cudaStreamQuery(cudaStream_t s) {
  return settle("cudaStreamQuery", s);
}
cudaError_t cudaDeviceSynchronize() {
  const cudaError_t e = settle("cudaDeviceSynchronize", nullptr);
  sim::catch_up_device();
  return e;
}
cudaError_t cudaProfilerStart() {
  return cudaSuccess;
}
cudaError_t cudaProfilerStop() {
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  ENTER("cudaStreamWaitEvent");
  std::lock_guard lock(host().mutex);
  CUstream_st* stream = sim::stream_of(s);
  if (!stream || !host().events.contains(e)) return keep(cudaErrorInvalidResourceHandle);
  if (e->capture && !stream->capture) stream->capture = e->capture;
  if (stream->capture || !e->stream || e->stream == stream) return cudaSuccess;
  return sim::submit(s, [from = e->stream, after = e->after] { return sim::catch_up_to(from, after); });
}
cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void* user) {
  ENTER("cudaLaunchHostFunc");
  return sim::submit(s, [f, user] { return f(user), cudaSuccess; });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned flags) {
  ENTER("cudaEventCreate");
  std::lock_guard lock(host().mutex);
  host().events.insert(*e = new CUevent_st);
  (*e)->timed = !(flags & cudaEventDisableTiming);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* e) {
  return cudaEventCreateWithFlags(e, 0);
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
  {
    std::lock_guard lock(host().mutex);
    if (!host().events.erase(e)) return keep(cudaErrorInvalidResourceHandle);
    delete e;
  }
  ENTER("cudaEventDestroy");
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  ENTER("cudaEventRecord");
  std::lock_guard lock(host().mutex);
  CUstream_st* stream = sim::stream_of(s);
  if (!stream || !host().events.contains(e)) return keep(cudaErrorInvalidResourceHandle);
  e->capture = stream->capture;
  e->recorded = true;
  e->stream = stream;
  const cudaError_t submitted = stream->capture ? cudaSuccess : sim::submit(s, [e] {
    std::lock_guard inner(host().mutex);
    if (host().events.contains(e)) e->time = std::chrono::steady_clock::now();
    return cudaSuccess;
  });
  e->after = stream->submitted;
  return submitted;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  ENTER("cudaEventSynchronize");
  {
    std::lock_guard lock(host().mutex);
    if (!host().events.contains(e)) return keep(cudaErrorInvalidResourceHandle);
    if (e->capture && host().captures) return keep(cudaErrorStreamCaptureUnsupported);
    if (!e->stream) return cudaSuccess;
  }
  return sim::catch_up_to(e->stream, e->after);
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
  return cudaEventSynchronize(e);
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b) {
  ENTER("cudaEventElapsedTime");
  std::lock_guard lock(host().mutex);
  if (!host().events.contains(a) || !host().events.contains(b) || !a->recorded || !b->recorded || !a->timed ||
      !b->timed)
    return keep(cudaErrorInvalidResourceHandle);
  *ms = std::chrono::duration<float, std::milli>(b->time - a->time).count();
  return cudaSuccess;
}

// ---- graphs

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
  ENTER("cudaStreamBeginCapture");
  std::lock_guard lock(host().mutex);
  CUstream_st* stream = sim::stream_of(s);
  if (!stream) return keep(cudaErrorInvalidResourceHandle);
  if (!s) return keep(cudaErrorStreamCaptureUnsupported);
  if (stream->capture) return keep(cudaErrorInvalidValue);
  stream->capture = std::make_shared<CUgraph_st>();
  stream->origin = true;
  ++host().captures;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* graph) {
  *graph = nullptr;
  std::lock_guard lock(host().mutex);
  CUstream_st* stream = sim::stream_of(s);
  if (!stream || !stream->capture || !stream->origin) return keep(cudaErrorStreamCaptureUnmatched);
  const auto recorded = std::exchange(stream->capture, nullptr);
  stream->origin = false;
  --host().captures;
  for (CUstream_st* other : host().streams)
    if (other->capture == recorded) other->capture = nullptr;
  for (CUevent_st* e : host().events)
    if (e->capture == recorded) e->capture = nullptr;
  ENTER("cudaStreamEndCapture");
  host().graphs.insert(*graph = new CUgraph_st{std::move(recorded->nodes)});
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus* status) {
  std::lock_guard lock(host().mutex);
  CUstream_st* stream = sim::stream_of(s);
  if (!stream) return keep(cudaErrorInvalidResourceHandle);
  *status = stream->capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  ENTER("cudaGraphInstantiate");
  std::lock_guard lock(host().mutex);
  if (!host().graphs.contains(graph)) return keep(cudaErrorInvalidValue);
  host().executables.insert(*exec = new CUgraphExec_st{graph->nodes});
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s) {
  ENTER("cudaGraphLaunch");
  {
    std::lock_guard lock(host().mutex);
    if (!host().executables.contains(exec)) return keep(cudaErrorInvalidValue);
  }
  return sim::submit(s, [exec] {
    for (const Work& w : exec->nodes)
      if (const cudaError_t e = w()) return e;
    return cudaSuccess;
  });
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, std::size_t* count) {
  *count = graph->nodes.size();
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  std::lock_guard lock(host().mutex);
  if (!host().graphs.erase(graph)) return keep(cudaErrorInvalidValue);
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  sim::catch_up_device();
  std::lock_guard lock(host().mutex);
  if (!host().executables.erase(exec)) return keep(cudaErrorInvalidValue);
  delete exec;
  return cudaSuccess;
}
