// Records what runs on the GPU, and when, of any program: a library that CUDA loads (CUDA_INJECTION64_PATH), which writes
// a line a kernel, copy and fill to $DAPO_TIMELINE when the program ends. bench/timeline.py reads it. For machines
// without Nsight Systems; CUPTI comes with CUDA, and with PyTorch.
//
//   start_ns <TAB> end_ns <TAB> stream <TAB> graph (0: none) <TAB> blocks <TAB> threads a block <TAB> name
//
// Durations are the device's own clock readings; recording slows the host's launches, so gaps between graphs are those
// of a slower host.
#include <cupti.h>
#include <cxxabi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

namespace {

struct Event {
  uint64_t start, end;
  uint32_t stream, graph, blocks, threads;
  std::string name;
};

constexpr size_t kBufferBytes = size_t{8} << 20;
std::mutex mutex;
std::vector<Event> events;

void check(CUptiResult result, const char* what) {
  if (result == CUPTI_SUCCESS) return;
  const char* why = "?";
  cuptiGetResultString(result, &why);
  std::fprintf(stderr, "timeline: %s: %s\n", what, why);
  std::exit(3);
}

std::string readable(const char* name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string r = status == 0 ? text : name;
  std::free(text);
  return r;
}

void CUPTIAPI give_buffer(uint8_t** buffer, size_t* size, size_t* most) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(8, kBufferBytes));
  *size = kBufferBytes;
  *most = 0;
}

void add(const CUpti_Activity* record) {
  switch (record->kind) {
    case CUPTI_ACTIVITY_KIND_KERNEL:
    case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: {
      const auto* k = reinterpret_cast<const CUpti_ActivityKernel10*>(record);
      events.push_back(
          {k->start, k->end, k->streamId, k->graphId,
           static_cast<uint32_t>(k->gridX) * static_cast<uint32_t>(k->gridY) * static_cast<uint32_t>(k->gridZ),
           static_cast<uint32_t>(k->blockX) * static_cast<uint32_t>(k->blockY) * static_cast<uint32_t>(k->blockZ),
           readable(k->name)});
      return;
    }
    case CUPTI_ACTIVITY_KIND_MEMCPY: {
      const auto* m = reinterpret_cast<const CUpti_ActivityMemcpy6*>(record);
      events.push_back(
          {m->start, m->end, m->streamId, m->graphId, 0, 0, "copy of " + std::to_string(m->bytes) + " bytes"});
      return;
    }
    case CUPTI_ACTIVITY_KIND_MEMSET: {
      const auto* m = reinterpret_cast<const CUpti_ActivityMemset4*>(record);
      events.push_back(
          {m->start, m->end, m->streamId, m->graphId, 0, 0, "fill of " + std::to_string(m->bytes) + " bytes"});
      return;
    }
    default:
      return;
  }
}

void CUPTIAPI take_buffer(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
  const std::lock_guard lock(mutex);
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) add(record);
  std::free(buffer);
}

void write_events() {
  cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  const std::lock_guard lock(mutex);
  const char* path = std::getenv("DAPO_TIMELINE");
  std::FILE* f = path == nullptr ? nullptr : std::fopen(path, "w");
  if (f == nullptr) {
    std::fprintf(stderr, "timeline: DAPO_TIMELINE names no file that can be written\n");
    return;
  }
  std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) { return a.start < b.start; });
  for (const Event& e : events)
    std::fprintf(f, "%llu\t%llu\t%u\t%u\t%u\t%u\t%s\n", static_cast<unsigned long long>(e.start),
                 static_cast<unsigned long long>(e.end), e.stream, e.graph, e.blocks, e.threads, e.name.c_str());
  std::fclose(f);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int InitializeInjection() {
  check(cuptiActivityRegisterCallbacks(give_buffer, take_buffer), "no callbacks");
  for (const CUpti_ActivityKind kind :
       {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMSET})
    check(cuptiActivityEnable(kind), "no record of activities");
  std::atexit(write_events);
  return 1;
}
