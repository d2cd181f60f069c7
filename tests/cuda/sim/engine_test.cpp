// A run's use of the driver: the number of recorded graphs is bounded, weights go through pinned memory, and missing
// memory is an error at the start.
#include "cuda/cuda_device.h"
#include "host/app/backends.h"
#include "model/decode.h"
#include "tests/cuda/sim/driver_test.h"
#include "tests/host/toy.h"

namespace dapo {
namespace {

class CudaEngine : public DriverTest {};

TEST_F(CudaEngine, AllocationsCanBeCounted) {
  const auto backend = make_cuda_backend(DType::f32);
  for (const char* name : {"cudaMalloc", "cudaMallocHost"}) {
    sim::fail_call(1, cudaErrorMemoryAllocation, name);
    try {
      void* p = backend->allocate(256);
      backend->release(p, 256);
      void* q = backend->allocate_host(256);
      backend->release_host(q, 256);
    } catch (const Error&) {
    }
    EXPECT_TRUE(sim::failed()) << name;
  }
}

TEST_F(CudaEngine, RecordedGraphsAreBounded) {
  const auto backend = make_cuda_backend(DType::f32);
  const Tensor t(backend->allocate(4), DType::i32, {1});
  const long before = sim::live().executables;
  int32_t bodies = 0;
  const auto run = [&](uint64_t key) { backend->replayable(key, [&] { ++bodies, backend->increment(t); }); };
  for (uint64_t key = 0; key < 300; ++key) {
    run(key);
    run(0);  // always used: it must stay
  }
  EXPECT_LE(sim::live().executables - before, 64);
  EXPECT_GT(sim::live().executables - before, 32);
  EXPECT_EQ(bodies, 2 * 300) << "key 0 was recorded again";  // for each key one run, one recording
  int32_t value = 0;
  backend->copy_out_now(&value, t);
  EXPECT_EQ(value, 600);  // every call counted once, replayed or not
  run(1);                 // dropped long ago: recorded again
  EXPECT_EQ(bodies, 2 * 301);
  backend->release(t.data, 4);
}

TEST_F(CudaEngine, BatchesThatShrinkReplayOneRecordedStep) {
  const auto backend = make_cuda_backend(DType::bf16);
  const auto comm = make_single_comm(*backend);
  Weights weights(*backend, *comm, Toy::shapes());
  weights.init(7, 0.15f);
  ModelLimits limits;
  limits.max_length = 64, limits.batch = 16, limits.prefill_tokens = 16, limits.kv_pages = 16;
  ModelMemory memory(weights, limits);
  Decoder decoder(memory);
  decoder.begin();
  const long before = sim::live().executables;
  std::vector<int32_t> first;
  for (int count : {16, 15, 11, 9}) {
    PagedBatch b;
    b.row_begin = {0}, b.max_pages = 1;
    for (int i = 0; i < count; ++i) {
      b.ids.push_back(3 + i), b.row_begin.push_back(i + 1), b.prefix_length.push_back(0), b.own_length.push_back(1);
      b.pages.push_back(i), b.keys.push_back({1, i, 0}), b.positions.push_back(1);
    }
    std::vector<int32_t> tokens(3 * count);
    std::vector<float> log_prob(tokens.size());
    decoder.decode(b, 3, {}, tokens, log_prob);
    if (first.empty()) first = tokens;
    for (int step = 0; step < 3; ++step)
      for (int i = 0; i < count; ++i)
        EXPECT_EQ(tokens[step * count + i], first[step * 16 + i])
            << "token " << step << " of sequence " << i << " of " << count;
  }
  EXPECT_EQ(sim::live().executables - before, 1);
  PagedBatch b;  // the page that pads batches is used by nothing else
  b.ids = {3}, b.row_begin = {0, 1}, b.prefix_length = {0}, b.own_length = {1}, b.max_pages = 1;
  b.pages = {16}, b.keys = {{1, 0, 0}}, b.positions = {1};
  std::vector<int32_t> tokens(3);
  std::vector<float> log_prob(3);
  expect_error(kExitInternal, "page 16 of 16", [&] { decoder.decode(b, 3, {}, tokens, log_prob); });
}

TEST_F(CudaEngine, WeightsGoThroughPinnedMemory) {
  // The third pinned buffer is refused: loading needs them, fails with one line, and leaves nothing behind.
  const long before = sim::live().total();
  const auto draw = [] {
    const auto backend = make_cuda_backend(DType::f32);
    const auto comm = make_single_comm(*backend);
    Weights(*backend, *comm, Toy::shapes()).init(7, 0.3f);
  };
  sim::fail_call(3, cudaErrorMemoryAllocation, "cudaMallocHost");
  expect_error(kExitResources, "cudaMallocHost", draw);
  EXPECT_EQ(sim::live().total(), before);
  sim::fail_call(0, 0);
  draw();
  EXPECT_EQ(sim::live().total(), before);
}

TEST_F(CudaEngine, AModelTooLargeIsRefusedBeforeItRuns) {
  auto chosen = make_backend("cuda", "f32");
  sim::set_total_memory(1 << 20);
  const auto comm = make_single_comm(*chosen.backend);
  Weights weights(*chosen.backend, *comm, Toy::shapes());
  ModelLimits l;
  l.max_length = 256, l.pack_tokens = l.pack_segments = l.pack_head_rows = 4096, l.train = true;
  expect_error(kExitResources, "are free", [&] { ModelMemory memory(weights, l); });
}

}  // namespace
}  // namespace dapo
